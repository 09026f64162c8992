# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The Triton backend of the operator on a GPU: numbers, bits, memory, and what torch does with operators.

`make test ARGS="-m gpu"` runs this folder; without a GPU every test in it is skipped, visibly.
"""

from functools import partial

import pytest
import torch

from tests.gpu.device import DEVICE, ON_GPU, ONLY_CUDA, REHEARSED, TOLERANCE, bounds_of, dtypes, make_inputs
from tests.helpers import assert_all_close, tla_twin, to_float64, values_and_gradients
from turingvit_hf.kernels.linear_attention import (
    choose_backend,
    explain_backend,
    self_test,
    triton_backend,
    turing_linear_attention,
)


pytestmark = ON_GPU

RAGGED = (1, 16, 50) if REHEARSED else (1, 2, 15, 16, 17, 63, 64, 65)
PACKS = [RAGGED] if REHEARSED else [(*RAGGED, 1000), (7,) * 40, (1025,), (16384,), (9216, 1, 4097, 300)]
HEADS = [(3, 32)] if REHEARSED else [(20, 64), (10, 128), (40, 32), (3, 64)]
ALL = dtypes("float16", "float32", "bfloat16")
SOME = ALL[:1] if REHEARSED else ALL
# float32 heads of 128 do not fit into shared memory and are refused
COMBINATIONS = [(heads, dtype) for heads in HEADS for dtype in ALL if (heads[1], dtype) != (128, torch.float32)]


def run_on_triton(lengths):
    return partial(turing_linear_attention, cu_seqlens=bounds_of(lengths), backend="triton")


def compare_with_float64(lengths, inputs, tolerance, **options):
    actual = values_and_gradients(partial(run_on_triton(lengths), **options), inputs)
    exact = values_and_gradients(partial(tla_twin, lengths=lengths, **options), to_float64(inputs))
    assert_all_close(actual, exact, tolerance)


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("lengths", PACKS, ids=lambda lengths: f"{len(lengths)} images of {sum(lengths)} tokens")
@pytest.mark.parametrize(("heads", "dtype"), COMBINATIONS, ids=str)
def test_outputs_and_gradients_match_float64(heads, dtype, lengths):
    inputs = make_inputs(lengths, num_heads=heads[0], head_dim=heads[1], dtype=dtype)
    compare_with_float64(lengths, inputs, TOLERANCE[dtype])


BARE = ("rope", "gate", "norm_weight")


@pytest.mark.parametrize("without", [BARE] if REHEARSED else [("rope",), ("gate",), ("norm_weight",), BARE], ids=str)
@pytest.mark.parametrize("dtype", SOME, ids=str)
def test_parts_may_be_missing(dtype, without):
    inputs = make_inputs((40, 1, 30), num_heads=3, head_dim=32, dtype=dtype, without=without)
    compare_with_float64((40, 1, 30), inputs, TOLERANCE[dtype])


@pytest.mark.parametrize("options", [{"activation": "none"}, {"scale": -0.03}], ids=str)
def test_other_activations_and_scales(options):
    inputs = make_inputs((40, 1, 30), num_heads=3, head_dim=32)
    compare_with_float64((40, 1, 30), inputs, TOLERANCE[torch.float32], **options)


@pytest.mark.parametrize("dtype", SOME, ids=str)
def test_views_of_one_projection_give_the_same_bits(dtype):
    make = partial(make_inputs, (40, 1, 30), num_heads=3, head_dim=32, dtype=dtype)
    run = run_on_triton((40, 1, 30))
    fused = make(fused=True)
    assert fused["q"].stride(0) == 4 * 3 * 32
    assert_same_bits(values_and_gradients(run, fused), values_and_gradients(run, make()))


@pytest.mark.parametrize("dtype", SOME, ids=str)
def test_two_runs_give_the_same_bits(dtype):
    inputs = make_inputs(RAGGED, num_heads=3, head_dim=32, dtype=dtype)
    first, second = (values_and_gradients(run_on_triton(RAGGED), inputs) for _ in range(2))
    assert_same_bits(first, second)


def test_an_image_alone_has_the_bits_that_it_has_in_a_pack():
    lengths = (17, 40, 1) if REHEARSED else (17, 1500, 1, 300, 5000)
    inputs = make_inputs(lengths, num_heads=3, head_dim=32)
    packed = values_and_gradients(run_on_triton(lengths), inputs)
    start, stop = sum(lengths[:1]), sum(lengths[:2])
    image = {
        name: x if name == "norm_weight" else x.detach()[start:stop].requires_grad_(x.requires_grad)
        for name, x in inputs.items()
    }
    y = run_on_triton((stop - start,))(**image)
    assert torch.equal(y, packed["y"][start:stop])


@pytest.fixture
def deterministic_mode():
    """Operators without a deterministic form fail, and memory that nobody has written to holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def full_inputs():
    inputs = make_inputs(RAGGED, num_heads=3, head_dim=32)
    return inputs, values_and_gradients(run_on_triton(RAGGED), inputs)


def test_deterministic_mode_changes_no_bit(full_inputs, deterministic_mode):
    inputs, before = full_inputs
    assert_same_bits(values_and_gradients(run_on_triton(RAGGED), inputs), before)


@pytest.mark.parametrize(("heads", "dtype"), COMBINATIONS[: 1 if REHEARSED else None], ids=str)
def test_self_test_has_room(heads, dtype):
    errors = self_test.compare(triton_backend.linear_attention, DEVICE, dtype, heads[1])
    assert max(errors.values()) <= self_test.TOLERANCE[dtype] / 2, errors


@ONLY_CUDA
def test_float32_heads_of_128_are_refused():
    inputs = make_inputs((5,), num_heads=2, head_dim=128)
    with pytest.raises(ValueError, match=r"the triton backend takes heads of \(32, 64\) in torch.float32, not of 128"):
        run_on_triton((5,))(**inputs)


@ONLY_CUDA
def test_the_first_use_of_a_gpu_tests_its_kernels(monkeypatch):
    monkeypatch.setattr(self_test, "_passed", set())
    inputs = make_inputs((5,), num_heads=3, head_dim=32)
    with torch.inference_mode():
        run_on_triton((5,))(**inputs)
    assert self_test._passed == {(inputs["q"].device, torch.float32, 32)}


@ONLY_CUDA
def test_a_gpu_runs_triton_by_itself():
    assert choose_backend(None, DEVICE) == "triton"
    assert explain_backend(DEVICE)[0] == "triton"


@pytest.mark.parametrize("dtype", dtypes("float16", "bfloat16"), ids=str)
def test_autocast_changes_no_bit_inside(dtype):
    lengths = (20, 1, 30)
    inputs = make_inputs(lengths, num_heads=3, head_dim=32, dtype=dtype)
    inputs["norm_weight"] = inputs["norm_weight"].detach().float().requires_grad_()

    def run_under_autocast(**tensors):
        with torch.autocast(DEVICE.type, dtype):
            return run_on_triton(lengths)(**tensors)

    autocast = values_and_gradients(run_under_autocast, inputs)
    assert autocast["norm_weight"].dtype == torch.float32
    assert_same_bits(autocast, values_and_gradients(run_on_triton(lengths), inputs))


def test_opcheck():
    inputs = make_inputs((4, 5), num_heads=2, head_dim=32)
    q, k, v, gate, norm_weight, cos, sin = inputs.values()
    forward = torch.ops.turingvit.triton_linear_attention.default
    torch.library.opcheck(forward, (q, k, v, bounds_of((4, 5)), cos, sin, gate, norm_weight, 1e-6, "silu", None))


@ONLY_CUDA
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_a_cuda_graph_replays_on_another_pack_of_as_many_tokens_and_images(dtype):
    packs = [(300, 17, 707), (1, 1000, 23), (341, 341, 342)]
    inputs, bounds = make_inputs(packs[0], num_heads=3, head_dim=32, dtype=dtype), bounds_of(packs[0])

    # the direction of the gradients is drawn on the CPU, which a graph may not wait for: it is drawn once, before
    direction = torch.randn(sum(packs[0]), 3 * 32, device=DEVICE).to(dtype)
    leaves = [x for x in inputs.values() if x.requires_grad]

    def step(cu_seqlens):
        y = turing_linear_attention(**inputs, cu_seqlens=cu_seqlens, backend="triton")
        return [y, *torch.autograd.grad(y, leaves, direction)]

    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(3):
            step(bounds)
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(bounds)
    for shift, lengths in enumerate(packs):
        with torch.no_grad():
            for leaf in leaves:
                leaf.copy_(leaf.roll(shift, 0))
            bounds.copy_(bounds_of(lengths))
        graph.replay()
        for replayed, exact in zip(captured, step(bounds_of(lengths)), strict=True):
            assert torch.equal(replayed, exact)


@ONLY_CUDA
def test_memory_of_one_image_of_16384_tokens():
    num_tokens, num_heads, head_dim = 16384, 20, 64
    inputs = make_inputs((num_tokens,), num_heads=num_heads, head_dim=head_dim, dtype=torch.bfloat16)
    bounds, leaves = bounds_of((num_tokens,)), [x for x in inputs.values() if x.requires_grad]
    direction = torch.randn(num_tokens, num_heads * head_dim, device=DEVICE).to(torch.bfloat16)

    def forward():
        return turing_linear_attention(**inputs, cu_seqlens=bounds, backend="triton")

    torch.autograd.grad(forward(), leaves, direction)  # compiles, and keeps the list of chunks
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = forward()
    forward_peak, kept = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    torch.cuda.reset_peak_memory_stats()
    grads = torch.autograd.grad(y, leaves, direction)
    backward_peak = torch.cuda.max_memory_allocated() - before
    assert len(grads) == 5
    # one row of each kind in bytes; README.md beside the kernels says what is saved and what is scratch
    row, squares, slack = num_tokens * num_heads * head_dim * 2, 4 * num_tokens * num_heads, 4 * 2**20
    partial_states = (num_tokens // 256 + 1) * num_heads * head_dim**2 * 4
    assert kept <= row + squares + slack
    assert forward_peak <= row + squares + partial_states + slack
    assert backward_peak <= row + squares + 4 * row + partial_states + slack


@ONLY_CUDA
def test_offsets_beyond_32_bits():
    num_images, length, num_heads, head_dim = 43, 10_000, 20, 64
    num_tokens, options = num_images * length, {"device": DEVICE, "dtype": torch.bfloat16}
    needed = 14 * 2**30
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    fused = torch.randn(num_tokens, 4, num_heads, head_dim, **options)
    assert fused.numel() > 2**31
    direction = torch.randn(num_tokens, num_heads * head_dim, **options)
    angles = torch.rand(num_tokens, head_dim // 2, device=DEVICE) * 6
    weight = torch.ones(num_heads * head_dim, device=DEVICE)

    def run(tokens, lengths):
        q, k, v, gate = leaves = [x.detach().requires_grad_() for x in fused[tokens].unbind(1)]
        tables = {"cos": angles[tokens].cos(), "sin": angles[tokens].sin()}
        y = run_on_triton(lengths)(q=q, k=k, v=v, gate=gate.flatten(1), norm_weight=weight, **tables)
        return y.detach(), *torch.autograd.grad(y, leaves, direction[tokens])

    packed = run(slice(None), (length,) * num_images)
    alone = run(slice(num_tokens - length, None), (length,))
    for in_pack, by_itself in zip(packed, alone, strict=True):
        assert torch.equal(in_pack[-length:], by_itself)
