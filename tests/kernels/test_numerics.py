# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Laws of the scale, of 16-bit dtypes and of reproducibility.

The norm hides a wrong factor in the state, so the laws of 1/(N·sqrt(K)) are tested without it.
"""

from functools import partial

import pytest
import torch

from tests.helpers import (
    PORTABLE_BACKENDS,
    TOLERANCE,
    assert_all_close,
    assert_close,
    cu_seqlens_of,
    make_tla_inputs,
    tla_numpy,
    tla_twin,
    to_float64,
    values_and_gradients,
)
from turingvit_hf.kernels.linear_attention import torch_backend, turing_linear_attention


RAGGED = (5, 40, 1, 700)


@pytest.fixture(params=PORTABLE_BACKENDS)
def backend(request):
    return request.param


def to_float64_arrays(inputs):
    return {name: x if x is None else x.detach().double() for name, x in inputs.items()}


def make_large_image(num_tokens, **options):
    """Inputs of one image whose unscaled products do not fit into float16."""
    inputs = make_tla_inputs((num_tokens,), num_heads=2, head_dim=64, **options)
    inputs |= {name: (inputs[name].detach() * 3).requires_grad_() for name in ("q", "k", "v")}
    arrays = to_float64_arrays(inputs | {"gate": None, "norm_weight": None})
    assert abs(tla_numpy(**arrays, lengths=(num_tokens,), scale=1.0)).max() > torch.finfo(torch.float16).max
    return inputs


@pytest.mark.parametrize("index", range(len(RAGGED)))
def test_the_scale_is_that_of_the_image_and_not_of_the_pack(backend, index):
    inputs = make_tla_inputs(RAGGED, without=("norm_weight",))
    y = turing_linear_attention(**inputs, cu_seqlens=cu_seqlens_of(RAGGED), backend=backend).split(RAGGED)[index]
    image = {name: x if x is None else x.split(RAGGED)[index] for name, x in inputs.items()}
    length = RAGGED[index]
    alone = tla_numpy(**to_float64_arrays(image), lengths=(length,), scale=1 / (length * 16**0.5))
    assert_close(y, alone, TOLERANCE[torch.float32])


def test_seeing_every_patch_twice_changes_nothing(backend):
    # K^T V doubles and so does N: the state is a mean over patches, and neither no 1/N nor 1/N² is
    inputs = make_tla_inputs((30,), without=("norm_weight",))
    once = turing_linear_attention(**inputs, cu_seqlens=cu_seqlens_of((30,)), backend=backend)
    doubled = {name: x if x is None else torch.cat([x, x]) for name, x in inputs.items()}
    twice = turing_linear_attention(**doubled, cu_seqlens=cu_seqlens_of((60,)), backend=backend)
    assert_close(twice, torch.cat([once, once]), TOLERANCE[torch.float32])


def test_a_second_division_by_the_number_of_tokens_would_be_seen_through_the_norm(backend):
    # without its 1/N the size of O does not depend on N; a second 1/N at 4,096 tokens would leave the output to eps
    inputs = make_tla_inputs((4096,), num_heads=2, without=("rope", "gate"))
    y = turing_linear_attention(**inputs, cu_seqlens=cu_seqlens_of((4096,)), eps=1e-5, backend=backend)
    assert_close(y, tla_numpy(**to_float64_arrays(inputs), lengths=(4096,), eps=1e-5), TOLERANCE[torch.float32])
    again = tla_numpy(**to_float64_arrays(inputs), lengths=(4096,), eps=1e-5, scale=1 / (4096**2 * 4))
    assert (again**2).mean() ** 0.5 < 0.1
    assert 0.9 < y.square().mean().sqrt() < 1.1


def test_the_default_scale_is_one_over_tokens_times_root_of_head_size(backend):
    inputs = make_tla_inputs((50,), without=("norm_weight",))
    run = partial(turing_linear_attention, **inputs, cu_seqlens=cu_seqlens_of((50,)), backend=backend)
    assert_close(run(), run(scale=1 / (50 * 4)), TOLERANCE[torch.float32])
    assert_close(run() * 50 * 4, run(scale=1.0), TOLERANCE[torch.float32])


@pytest.mark.parametrize("without", [("norm_weight",), ()], ids=["no norm", "norm"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_9216_tokens_in_16_bits(backend, dtype, without):
    lengths = (9216,)
    inputs = make_large_image(*lengths, dtype=dtype, without=("rope", *without))
    actual = values_and_gradients(
        partial(turing_linear_attention, cu_seqlens=cu_seqlens_of(lengths), backend=backend), inputs
    )
    exact = values_and_gradients(partial(tla_twin, lengths=lengths), to_float64(inputs))
    assert_all_close(actual, exact, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_9216_tokens_in_16_bits_as_a_compiler_sees_them(dtype):
    lengths = (9216,)
    inputs = make_large_image(*lengths, dtype=dtype, without=("rope", "norm_weight"))
    with torch.no_grad():
        q, k, v, gate = (inputs[name][None] for name in ("q", "k", "v", "gate"))
        y = torch_backend.dense_linear_attention(q, k, v, None, None, gate, None, 1e-6, "silu", None)[0]
    # float16 rounds the operands of the products here, as bfloat16 always does
    tolerance = {torch.float16: 4 * TOLERANCE[dtype], torch.bfloat16: TOLERANCE[dtype]}[dtype]
    assert_close(y, tla_numpy(**to_float64_arrays(inputs), lengths=lengths), tolerance)


@pytest.fixture
def poisoned_memory():
    """Memory that nobody has written to holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    assert torch.ones(3).new_empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("without", [("rope", "gate", "norm_weight"), ()], ids=["bare", "full"])
@pytest.mark.parametrize("lengths", [(1,), (16, 1, 33), (64,) * 12, (1,) * 20, (513,), (3, 600, 1, 40)], ids=str)
@pytest.mark.usefixtures("poisoned_memory")
def test_every_element_is_written(backend, lengths, without):
    inputs = make_tla_inputs(lengths, layout="fused", without=without)
    run = partial(turing_linear_attention, cu_seqlens=cu_seqlens_of(lengths), backend=backend)
    for name, tensor in values_and_gradients(run, inputs).items():
        assert tensor.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_two_runs_give_the_same_bits(backend, dtype):
    inputs = make_tla_inputs(RAGGED, dtype=dtype)
    run = partial(turing_linear_attention, cu_seqlens=cu_seqlens_of(RAGGED), backend=backend)
    first, second = values_and_gradients(run, inputs), values_and_gradients(run, inputs)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_an_image_alone_is_the_image_in_a_pack(backend, dtype):
    lengths = (64, 5, 64, 1, 600, 64)
    inputs = make_tla_inputs(lengths, dtype=dtype)
    packed = turing_linear_attention(**inputs, cu_seqlens=cu_seqlens_of(lengths), backend=backend).split(lengths)
    start = 0
    for length, image in zip(lengths, packed, strict=True):
        tokens = slice(start, start := start + length)
        alone = {name: x if name == "norm_weight" else x[tokens] for name, x in inputs.items()}
        y = turing_linear_attention(**alone, cu_seqlens=cu_seqlens_of((length,)), backend=backend)
        assert_close(image, y.detach(), TOLERANCE[dtype])
        assert y.dtype == dtype
