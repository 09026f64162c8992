# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The SigLIP loss against a loop over pairs in float64, and against its own definition over ranks."""

import math

import pytest
import torch

from turingvit_hf.modeling.configuration_dual_encoder import initial_logit_bias
from turingvit_hf.training.losses import siglip_loss


def loss_by_loops(image_embeds, text_embeds, logit_scale, logit_bias, first=0):
    """Equation 1 of SigLIP, pair by pair."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(image_embeds)):
        for j in range(len(text_embeds)):
            sign = 1.0 if j == first + i else -1.0
            logit = torch.exp(logit_scale[0]) * sum(image_embeds[i] * text_embeds[j]) + logit_bias[0]
            total = total + torch.log1p(torch.exp(-sign * logit))
    return total / len(image_embeds)


def make_inputs(num_images, num_texts, dtype=torch.float64):
    generator = torch.Generator().manual_seed(num_images * 100 + num_texts)
    images = torch.nn.functional.normalize(torch.randn(num_images, 8, generator=generator, dtype=dtype), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(num_texts, 8, generator=generator, dtype=dtype), dim=-1)
    scale, bias = torch.tensor([math.log(10)], dtype=dtype), torch.tensor([-2.0], dtype=dtype)
    return [tensor.requires_grad_() for tensor in (images, texts, scale, bias)]


@pytest.mark.parametrize(("num_images", "num_texts", "first"), [(1, 1, 0), (2, 2, 0), (5, 5, 0), (3, 7, 0), (3, 7, 4)])
def test_loss_and_gradients_match_the_loops(num_images, num_texts, first):
    inputs = make_inputs(num_images, num_texts)
    twins = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    loss, exact = siglip_loss(*inputs, first=first), loss_by_loops(*twins, first=first)
    loss.backward()
    exact.backward()
    torch.testing.assert_close(loss, exact, rtol=1e-12, atol=0)
    for tensor, twin in zip(inputs, twins, strict=True):
        torch.testing.assert_close(tensor.grad, twin.grad, rtol=1e-11, atol=1e-14)


def test_float32_is_close_to_float64():
    inputs = make_inputs(32, 32)
    single = siglip_loss(*(tensor.float() for tensor in inputs))
    torch.testing.assert_close(single.double(), siglip_loss(*inputs), rtol=1e-6, atol=0)


def test_two_ranks_with_gathered_texts_give_the_loss_of_the_whole_batch():
    images, texts, scale, bias = make_inputs(6, 6)
    first_rank = siglip_loss(images[:4], texts, scale, bias, first=0)
    second_rank = siglip_loss(images[4:], texts, scale, bias, first=4)
    weighted = (4 * first_rank + 2 * second_rank) / 6
    torch.testing.assert_close(weighted, siglip_loss(images, texts, scale, bias), rtol=1e-12, atol=0)


def test_extreme_logits_stay_finite():
    images, texts, _, bias = make_inputs(4, 4)
    loss = siglip_loss(images, texts, torch.tensor([12.0], dtype=torch.float64), bias)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(images.grad).all()


@pytest.mark.parametrize(("num_texts", "first"), [(2, 0), (3, 1), (4, -1)])
def test_missing_texts_are_an_error(num_texts, first):
    images, texts, scale, bias = make_inputs(3, num_texts)
    with pytest.raises(
        ValueError, match=f"3 images from first={first} on need that many texts, there are {num_texts}"
    ):
        siglip_loss(images, texts, scale, bias, first=first)


def test_the_initial_bias_expects_one_right_text_for_each_image():
    for batch_size in (2, 32, 22_027):
        assert 1 / (1 + math.exp(-initial_logit_bias(batch_size))) == pytest.approx(1 / batch_size)
    assert initial_logit_bias(22_027) == pytest.approx(-10, abs=1e-4)
    with pytest.raises(ValueError, match="at least 2 pairs, not 1"):
        initial_logit_bias(1)
