# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The Triton kernels against float64 formulas: outputs and all gradients, on packs of every shape."""

from functools import partial
from itertools import cycle, islice, product

import pytest
import torch

from tests.helpers import (
    TOLERANCE,
    assert_all_close,
    cu_seqlens_of,
    make_tla_inputs,
    relative_error,
    tla_twin,
    to_float64,
    values_and_gradients,
)
from tests.kernels.interpreted.rounded import tla_rounded
from turingvit_hf.kernels.linear_attention import triton_backend, turing_linear_attention
from turingvit_hf.kernels.linear_attention.launch_table import SIXTEEN_BIT, Launch


SIXTEEN = [torch.bfloat16, torch.float16]
RAGGED = (1, 2, 15, 16, 17, 63, 64, 65, 1000)
FORTY = tuple(islice(cycle((1, 2, 5, 17, 1, 33)), 40))


@pytest.fixture
def long_tiles(monkeypatch):
    """Tiles of 128 tokens in every kernel: the interpreter takes its time by the tile, however long that is."""
    monkeypatch.setattr(triton_backend, "launch", lambda *arguments: Launch(128, 4, 1))


def run_triton(lengths, **options):
    return partial(turing_linear_attention, cu_seqlens=cu_seqlens_of(lengths), backend="triton", **options)


def assert_matches_twin(lengths, inputs, *, tolerance=TOLERANCE[torch.float32], **options):
    actual = values_and_gradients(run_triton(lengths, **options), inputs)
    exact = values_and_gradients(partial(tla_twin, lengths=lengths, **options), to_float64(inputs))
    assert actual["y"].dtype == inputs["q"].dtype
    assert_all_close(actual, exact, tolerance)


def assert_rounds_as_it_should(lengths, inputs):
    """Every tensor is a third of a rounding step from the twin that rounds alike, one from the twin that does not."""
    eps, dtype = torch.finfo(inputs["q"].dtype).eps, inputs["q"].dtype
    actual = values_and_gradients(run_triton(lengths), inputs)
    rounded = values_and_gradients(partial(tla_rounded, lengths=lengths, dtype=dtype), to_float64(inputs))
    exact = values_and_gradients(partial(tla_twin, lengths=lengths), to_float64(inputs))
    for name, x in actual.items():
        assert x.dtype == dtype
        distance = (x.double() - rounded[name]).norm() / rounded[name].norm()
        assert distance.item() <= eps / 3, name
    assert_all_close(actual, exact, eps)


SHAPES = {
    "ragged": (RAGGED, 3, 32),
    "40 segments": (FORTY, 2, 32),
    "20 heads": ((5, 33), 20, 32),
    "heads of 64": ((65, 1, 300), 2, 64),
    "heads of 128": ((17, 300), 1, 128),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("long_tiles")
def test_packs_in_float32(shape):
    lengths, num_heads, head_dim = SHAPES[shape]
    assert_matches_twin(lengths, make_tla_inputs(lengths, num_heads=num_heads, head_dim=head_dim))


@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
@pytest.mark.parametrize("shape", ["ragged", "heads of 64", "heads of 128"])
@pytest.mark.usefixtures("long_tiles")
def test_packs_in_16_bits(shape, dtype):
    lengths, num_heads, head_dim = SHAPES[shape]
    inputs = make_tla_inputs(lengths, num_heads=num_heads, head_dim=head_dim, dtype=dtype)
    assert_rounds_as_it_should(lengths, inputs)


@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("family", SIXTEEN_BIT)
def test_the_tiles_of_every_family(monkeypatch, family, head_dim):
    monkeypatch.setattr(triton_backend, "launch_family", lambda device: family)
    assert_matches_twin((3, 70), make_tla_inputs((3, 70), num_heads=2, head_dim=head_dim))


@pytest.mark.parametrize("without", list(product(("rope", ""), ("gate", ""), ("norm_weight", ""))), ids=str)
@pytest.mark.parametrize(("scale", "activation", "eps"), [(None, "silu", 1e-6), (-0.5, "none", 1e-2)])
@pytest.mark.usefixtures("long_tiles")
def test_every_part_can_be_left_out(without, scale, activation, eps):
    inputs = make_tla_inputs((5, 1, 40), num_heads=2, head_dim=32, without=without)
    assert_matches_twin((5, 1, 40), inputs, scale=scale, activation=activation, eps=eps)


@pytest.mark.parametrize("layout", ["fused", "interleaved"])
@pytest.mark.usefixtures("long_tiles")
def test_views_of_one_projection_are_read_where_they_lie(monkeypatch, layout):
    lengths = (20, 1, 30)
    inputs = make_tla_inputs(lengths, num_heads=3, head_dim=32, layout=layout)
    assert not inputs["q"].is_contiguous()
    launched = []
    original = triton_backend._Launcher.chunks
    monkeypatch.setattr(
        triton_backend._Launcher,
        "chunks",
        lambda run, name, *arguments, **constants: (
            launched.append((name, *arguments)) or original(run, name, *arguments, **constants)
        ),
    )
    assert_matches_twin(lengths, inputs)
    read = {x.data_ptr() for call in launched for x in call if isinstance(x, torch.Tensor)}
    assert {inputs[name].data_ptr() for name in ("q", "k", "v", "gate")} <= read


@pytest.mark.usefixtures("long_tiles")
def test_16384_tokens():
    assert_matches_twin((16384,), make_tla_inputs((16384,), num_heads=1, head_dim=32))


@pytest.mark.usefixtures("long_tiles")
def test_9216_tokens_in_float16():
    # the gradient of the state holds 1/N: with all of it float16 would have lost it among subnormal numbers
    inputs = make_tla_inputs((9216,), num_heads=1, head_dim=64, dtype=torch.float16)
    inputs |= {name: (inputs[name].detach() * 3).requires_grad_() for name in ("q", "k", "v")}
    with torch.no_grad():
        plain = dict.fromkeys(("cos", "sin", "gate", "norm_weight"))
        unscaled = tla_twin(**to_float64(inputs) | plain, lengths=(9216,), scale=1.0)
        assert unscaled.abs().max() > torch.finfo(torch.float16).max
    assert_rounds_as_it_should((9216,), inputs)


@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.usefixtures("long_tiles")
def test_images_of_one_token(num_heads):
    # under a norm over one head o is parallel to v and the norm takes its length away: the true gradients of q and k
    # are what eps leaves over, and plain float32 is off by some percent, too
    lengths = (1, 1, 5, 1)
    inputs = make_tla_inputs(lengths, num_heads=num_heads, head_dim=32)
    exact = values_and_gradients(partial(tla_twin, lengths=lengths), to_float64(inputs))
    plain = values_and_gradients(partial(tla_twin, lengths=lengths), inputs)
    for name, x in values_and_gradients(run_triton(lengths), inputs).items():
        error, allowed = relative_error(x, exact[name]), 3 * relative_error(plain[name], exact[name])
        assert error <= max(TOLERANCE[torch.float32], allowed if num_heads == 1 else 0.0), name
