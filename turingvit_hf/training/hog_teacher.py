# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A teacher without weights: histograms of oriented gradients and mean colors, for masked distillation without
downloads.

The histograms are the target of MaskFeat (Wei et al. 2022, arXiv 2112.09133), as defined by Dalal and Triggs (2005).
They say where edges run and nothing about what is in the picture. A stage that is meant to give a good tower names a
network.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from turingvit_hf.errors import InputError
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


NUM_ORIENTATIONS = 9
CELLS_A_SIDE = 2  # of a patch: cells of 8 x 8 pixels where a patch has 16 x 16, as in MaskFeat
# mean gradient, of pixels in 0...1, at which a cell counts half as flat
FLATNESS = 0.005
NUM_VALUES = NUM_ORIENTATIONS + 2  # of a cell and channel: the orientations, flatness, brightness


class HogTeacher:
    """Histograms and mean colors of the student's own pixels, 2 x 2 cells a patch, for each channel.

    A histogram has 9 orientations of edges, unsigned, and one more entry for flatness: (h, e) / sqrt(|h|² + e²), less
    the mean of these ten. Entry and mean are ours, for the cosine: without the entry a flat patch has no direction,
    and with the mean any two histograms have much the same. Ours is also what follows each histogram, the mean of the
    cell's pixels between -1 and 1. Colors go on from patch to patch where edges do not, so a student soon learns to
    look around; from histograms alone a small one learns nothing but their mean for hundreds of steps.

    Args:
        image_processor: says how the student's pixels are normalized, and the patch size.

    Raises:
        InputError: the patch size is odd.
    """

    preprocess = None

    def __init__(self, image_processor: TuringViTImageProcessor):
        self.patch_size = image_processor.patch_size
        if self.patch_size % CELLS_A_SIDE:
            raise InputError(f"teacher 'hog' cuts patches into 2 x 2 cells: patch_size={self.patch_size} must be even")
        self.mean = torch.tensor(image_processor.image_mean)[:, None, None]
        self.std = torch.tensor(image_processor.image_std)[:, None, None]
        self.hidden_size = CELLS_A_SIDE**2 * len(self.mean) * NUM_VALUES
        self.counts: dict[str, int] = {}

    @torch.no_grad()
    def features(self, pack: Mapping[str, Any], device: torch.device | str) -> Tensor:
        """Histograms and colors (T, Dt) float32 on `device` of `pixel_values` (T, C·p·p) on the grid `image_grid_thw`.

        Raises:
            ValueError: the pack holds a clip.
        """
        grid = pack["image_grid_thw"].tolist()
        if any(frames != 1 for frames, _, _ in grid):
            raise ValueError(f"a teacher sees still images, image_grid_thw has clips: {grid}")
        patches = pack["pixel_values"].to(device).float().split([rows * columns for _, rows, columns in grid])
        same_size = defaultdict(list)
        for number, (_, rows, columns) in enumerate(grid):
            same_size[rows, columns].append(number)
        found: dict[int, Tensor] = {}
        for (rows, columns), numbers in same_size.items():
            images = self._images(torch.stack([patches[number] for number in numbers]), rows, columns)
            found |= zip(numbers, self._describe(images), strict=True)
        return torch.cat([found[number] for number in range(len(grid))])

    def _images(self, patches: Tensor, rows: int, columns: int) -> Tensor:
        """Pixels (N, C, H, W) in 0...1 of normalized patches (N, rows · columns, C·p·p)."""
        side = self.patch_size
        tiles = patches.unflatten(2, (-1, side, side)).unflatten(1, (rows, columns))
        images = tiles.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), -1, rows * side, columns * side)
        return images * self.std.to(images.device) + self.mean.to(images.device)

    def _describe(self, images: Tensor) -> Tensor:
        """Histograms and colors (N, rows · columns, Dt) of pixels (N, C, H, W)."""
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
        down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
        strength = torch.hypot(across, down)
        place = torch.atan2(down, across).remainder(math.pi) * (NUM_ORIENTATIONS / math.pi)
        cell = self.patch_size // CELLS_A_SIDE
        # a gradient between two orientations votes for both, the nearer one more
        votes = [
            F.avg_pool2d(strength * (1 - self._distance(place, orientation)).clamp(min=0), cell)
            for orientation in range(NUM_ORIENTATIONS)
        ]
        flat = torch.full_like(votes[0], FLATNESS)
        histograms = F.normalize(torch.stack([*votes, flat], dim=2), dim=2)  # (N, C, 10, cells down, cells across)
        histograms = histograms - histograms.mean(2, keepdim=True)
        brightness = 2 * F.avg_pool2d(images, cell)[:, :, None] - 1
        values = torch.cat([histograms, brightness], dim=2)
        tiles = values.unflatten(4, (-1, CELLS_A_SIDE)).unflatten(3, (-1, CELLS_A_SIDE))
        # (N, rows, columns, cells down, cells across, C, 11)
        return tiles.permute(0, 3, 5, 4, 6, 1, 2).flatten(3).flatten(1, 2)

    @staticmethod
    def _distance(place: Tensor, orientation: int) -> Tensor:
        """How far places in [0, 9) are from an orientation, around the circle."""
        straight = (place - orientation).abs()
        return torch.minimum(straight, NUM_ORIENTATIONS - straight)
