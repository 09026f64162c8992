# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tower that gives fewer tokens to a VLM: two by two become one, by mean or side by side, without a parameter."""

import torch
import torch.nn.functional as F
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from turingvit_hf.modeling.configuration_reduced import TuringViTReducedConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel, TuringViTPreTrainedModel
from turingvit_hf.modeling.packing import split_by_image


class TuringViTReducedModel(TuringViTPreTrainedModel):
    """A tower without its pooling head, and after it the merging of `merge_size` by `merge_size` tokens.

    A grid whose sides are no multiples of `merge_size` is merged with what there is at its right and lower edge: the
    mean is over the tokens that exist, and side by side the last row or column stands in for the missing one.
    """

    config: TuringViTReducedConfig

    def __init__(self, config: TuringViTReducedConfig):
        super().__init__(config)
        self.patch_size = config.patch_size
        self.turingvit = TuringViTModel(config.tower_config, add_pooling_head=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        image_sizes: torch.Tensor | list | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """The tower's outputs with every hidden state merged; in the forms of `TuringViTModel.forward`.

        Raises:
            ValueError: `image_sizes` holds a side that is no multiple of `patch_size`, this model's and not the
                tower's: its callers count tokens by it.
        """
        outputs = self.turingvit(pixel_values, image_grid_thw=image_grid_thw, image_sizes=image_sizes, **kwargs)
        grid = self._grid(pixel_values, image_grid_thw, image_sizes)
        outputs.last_hidden_state = self._merge(outputs.last_hidden_state, grid)
        if outputs.hidden_states is not None:
            *others, _ = outputs.hidden_states
            merged = [None if states is None else self._merge(states, grid) for states in others]
            outputs.hidden_states = (*merged, outputs.last_hidden_state)
        return outputs

    def _grid(self, pixel_values, image_grid_thw, image_sizes) -> torch.Tensor:
        """Frames, rows and columns of each image, on the CPU."""
        if image_grid_thw is not None:
            return image_grid_thw.cpu()
        if image_sizes is None:
            image_sizes = [pixel_values.shape[-2:]] * len(pixel_values)
        else:
            sides = torch.stack([torch.as_tensor(size) for size in image_sizes])
            if (sides % self.patch_size).any():
                raise ValueError(
                    f"image_sizes must be multiples of {self.patch_size} pixels, {self.config.merge_size} patches of "
                    f"{self.config.tower_config.patch_size}, got {sides.tolist()}: "
                    f"TuringViTImageProcessor(merge_size={self.config.merge_size}) makes such images"
                )
        sizes = torch.stack([torch.as_tensor(tuple(size)) for size in image_sizes]).cpu()
        return F.pad(sizes // self.config.tower_config.patch_size, (1, 0), value=1)

    def _merge(self, hidden_states: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Tokens (T, D), (1, T, D) or (B, N, D) merged, image after image and row after row, in the same layout."""
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        merged = [
            merge_tokens(image.unflatten(0, size), self.config.merge_size, self.config.token_reduction).flatten(0, 2)
            for image, size in zip(split_by_image(tokens, grid), map(tuple, grid.tolist()), strict=True)
        ]
        packed = torch.cat(merged)
        return packed.reshape(*hidden_states.shape[:-2], -1, packed.shape[-1])


def merge_tokens(tokens: torch.Tensor, merge_size: int, token_reduction: str) -> torch.Tensor:
    """A grid of tokens (F, rows, columns, D) with `merge_size` by `merge_size` of them in one.

    Returns:
        (F, ceil(rows / m), ceil(columns / m), D) for "mean_pool", D·m² for "pixel_unshuffle", where the m² tokens
        stand side by side, row by row.
    """
    rows, columns = tokens.shape[1:3]
    grid = tokens.movedim(-1, 1)
    if token_reduction == "mean_pool":
        # ceil_mode divides by the tokens that are there, not by m²
        return F.avg_pool2d(grid, merge_size, ceil_mode=True).movedim(1, -1)
    padding = (0, -columns % merge_size, 0, -rows % merge_size)
    grid = F.pad(grid, padding, mode="replicate") if any(padding) else grid
    # (F, D, r·m, c·m) -> (F, D, r, m, c, m) -> (F, r, c, m, m, D)
    blocks = grid.unflatten(3, (-1, merge_size)).unflatten(2, (-1, merge_size))
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3)


__all__ = ["TuringViTReducedModel"]
