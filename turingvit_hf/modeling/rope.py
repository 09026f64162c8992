# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Two-dimensional rotary position embedding on normalized patch coordinates, as DINOv3 describes it.

A head of size K has K/4 periods base^(2j / (K/2)). A patch center (y, x), on each axis from -1 to 1, turns pair j by
2π·y/period[j] for j < K/4 and by 2π·x/period[j - K/4] after that; pair j is the entries j and j + K/2.
"""

import math
from functools import lru_cache

import torch
from torch import nn

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.packing import image_index_from_grid, patch_centers, positions_from_grid


def rope_table(positions: torch.Tensor, head_dim: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of each pair at each position, y before x: (..., 2) -> two of (..., K/2) float32."""
    exponents = torch.arange(head_dim // 4, dtype=torch.float32, device=positions.device) * (4 / head_dim)
    angles = (2 * math.pi * positions[..., None] / base**exponents).flatten(-2)
    return angles.cos(), angles.sin()


@lru_cache(maxsize=32)
def _cached_table(height: int, width: int, head_dim: int, base: float, device: torch.device):
    """The table of one image (height·width, K/2); normal tensors even if inference mode asked first."""
    with torch.inference_mode(False), torch.no_grad():
        return rope_table(patch_centers(height, width, device), head_dim, base)


def _may_cache(tensor: torch.Tensor) -> bool:
    """Whether tensors made now are real ones that outlive this forward."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    # A fake tensor mode turns what is made inside it into fakes, even where the inputs are real.
    return type(tensor) is type(torch.empty(0)) is torch.Tensor


class TuringViTRotaryEmbedding(nn.Module):
    """Cosines and sines for the tower, in float32 whatever the dtype of the model; it has no parameter or buffer.

    In training each image's coordinates are rescaled by one factor, drawn log-uniformly once a forward; all frames of
    a clip share it. In evaluation the tables of recently seen image sizes are kept.
    """

    def __init__(self, config: TuringViTConfig):
        super().__init__()
        self.head_dim = config.head_dim
        self.base = config.rope_theta
        self.rescale = config.pos_embed_rescale or 1.0

    def forward(self, image_grid_thw: torch.Tensor, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines (T, K/2) of packed tokens, given the grid (N, 3)."""
        if self._augments():
            factor = self._draw_factors(image_grid_thw.shape[0], image_grid_thw.device)
            factor = factor[image_index_from_grid(image_grid_thw, num_tokens)]
            return self._table(positions_from_grid(image_grid_thw, num_tokens) * factor[:, None])
        if not _may_cache(image_grid_thw):
            return self._table(positions_from_grid(image_grid_thw, num_tokens))
        tables = []
        for frames, height, width in image_grid_thw.tolist():
            tables += [_cached_table(height, width, self.head_dim, self.base, image_grid_thw.device)] * frames
        if len(tables) == 1:
            return tables[0]
        cos, sin = zip(*tables, strict=True)
        return torch.cat(cos), torch.cat(sin)

    def dense(self, pixel_values: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines (B, height·width, K/2) of a batch (B, C, H, W) of height·width patches an image."""
        batch, device = pixel_values.shape[0], pixel_values.device
        if self._augments():
            positions = patch_centers(height, width, device) * self._draw_factors(batch, device)[:, None, None]
            return self._table(positions)
        if _may_cache(pixel_values):
            table = _cached_table(height, width, self.head_dim, self.base, device)
        else:
            table = self._table(patch_centers(height, width, device))
        cos, sin = table
        return cos.expand(batch, -1, -1), sin.expand(batch, -1, -1)

    def _augments(self) -> bool:
        return self.training and self.rescale != 1

    def _draw_factors(self, num_images: int, device: torch.device) -> torch.Tensor:
        return self.rescale ** (torch.rand(num_images, device=device) * 2 - 1)

    def _table(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rope_table(positions, self.head_dim, self.base)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries or keys (..., H, K) with their pairs (i, i + K/2) turned by cos, sin (..., K/2), in float32 and back."""
    left, right = x.to(torch.promote_types(x.dtype, cos.dtype)).chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)
