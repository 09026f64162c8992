# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Block-wise masks for masked feature distillation: rectangles of patches, an exact number of patches in all.

Rectangles hide whole objects, which single patches scattered over an image do not: a masked patch with a visible
neighbor is guessed from it. Sizes and shapes of the rectangles are those of BEiT (Bao et al. 2021, arXiv 2106.08254,
algorithm 1), which EVA-02 keeps: at least 16 patches, an aspect ratio between 0.3 and 1 / 0.3.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch


MIN_BLOCK_PATCHES = 16
MIN_ASPECT = 0.3
# BEiT's least block is a sixteenth of the grid it was made for; smaller grids keep that share
MIN_BLOCK_SHARE = 1 / 16


def block_mask(rows: int, columns: int, num_masked: int, *, seed: int | Sequence[int]) -> torch.Tensor:
    """A mask with exactly `num_masked` patches of a grid hidden by random rectangles: (rows · columns,) bool,
    row-major, True where a patch is masked.

    Each rectangle covers a patch that is not masked yet, drawn uniformly, so there are at most `num_masked` of them,
    and a dozen or so on a usual grid. A rectangle is narrower than its drawn shape where the grid is: on a grid of one
    row it is a run of patches. Of the last one only as many patches are taken as are missing, row by row or column by
    column from its first corner.

    Args:
        rows: rows of patches, at least 1.
        columns: columns of patches, at least 1.
        num_masked: how many patches are masked, from 0 to all of them.
        seed: the mask is a function of this and of the three numbers above: one or several whole numbers >= 0, such as
            (seed, source, row, epoch).

    Raises:
        ValueError: the grid is empty, it has fewer patches than `num_masked`, or a number is negative.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"a grid has at least one patch, got {rows} rows and {columns} columns")
    if not 0 <= num_masked <= rows * columns:
        raise ValueError(f"num_masked={num_masked} of {rows} x {columns} patches, allowed are 0 to {rows * columns}")
    random = np.random.default_rng(seed)
    mask = np.zeros((rows, columns), dtype=bool)
    while (num_missing := num_masked - int(mask.sum())) > 0:
        height, width = _draw_shape(random, rows, columns, num_missing)
        covered = random.choice(np.flatnonzero(~mask))
        top = _draw_start(random, int(covered) // columns, height, rows)
        left = _draw_start(random, int(covered) % columns, width, columns)
        block = mask[top : top + height, left : left + width]
        if block.size - int(block.sum()) <= num_missing:
            block[:] = True
        else:
            _mask_some(block if random.random() < 0.5 else block.T, num_missing)
    return torch.from_numpy(mask.reshape(-1))


def _draw_shape(random: np.random.Generator, rows: int, columns: int, num_missing: int) -> tuple[int, int]:
    """Height and width of the next rectangle: its area uniform up to what is missing, its aspect log-uniform."""
    least = min(MIN_BLOCK_PATCHES, max(1.0, MIN_BLOCK_SHARE * rows * columns))
    area = random.uniform(least, max(least, num_missing))
    aspect = math.exp(random.uniform(math.log(MIN_ASPECT), -math.log(MIN_ASPECT)))
    height, width = math.sqrt(area * aspect), math.sqrt(area / aspect)
    # one side gives way to the other where the grid is too narrow for the shape
    if height > rows:
        height, width = rows, area / rows
    elif width > columns:
        height, width = area / columns, columns
    return min(round(height), rows), min(round(width), columns)


def _draw_start(random: np.random.Generator, covered: int, length: int, side: int) -> int:
    """Where a run of `length` among `side` places begins that covers the place `covered`."""
    return int(random.integers(max(covered - length + 1, 0), min(covered, side - length) + 1))


def _mask_some(block: np.ndarray, count: int) -> None:
    """Masks the first `count` patches of a block that are not masked, in the order of its rows."""
    rows, columns = np.nonzero(~block)
    block[rows[:count], columns[:count]] = True
