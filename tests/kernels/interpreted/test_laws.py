# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Laws of the Triton kernels: the same bits every time, whatever else is in the pack and wherever tensors lie."""

from functools import partial

import numpy as np
import pytest
import torch
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

from tests.helpers import cu_seqlens_of, make_tla_inputs, values_and_gradients
from turingvit_hf.kernels.linear_attention import roofline, self_test, triton_backend, turing_linear_attention
from turingvit_hf.kernels.linear_attention.launch_table import Launch


RAGGED = (40, 1, 17, 300)
PER_TOKEN = ("y", "q", "k", "v", "gate")


@pytest.fixture(autouse=True)
def long_tiles(monkeypatch):
    """Tiles of 64 tokens in every kernel, so that a chunk has several."""
    monkeypatch.setattr(triton_backend, "launch", lambda *arguments: Launch(64, 4, 1))


def run_triton(lengths):
    return partial(turing_linear_attention, cu_seqlens=cu_seqlens_of(lengths), backend="triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_two_runs_give_the_same_bits(dtype):
    inputs = make_tla_inputs(RAGGED, num_heads=2, head_dim=32, dtype=dtype)
    first, second = (values_and_gradients(run_triton(RAGGED), inputs) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def select(inputs, tokens):
    """The inputs of some tokens of a pack."""
    pick = {name: x if name == "norm_weight" else x.detach()[tokens] for name, x in inputs.items()}
    return {name: x.requires_grad_(inputs[name].requires_grad) for name, x in pick.items()}


def run_pack(inputs, images, order):
    """Values and gradients by token of a pack of these images, whose output's gradient does not depend on the pack."""
    tokens = torch.cat([images[i] for i in order])
    inputs = select(inputs, tokens)
    y = run_triton(tuple(len(images[i]) for i in order))(**inputs)
    direction = torch.sin(torch.arange(y.shape[1]) + tokens[:, None]).to(y.dtype)
    names = PER_TOKEN[1:]
    grads = torch.autograd.grad(y, [inputs[name] for name in names], direction)
    return {"y": y.detach(), **dict(zip(names, grads, strict=True))}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_an_image_has_the_same_bits_alone_in_a_pack_and_in_any_order(dtype):
    inputs = make_tla_inputs(RAGGED, num_heads=2, head_dim=32, dtype=dtype)
    images = torch.arange(sum(RAGGED)).split(RAGGED)
    packed = run_pack(inputs, images, (0, 1, 2, 3))
    order = (2, 3, 0, 1)
    permuted = run_pack(inputs, images, order)
    for name in PER_TOKEN:
        assert torch.equal(permuted[name], packed[name][torch.cat([images[i] for i in order])]), name
    for index, tokens in enumerate(images):
        alone = run_pack(inputs, images, (index,))
        for name in PER_TOKEN:
            assert torch.equal(alone[name], packed[name][tokens]), (index, name)


def test_a_pack_may_lie_further_apart_than_32_bits_can_count(tmp_path, monkeypatch):
    # at 2^22 elements a token, token 512 is the first that a product of two int32 would put 2^31 elements too low;
    # the file behind the tensor has holes where nothing is written
    lengths, token_stride = (512, 8), 2**22
    size = (sum(lengths), 1, 32)
    memory = np.memmap(tmp_path / "sparse", np.float32, "w+", shape=(size[0] * token_stride,))
    storage = torch.from_numpy(memory)
    inputs = {name: x.detach() for name, x in make_tla_inputs(lengths, num_heads=1, head_dim=32).items()}
    strided = dict(inputs)
    for offset, name in enumerate(("q", "k", "v", "gate")):
        strided[name] = storage.as_strided(inputs[name].shape, (token_stride, *inputs[name].stride()[1:]), 32 * offset)
        strided[name].copy_(inputs[name])
    # the interpreter would copy the whole storage onto itself after each launch
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *arguments: None)

    def run(tensors):
        leaves = {name: x.detach().requires_grad_(name not in ("cos", "sin")) for name, x in tensors.items()}
        return values_and_gradients(run_triton(lengths), leaves)

    near, far = run(inputs), run(strided)
    assert all(torch.equal(near[name], far[name]) for name in near)


@pytest.mark.parametrize(("num_tokens", "head_dim"), [(700, 64), (1100, 32)])
def test_kernels_touch_the_bytes_that_the_roofline_counts(monkeypatch, num_tokens, head_dim):
    touched = count_bytes(monkeypatch)
    inputs = make_tla_inputs((num_tokens,), num_heads=2, head_dim=head_dim, dtype=torch.float16)
    inputs["norm_weight"] = inputs["norm_weight"].detach().float().requires_grad_()
    values_and_gradients(run_triton((num_tokens,)), inputs)
    image = roofline.Image(num_tokens, num_heads=2, head_dim=head_dim, itemsize=2)
    works = roofline.forward_work(image) + roofline.backward_work(image)[:-1]
    assert [kernel for kernel, _, _ in touched] == [work.kernel for work in works]
    for (kernel, reads, writes), work in zip(touched, works, strict=True):
        assert reads == pytest.approx(work.reads, rel=0.01), kernel
        assert writes == pytest.approx(work.writes, rel=0.01), kernel


def count_bytes(monkeypatch):
    """A list that every launch from now on appends its kernel to, with the bytes that it reads and those it writes."""
    launches, addresses = [], {"reads": [], "writes": []}
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
    call = GridExecutor.__call__

    def note(kind, pointers, mask):
        itemsize = pointers.get_element_ty().primitive_bitwidth // 8
        addresses[kind].append(np.unique(pointers.data[mask.data])[:, None] + np.arange(itemsize, dtype=np.uint64))

    def counted_load(builder, pointers, mask, *others):
        note("reads", pointers, mask)
        return load(builder, pointers, mask, *others)

    def counted_store(builder, pointers, value, mask, *others):
        note("writes", pointers, mask)
        return store(builder, pointers, value, mask, *others)

    def counted_call(executor, *arguments, **options):
        call(executor, *arguments, **options)
        sizes = [len(np.unique(np.concatenate([x.ravel() for x in found]))) for found in addresses.values()]
        launches.append((executor.fn.__name__, *sizes))
        for found in addresses.values():
            found.clear()

    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", counted_load)
    monkeypatch.setattr(InterpreterBuilder, "create_masked_store", counted_store)
    monkeypatch.setattr(GridExecutor, "__call__", counted_call)
    return launches


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_self_test_passes_once_and_is_not_run_again(monkeypatch, dtype):
    monkeypatch.setattr(self_test, "_passed", set())
    monkeypatch.delenv("TURINGVIT_SELF_TEST", raising=False)
    runs = []

    def backend(*arguments):
        runs.append(arguments)
        return triton_backend.linear_attention(*arguments)

    for _ in range(2):
        self_test.ensure_passed(backend, torch.device("cpu"), dtype, 32)
    assert len(runs) == 1


def break_value(y, *_):
    return y * 1.05


def break_gradient(y, q):
    return y + 0.05 * (q - q.detach()).flatten(1)


def break_one_token(y, *_):
    return torch.cat((y[:1] * torch.nan, y[1:]))


@pytest.mark.parametrize(
    ("damage", "named"),
    [(break_value, "the"), (break_gradient, "the gradient of q"), (break_one_token, "the")],
)
def test_the_self_test_names_what_is_wrong(monkeypatch, damage, named):
    monkeypatch.setattr(self_test, "_passed", set())
    monkeypatch.delenv("TURINGVIT_SELF_TEST", raising=False)

    def backend(q, *arguments):
        return damage(triton_backend.linear_attention(q, *arguments), q)

    for _ in range(2):
        with pytest.raises(RuntimeError, match=rf"float32 with heads of 32 fails its self-test on cpu: {named}"):
            self_test.ensure_passed(backend, torch.device("cpu"), torch.float32, 32)
    monkeypatch.setenv("TURINGVIT_SELF_TEST", "0")
    self_test.ensure_passed(backend, torch.device("cpu"), torch.float32, 32)
