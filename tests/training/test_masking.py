# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Block-wise masks: an exact count on any grid, a function of the seed, made of blocks, and fast."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.towers import tiny_config
from turingvit_hf import TuringViTForMaskedImageModeling
from turingvit_hf.training import masking
from turingvit_hf.training.arguments import OptimizerRecipe
from turingvit_hf.training.loop.optimizer import is_decayed, learning_rate_factors
from turingvit_hf.training.masking import block_mask


SIDES = st.one_of(st.integers(1, 4), st.integers(1, 40), st.integers(90, 130))


@st.composite
def grids_and_counts(draw):
    rows, columns = draw(SIDES), draw(SIDES)
    return rows, columns, draw(st.integers(0, rows * columns))


@given(grid=grids_and_counts(), seed=st.integers(0, 2**64))
def test_exactly_so_many_patches_are_masked(grid, seed):
    rows, columns, num_masked = grid
    mask = block_mask(*grid, seed=seed)
    assert mask.shape == (rows * columns,)
    assert mask.dtype is torch.bool
    assert int(mask.sum()) == num_masked
    assert torch.equal(mask, block_mask(*grid, seed=seed))


@given(grid=grids_and_counts(), seed=st.integers(0, 2**32))
def test_blocks_keep_within_their_size_and_aspect(grid, seed):
    rows, columns, num_missing = grid
    height, width = masking._draw_shape(np.random.default_rng(seed), rows, columns, max(num_missing, 1))
    assert 1 <= height <= rows
    assert 1 <= width <= columns
    # rounding moves each side by up to a half
    least = min(16, max(1, rows * columns / 16))
    assert (height + 0.5) * (width + 0.5) >= min(least, rows * columns)
    assert (height - 0.5) * (width - 0.5) <= max(least, num_missing)


@settings(max_examples=500)
@given(seed=st.integers(0, 2**32), num_missing=st.integers(16, 3000))
def test_blocks_are_neither_long_nor_thin_where_the_grid_lets_them(seed, num_missing):
    height, width = masking._draw_shape(np.random.default_rng(seed), 200, 200, num_missing)
    assert (height + 0.5) / (width - 0.5) > 0.3
    assert (width + 0.5) / (height - 0.5) > 0.3


def test_another_seed_is_another_mask():
    masks = {tuple(block_mask(16, 16, 102, seed=(0, 1, row)).tolist()) for row in range(50)}
    assert len(masks) == 50


def test_the_global_random_state_is_neither_read_nor_moved():
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    mask = block_mask(9, 9, 30, seed=1)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(1)
    assert torch.equal(mask, block_mask(9, 9, 30, seed=1))


def mean_masked_neighbors(mask, rows, columns):
    """The mean number of masked ones among the four neighbors of a masked patch."""
    padded = np.pad(mask.view(rows, columns).numpy(), 1).astype(int)
    neighbors = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return neighbors[padded[1:-1, 1:-1] == 1].mean()


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (8, 12), (32, 7), (96, 96)])
def test_masked_patches_lie_together(rows, columns):
    num_masked = round(0.4 * rows * columns)
    masks = [block_mask(rows, columns, num_masked, seed=seed) for seed in range(20)]
    # scattered patches have 4 x 0.4 = 1.6, less at the border; a full square of 5 x 5 has 3.2
    assert np.mean([mean_masked_neighbors(mask, rows, columns) for mask in masks]) > 2.8


def test_every_patch_is_masked_about_as_often():
    masks = torch.stack([block_mask(14, 14, 78, seed=seed) for seed in range(2000)]).float().mean(0).view(14, 14)
    assert masks.mean() == pytest.approx(78 / 196)
    # no block reaches past a corner, so corners are masked less; in BEiT's own masks 0.04 to 0.75 of the time
    assert masks.min() > 0.08
    assert masks.max() < 0.62


def test_a_grid_of_one_row_is_masked_by_runs():
    mask = block_mask(1, 400, 160, seed=3)
    assert int(mask[:-1].logical_and(~mask[1:]).sum()) < 20


def test_large_grids_and_full_masks_take_no_time():
    start = time.process_time()  # which other processes do not add to
    for num_masked in (3686, 9000, 9215, 9216):
        block_mask(96, 96, num_masked, seed=0)
    block_mask(1, 9216, 9216, seed=0)
    assert time.process_time() - start < 1.0  # a few milliseconds; a loop of rejections takes many seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 0), "at least one patch, got 0 rows and 4 columns"),
        ((4, -1, 0), "at least one patch, got 4 rows and -1 columns"),
        ((2, 3, 7), "num_masked=7 of 2 x 3 patches, allowed are 0 to 6"),
        ((2, 3, -1), "num_masked=-1 of 2 x 3 patches"),
    ],
)
def test_impossible_masks(arguments, message):
    with pytest.raises(ValueError, match=message):
        block_mask(*arguments, seed=0)


def test_the_mask_token_does_not_decay_and_learns_like_the_patch_embedding():
    model = TuringViTForMaskedImageModeling(tiny_config())
    names = [name for name, _ in model.named_parameters()]
    assert [name for name in names if not is_decayed(name)] == ["mask_token"]
    factors = learning_rate_factors(model, OptimizerRecipe(tower=0.5, heads=3.0, layer_decay=0.5))
    assert factors["mask_token"] == factors["turingvit.patch_embed.weight"] == 0.5 * 0.5**4
    assert factors["decoder.weight"] == 3.0
