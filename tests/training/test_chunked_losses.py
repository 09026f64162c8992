# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The losses without large matrices against their definitions: values, every gradient, dtypes, and memory."""

import math

import numpy as np
import pytest
import torch

from tests.helpers import record_allocations, relative_error
from turingvit_hf.training.losses import (
    chunked_siglip_loss,
    masked_cosine_loss,
    naive_superclass_loss,
    siglip_loss,
    superclass_loss,
)


# rounding of inputs is not counted: the twin gets the rounded ones in float64; gradients return in the inputs' dtype
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 6e-4, torch.bfloat16: 2**-8}
MIB = 2**20


def make_pairs(num_images, num_texts, dtype, size=24):
    generator = torch.Generator().manual_seed(num_images * 1000 + num_texts)
    embeds = [torch.randn(n, size, generator=generator, dtype=torch.float64) for n in (num_images, num_texts)]
    embeds = [torch.nn.functional.normalize(x, dim=-1).to(dtype).requires_grad_() for x in embeds]
    scalars = [torch.tensor([value], dtype=torch.float64).to(dtype).requires_grad_() for value in (math.log(10), -1.5)]
    return embeds + scalars


def make_classes(num_images, dtype, *, num_classes=37, size=12, num_ids=6):
    """Features and head, targets of every kind: full, with padding, empty, and of weights that add up to 0."""
    generator = torch.Generator().manual_seed(num_images)
    features, weight = (
        torch.randn(n, size, generator=generator, dtype=torch.float64) for n in (num_images, num_classes)
    )
    bias = torch.randn(num_classes, generator=generator, dtype=torch.float64)
    inputs = [tensor.to(dtype).requires_grad_() for tensor in (features, weight, bias)]
    ids = torch.stack([torch.randperm(num_classes, generator=generator)[:num_ids] for _ in range(num_images)])
    weights = torch.rand(num_images, num_ids, generator=generator, dtype=torch.float64)
    ids[::3, 2:] = -100
    ids[1::4] = -100
    weights = weights.masked_fill(ids < 0, 0.0)
    weights[2::5] = 0.0
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-30)
    return inputs, {"class_ids": ids, "class_weights": weights}


def value_and_gradients(loss, inputs):
    return [loss, *torch.autograd.grad(3 * loss, inputs)]


def twins_of(inputs):
    return [tensor.detach().double().requires_grad_() for tensor in inputs]


def assert_same(actual, exact, dtype):
    errors = [relative_error(x, y) for x, y in zip(actual, exact, strict=True)]
    assert max(errors) <= TOLERANCE[dtype], errors


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("num_images", "num_texts", "first"), [(1, 1, 0), (7, 7, 0), (33, 65, 20), (5, 300, 295)])
@pytest.mark.parametrize("chunk_size", [1, 8, 13, 1024])
def test_chunked_siglip_is_the_naive_one(num_images, num_texts, first, chunk_size, dtype):
    inputs = make_pairs(num_images, num_texts, dtype)
    twins = twins_of(inputs)
    exact = value_and_gradients(siglip_loss(*twins, first=first), twins)
    loss = chunked_siglip_loss(*inputs, first=first, chunk_size=chunk_size)
    actual = value_and_gradients(loss, inputs)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert [x.dtype for x in actual[1:]] == [dtype] * 4
    assert_same(actual, exact, dtype)


def test_chunked_siglip_passes_gradcheck():
    inputs = make_pairs(4, 6, torch.float64, size=3)
    torch.autograd.gradcheck(lambda *x: chunked_siglip_loss(*x, first=1, chunk_size=3), inputs)


def test_chunked_siglip_without_images_is_zero():
    inputs = make_pairs(0, 3, torch.float32)
    actual = value_and_gradients(chunked_siglip_loss(*inputs, first=2), inputs)
    assert all(not x.any() for x in actual)


def test_chunked_siglip_keeps_extreme_logits_finite():
    images, texts, _, bias = make_pairs(4, 4, torch.float32)
    scale = torch.tensor([12.0], requires_grad=True)
    for x in value_and_gradients(
        chunked_siglip_loss(images, texts, scale, bias, chunk_size=3), [images, texts, scale]
    ):
        assert torch.isfinite(x).all()


def test_chunked_siglip_checks_its_arguments():
    inputs = make_pairs(3, 4, torch.float32)
    with pytest.raises(ValueError, match="3 images from first=2 on need that many texts, there are 4"):
        chunked_siglip_loss(*inputs, first=2)
    with pytest.raises(ValueError, match="chunk_size=0 must be at least 1"):
        chunked_siglip_loss(*inputs, chunk_size=0)


def test_without_gradients_nothing_is_kept():
    inputs = make_pairs(5, 5, torch.float32)
    with torch.no_grad():
        quiet = chunked_siglip_loss(*inputs)
    assert quiet.grad_fn is None
    assert torch.equal(quiet, chunked_siglip_loss(*inputs).detach())
    frozen = [tensor.detach() for tensor in inputs[:2]]
    loss = chunked_siglip_loss(*frozen, *inputs[2:])
    whole = torch.autograd.grad(chunked_siglip_loss(*inputs), inputs[2:])
    torch.testing.assert_close(torch.autograd.grad(loss, inputs[2:]), whole, rtol=0, atol=0)


def superclass_by_loops(features, weight, bias, class_ids, class_weights):
    """The definition image by image and class by class, in NumPy."""
    total, num_images = 0.0, 0
    for x, ids, targets in zip(features, class_ids, class_weights, strict=True):
        logits = weight @ x + bias
        log_softmax = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        total -= sum(target * log_softmax[index] for index, target in zip(ids, targets, strict=True) if index >= 0)
        num_images += bool((ids >= 0).any())
    return total / max(num_images, 1)


@pytest.mark.parametrize("num_images", [1, 2, 21])
def test_naive_superclass_is_its_definition(num_images):
    inputs, targets = make_classes(num_images, torch.float64)
    exact = superclass_by_loops(*(x.detach().numpy() for x in inputs), *(x.numpy() for x in targets.values()))
    assert naive_superclass_loss(*inputs, **targets).item() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("num_images", [1, 5, 21])
@pytest.mark.parametrize("chunk_size", [1, 4, 1024])
def test_chunked_superclass_is_the_naive_one(num_images, chunk_size, dtype):
    inputs, targets = make_classes(num_images, dtype)
    twins = twins_of(inputs)
    exact = value_and_gradients(naive_superclass_loss(*twins, **targets), twins)
    actual = value_and_gradients(superclass_loss(*inputs, **targets, chunk_size=chunk_size), inputs)
    assert [x.dtype for x in actual[1:]] == [dtype] * 3
    assert_same(actual, exact, dtype)


def test_chunked_superclass_passes_gradcheck():
    inputs, targets = make_classes(5, torch.float64, num_classes=7, size=3, num_ids=4)
    torch.autograd.gradcheck(lambda *x: superclass_loss(*x, **targets, chunk_size=2), inputs)


def test_images_without_a_class_change_nothing():
    inputs, targets = make_classes(21, torch.float64)
    labeled = (targets["class_ids"] >= 0).any(1)
    assert 0 < labeled.sum() < 21
    fewer = superclass_loss(inputs[0][labeled], *inputs[1:], **{name: x[labeled] for name, x in targets.items()})
    torch.testing.assert_close(superclass_loss(*inputs, **targets), fewer, rtol=1e-14, atol=0)
    targets["class_ids"][:] = -100
    actual = value_and_gradients(superclass_loss(*inputs, **targets), inputs)
    assert all(not x.any() for x in actual)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_does_not_round(dtype):
    pairs, (inputs, targets) = make_pairs(9, 9, torch.float32), make_classes(9, torch.float32)
    exact = [chunked_siglip_loss(*pairs), superclass_loss(*inputs, **targets)]
    with torch.autocast("cpu", dtype):
        actual = [chunked_siglip_loss(*pairs), superclass_loss(*inputs, **targets)]
    torch.testing.assert_close(actual, exact, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_masked_cosine_is_its_definition(dtype):
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randn(13, 8, generator=generator).to(dtype).requires_grad_()
    targets = torch.randn(13, 8, generator=generator).to(dtype)
    x, y = predictions.detach().double().numpy(), targets.double().numpy()
    lengths = np.linalg.norm(x, axis=1, keepdims=True), np.linalg.norm(y, axis=1, keepdims=True)
    cosines = (x * y).sum(1, keepdims=True) / (lengths[0] * lengths[1])
    gradient = -(y / (lengths[0] * lengths[1]) - cosines * x / lengths[0] ** 2) / 13
    loss = masked_cosine_loss(predictions, targets)
    (actual,) = torch.autograd.grad(loss, predictions)
    assert relative_error(loss, np.float64(1 - cosines.mean())) <= TOLERANCE[loss.dtype]
    assert relative_error(actual, gradient) <= TOLERANCE[dtype]


def test_masked_cosine_of_nothing_and_of_other_shapes():
    assert masked_cosine_loss(torch.zeros(0, 4), torch.zeros(0, 4)) == 0
    with pytest.raises(ValueError, match=r"predictions \(3, 4\) for targets \(4, 4\)"):
        masked_cosine_loss(torch.zeros(3, 4), torch.zeros(4, 4))
    torch.autograd.gradcheck(
        masked_cosine_loss, [torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, 4).double()]
    )


def test_siglip_of_8192_pairs_needs_less_than_a_third_of_one_matrix():
    matrix = 8192 * 8192 * 4
    embeds = [torch.nn.functional.normalize(torch.randn(8192, 256), dim=-1).requires_grad_() for _ in range(2)]
    scalars = [torch.tensor([value], requires_grad=True) for value in (2.3, -9.0)]
    values = []

    def run(loss_function):
        loss = loss_function(*embeds, *scalars)
        loss.backward()
        values.append(loss.item())

    naive, chunked = (record_allocations(lambda f=f: run(f)) for f in (siglip_loss, chunked_siglip_loss))
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    assert chunked.peak <= matrix / 3, f"{chunked.peak / MIB:.0f} MiB"
    assert naive.peak >= 4 * matrix, f"{naive.peak / MIB:.0f} MiB"


def test_superclass_keeps_no_matrix_of_images_and_classes():
    num_images, num_classes, size = 512, 8192, 16
    matrix = num_images * num_classes * 4
    inputs = [torch.randn(n, size, requires_grad=True) for n in (num_images, num_classes)]
    inputs.append(torch.zeros(num_classes, requires_grad=True))
    targets = {"class_ids": torch.randint(num_classes, (num_images, 8)), "class_weights": torch.full((512, 8), 1 / 8)}
    naive = record_allocations(lambda: naive_superclass_loss(*inputs, **targets).backward())
    chunked = record_allocations(lambda: superclass_loss(*inputs, **targets, chunk_size=32).backward())
    assert chunked.peak <= matrix / 4, f"{chunked.peak / matrix:.2f} matrices"
    assert naive.peak >= 3 * matrix, f"{naive.peak / matrix:.2f} matrices"
