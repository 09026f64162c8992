# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pooling, norm and MLP against float64; a clip weighs its frames evenly, whatever their content."""

import numpy as np
import pytest
import torch

from tests.helpers import TOLERANCE, assert_close, cu_seqlens_of, relative_error, rms_norm
from tests.towers import TowerTwin, make_image, make_model, pack, tiny_config
from turingvit_hf.modeling.pooling import mean_over_frames, mean_over_tokens


FLOAT32 = TOLERANCE[torch.float32]
GRID = torch.tensor([[1, 3, 5], [1, 1, 1], [3, 2, 2], [1, 7, 1]])
FRAMES = (15, 1, 4, 4, 4, 7)


@pytest.fixture(scope="module")
def tower():
    return make_model()


def make_tokens(num_tokens):
    return torch.randn(num_tokens, 32, generator=torch.Generator().manual_seed(0))


def pooled_by_formula(tower, tokens):
    twin = TowerTwin(tower.config, tower.state_dict())
    frames = [twin.pool(frame.double().numpy()) for frame in tokens.split(FRAMES)]
    return np.array([frames[0], frames[1], np.mean(frames[2:5], axis=0), frames[5]])


@torch.no_grad()
def test_pooling_of_a_pack(tower):
    tokens = make_tokens(sum(FRAMES))
    pooled = tower.head(tokens, cu_seqlens_of(FRAMES), GRID)
    assert pooled.shape == (4, 32)
    assert_close(pooled, pooled_by_formula(tower, tokens), FLOAT32)
    assert torch.equal(tower.head(tokens[None], cu_seqlens_of(FRAMES), GRID), pooled)


@torch.no_grad()
def test_pooling_of_a_batch_is_that_of_its_images(tower):
    tokens = make_tokens(4 * 15).unflatten(0, (4, 15))
    packed = tower.head(tokens.flatten(0, 1), cu_seqlens_of((15,) * 4), torch.tensor([[1, 3, 5]] * 4))
    assert_close(tower.head(tokens, None, None), packed, FLOAT32)
    twin = TowerTwin(tower.config, tower.state_dict())
    assert_close(packed[2], twin.pool(tokens[2].double().numpy()), FLOAT32)


def test_gradients_of_pooling(tower):
    # float64, so that finite differences and the batch form, which is torch's own attention, both judge the pack
    head = make_model().double().head
    tokens = make_tokens(12).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: head(x, cu_seqlens_of((5, 1, 6)), torch.tensor([[1, 5, 1], [1, 1, 1], [1, 2, 3]])), tokens
    )
    results = []
    for arguments in ((cu_seqlens_of((4,) * 3), torch.tensor([[1, 2, 2]] * 3)), (None, None)):
        x = tokens if arguments[1] is not None else tokens.unflatten(0, (3, 4))
        results.append(torch.autograd.grad(head(x, *arguments).square().sum(), [tokens, *head.parameters()]))
    assert max(relative_error(a, b) for a, b in zip(*results, strict=True)) < TOLERANCE[torch.float64]


@torch.no_grad()
def test_large_scores_do_not_overflow(tower):
    tokens = make_tokens(sum(FRAMES)) * 1e4
    assert tower.head(tokens, cu_seqlens_of(FRAMES), GRID).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_pooling_in_16_bits_keeps_the_dtype(dtype):
    tower = make_model().to(dtype)
    tokens = make_tokens(sum(FRAMES)).to(dtype)
    pooled = tower.head(tokens, cu_seqlens_of(FRAMES), GRID)
    assert pooled.dtype == dtype
    # a chain of six matrices, each one rounding its operands and its result
    assert_close(pooled, pooled_by_formula(tower, tokens), 6 * TOLERANCE[dtype])


def test_a_clip_is_the_mean_of_its_frames_and_not_of_its_tokens():
    frames = make_tokens(6)
    means = mean_over_frames(frames, GRID)
    assert_close(means, torch.stack([frames[0], frames[1], frames[2:5].mean(0), frames[5]]), FLOAT32)


@torch.no_grad()
def test_a_clip_in_the_tower_is_the_mean_of_its_frames(tower):
    clip = make_image(3, 2, frames=4)
    as_clip = tower(**pack([make_image(1, 1), clip])).pooler_output[1]
    as_images = tower(**pack(list(clip))).pooler_output
    assert_close(as_clip, as_images.mean(0), FLOAT32)
    # attention over the tokens of all frames at once would be something else
    assert relative_error(as_clip, tower.head(tower(**pack([clip])).last_hidden_state[None], None, None)[0]) > 0.05


def test_mean_over_tokens_of_every_layout():
    tokens = make_tokens(35)
    exact = torch.stack([x.mean(0) for x in tokens.split([15, 1, 12, 7])])
    assert_close(mean_over_tokens(tokens, GRID), exact, FLOAT32)
    assert_close(mean_over_tokens(tokens[None], GRID), exact, FLOAT32)
    assert_close(mean_over_tokens(tokens.unflatten(0, (5, 7)), None), tokens.unflatten(0, (5, 7)).mean(1), FLOAT32)


@torch.no_grad()
@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_norm_and_mlp_are_what_the_formulas_say(eps):
    tower = make_model(config=tiny_config(rms_norm_eps=eps))
    twin = TowerTwin(tower.config, tower.state_dict())
    tokens = make_tokens(9) * 0.01  # small enough for eps to count
    exact = rms_norm(tokens.double().numpy(), tower.final_norm.weight.double().numpy(), eps)
    assert_close(tower.final_norm(tokens), exact, FLOAT32)
    assert_close(tower.layers[0].mlp(tokens), twin.mlp("layers.0.mlp", tokens.double().numpy()), FLOAT32)
