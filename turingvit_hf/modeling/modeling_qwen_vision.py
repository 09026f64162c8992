# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tower in the place of the vision model of Qwen2.5-VL or Qwen3-VL, spoken to as these VLMs speak to their own.

They hand over packed patches in blocks of `spatial_merge_size` by `spatial_merge_size`, which their processors made,
and expect what their merger makes of each block. The merger is theirs; nothing with a parameter stands before it.
"""

from typing import Any

import torch
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLPatchMerger
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    BaseModelOutputWithDeepstackFeatures,
    Qwen3VLVisionPatchMerger,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from turingvit_hf.modeling.configuration_qwen_vision import TuringViTQwenVisionConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel, TuringViTPreTrainedModel


class TuringViTQwenVisionModel(TuringViTPreTrainedModel):
    """A tower without its pooling head, and the patch merger of a Qwen.

    A video's frames are encoded one by one, as many steps of the grid as there are frames. The processor of the VLM
    has `temporal_patch_size` 1 for that.
    """

    config: TuringViTQwenVisionConfig
    input_modalities = ["image", "video"]

    def __init__(self, config: TuringViTQwenVisionConfig):
        super().__init__(config)
        self.patch_size = config.patch_size
        self.spatial_merge_size = config.spatial_merge_size
        self.turingvit = TuringViTModel(config.tower_config, add_pooling_head=False)
        self.merger = build_merger(config)
        if config.merger == "qwen3_vl":
            self.deepstack_merger_list = build_deepstack_mergers(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self, hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithDeepstackFeatures:
        """Features of images or videos for the language model, a block of patches each.

        Args:
            hidden_states: (T, C·p·p) pixels of patches, block after block, row by row within a block.
            grid_thw: (N, 3) frames, rows of patches, columns of patches; both sides multiples of
                `spatial_merge_size`.
            **kwargs: `output_hidden_states`; what else a Qwen computes for its own vision model is not needed here.

        Returns:
            `pooler_output` (T / merge², out_hidden_size), for Qwen3-VL `deepstack_features`, one such tensor for each
            of `deepstack_visual_indexes`, and `last_hidden_state` (T, D), patches in the order in which they came.

        Raises:
            ValueError: A side of the grid is no multiple of `spatial_merge_size`, or pixels and grid do not fit
                together.
        """
        order = block_order(grid_thw, self.spatial_merge_size)
        pixel_values = torch.empty_like(hidden_states)
        pixel_values[order] = hidden_states
        deepstack = self.config.deepstack_visual_indexes
        # a hidden state before the first layer has the index 0, that after layer i the index i + 1
        wanted = True if kwargs.get("output_hidden_states") else [index + 1 for index in deepstack]
        outputs = self.turingvit(pixel_values, image_grid_thw=grid_thw, output_hidden_states=wanted or False)
        tokens = outputs.last_hidden_state[order]
        states = outputs.hidden_states
        result = BaseModelOutputWithDeepstackFeatures(last_hidden_state=tokens, pooler_output=self.merger(tokens))
        if self.config.merger == "qwen3_vl":
            result.deepstack_features = [
                merger(states[index + 1][order])
                for index, merger in zip(deepstack, self.deepstack_merger_list, strict=True)
            ]
        if wanted is True:
            result.hidden_states = tuple(state[order] for state in states)
        return result


def block_order(grid_thw: torch.Tensor, merge_size: int) -> torch.Tensor:
    """Where in row-major order the patches are that Qwen's processors give, (T,) int64 on the grid's device.

    Raises:
        ValueError: A side of the grid is no multiple of `merge_size`.
    """
    orders, start = [], 0
    for frames, rows, columns in grid_thw.tolist():
        if rows % merge_size or columns % merge_size:
            raise ValueError(f"a grid of {rows} x {columns} patches is no whole number of blocks of {merge_size}")
        end = start + frames * rows * columns
        places = torch.arange(start, end, device=grid_thw.device)
        places = places.view(frames, rows // merge_size, merge_size, columns // merge_size, merge_size)
        orders.append(places.transpose(2, 3).flatten())
        start = end
    return torch.cat(orders)


def build_merger(config: Any) -> nn.Module:
    """The merger of the VLM for tokens as wide as the tower's, given a `TuringViTQwenVisionConfig`."""
    if config.merger == "qwen3_vl":
        return Qwen3VLVisionPatchMerger(config, use_postshuffle_norm=False)
    return Qwen2_5_VLPatchMerger(config.out_hidden_size, config.hidden_size, config.spatial_merge_size)


def build_deepstack_mergers(config: Any) -> nn.ModuleList:
    """A merger of Qwen3-VL for each layer in the `deepstack_visual_indexes` of a `TuringViTQwenVisionConfig`."""
    return nn.ModuleList(
        Qwen3VLVisionPatchMerger(config, use_postshuffle_norm=True) for _ in config.deepstack_visual_indexes
    )


__all__ = ["TuringViTQwenVisionModel"]
