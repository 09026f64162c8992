# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Every backend against Turing Linear Attention in float64, outputs and all gradients, on packs of every shape."""

from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import (
    PORTABLE_BACKENDS,
    TOLERANCE,
    assert_all_close,
    assert_close,
    cu_seqlens_of,
    make_tla_inputs,
    relative_error,
    tla_numpy,
    tla_twin,
    to_float64,
    values_and_gradients,
)
from turingvit_hf.kernels.linear_attention import turing_linear_attention


# one token, ragged, many single tokens, equal lengths below and beyond a tile of 512 tokens, a run that ends with one
PACKS = {
    "1": (1,),
    "7": (7,),
    "ragged": (16, 1, 33),
    "40 x 1": (1,) * 40,
    "12 x 64": (64,) * 12,
    "tile": (512,),
    "tile + 1": (513,),
    "1025": (1025,),
    "around a tile": (511, 1, 513, 3),
    "long in the middle": (3, 600, 1, 1, 40),
    "around a head's 16 columns": (1, 2, 15, 15, 16, 17, 17, 31, 32, 33),
    "8 x 15": (15,) * 8,
}
# around the 64 columns of a head, from where on a state is less work than products of tokens
SHORT = {
    **{f"5 x {length}": (length,) * 5 for length in (1, 2, 15, 16, 31, 32, 33, 63, 64, 65)},
    "mixed": (1, 2, 2, 15, 16, 31, 32, 33, 63, 64, 65),
    # 300 at the end would draw an image of two tokens whose gradients cancel: what is left of them is rounding, which
    # is another one on another processor
    "mixed with long": (16, 16, 600, 33, 1, 514, 2, 2, 2, 301),
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def run_backend(backend, lengths, **options):
    return partial(turing_linear_attention, cu_seqlens=cu_seqlens_of(lengths), backend=backend, **options)


def assert_matches_twin(backend, lengths, inputs, **options):
    actual = values_and_gradients(run_backend(backend, lengths, **options), inputs)
    exact = values_and_gradients(partial(tla_twin, lengths=lengths, **options), to_float64(inputs))
    assert actual["y"].dtype == inputs["q"].dtype
    assert_all_close(actual, exact, TOLERANCE[inputs["q"].dtype])


@pytest.mark.parametrize("pack", PACKS)
def test_the_twins_agree(pack):
    inputs = to_float64(make_tla_inputs(PACKS[pack]))
    with torch.no_grad():
        assert_close(tla_twin(**inputs, lengths=PACKS[pack]), tla_numpy(**inputs, lengths=PACKS[pack]), 1e-13)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("backend", PORTABLE_BACKENDS)
def test_packs(backend, pack, dtype):
    assert_matches_twin(backend, PACKS[pack], make_tla_inputs(PACKS[pack], dtype=dtype))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("pack", SHORT)
def test_short_images_with_heads_of_64(pack, dtype):
    assert_matches_twin("torch", SHORT[pack], make_tla_inputs(SHORT[pack], head_dim=64, dtype=dtype))


@pytest.mark.parametrize("scale", [None, -0.5])
@pytest.mark.parametrize("without", [("rope",), ("gate",), ("norm_weight",), ("rope", "gate", "norm_weight")], ids=str)
def test_short_images_without_a_part(without, scale):
    lengths = SHORT["mixed with long"]
    inputs = make_tla_inputs(lengths, head_dim=64, without=without)
    assert_matches_twin("torch", lengths, inputs, scale=scale)


@pytest.mark.parametrize("backend", PORTABLE_BACKENDS)
def test_a_long_image_with_heads_of_64(backend):
    inputs = make_tla_inputs((4097,), num_heads=2, head_dim=64)
    assert_matches_twin(backend, (4097,), inputs)
    with torch.no_grad():
        actual = run_backend(backend, (4097,))(**inputs)
    assert_close(actual, tla_numpy(**to_float64({k: x.detach() for k, x in inputs.items()}), lengths=(4097,)), 1e-6)


@pytest.mark.parametrize("scale", [None, 0.25, -0.5])
@pytest.mark.parametrize("without", list(product(("rope", ""), ("gate", ""), ("norm_weight", ""))), ids=str)
@pytest.mark.parametrize("backend", PORTABLE_BACKENDS)
def test_every_part_can_be_left_out(backend, without, scale):
    lengths = (5, 1, 40, 600)
    assert_matches_twin(backend, lengths, make_tla_inputs(lengths, without=without), scale=scale)


@pytest.mark.parametrize("activation", ["silu", "none"])
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
@pytest.mark.parametrize("backend", PORTABLE_BACKENDS)
def test_activation_and_eps(backend, eps, activation):
    assert_matches_twin(backend, (5, 30), make_tla_inputs((5, 30)), eps=eps, activation=activation)


@pytest.mark.parametrize("layout", ["fused", "interleaved"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", PORTABLE_BACKENDS)
def test_views_of_one_projection(backend, dtype, layout):
    lengths = (20, 1, 30, 600)
    inputs = make_tla_inputs(lengths, dtype=dtype, layout=layout)
    assert not inputs["q"].is_contiguous()
    assert_matches_twin(backend, lengths, inputs)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12).map(tuple),
    tile=st.sampled_from([1, 8, 64]),
    without=st.sets(st.sampled_from(["rope", "gate", "norm_weight"])).map(tuple),
)
def test_any_pack_at_any_tile(lengths, tile, without):
    inputs = to_float64(make_tla_inputs(lengths, num_heads=2, head_dim=4, without=without))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("turingvit_hf.kernels.linear_attention.torch_tiles.TILE_TOKENS", {"cpu": tile})
        assert_matches_twin("torch", lengths, inputs)


@pytest.mark.parametrize("backend", PORTABLE_BACKENDS)
def test_one_token_images_under_a_norm_over_one_head(backend):
    # o is parallel to v and the norm takes its length away: the true gradients of q and k are what eps leaves over,
    # and float32 cannot do better than a few percent, in plain torch either
    lengths = (1, 1, 5, 1)
    inputs = make_tla_inputs(lengths, num_heads=1)
    exact = values_and_gradients(partial(tla_twin, lengths=lengths), to_float64(inputs))
    plain = values_and_gradients(partial(tla_twin, lengths=lengths), inputs)
    actual = values_and_gradients(run_backend(backend, lengths), inputs)
    for name in exact:
        tolerance = max(TOLERANCE[torch.float32], 3 * relative_error(plain[name], exact[name]))
        assert_close(actual[name], exact[name], tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", PORTABLE_BACKENDS)
def test_the_batched_form_is_a_pack_of_equal_images(backend, dtype):
    inputs = make_tla_inputs((21,) * 4, dtype=dtype)
    packed = values_and_gradients(run_backend(backend, (21,) * 4), inputs)

    def run_batched(norm_weight, **tensors):
        tensors = {name: x.unflatten(0, (4, 21)) for name, x in tensors.items()}
        y = turing_linear_attention(**tensors, norm_weight=norm_weight, backend=backend)
        assert y.shape == (4, 21, 48)
        return y.flatten(0, 1)

    batched = values_and_gradients(run_batched, inputs)
    assert all(torch.equal(batched[name], packed[name]) for name in packed)
