# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The configuration of a tower in the place of the vision model of Qwen2.5-VL or Qwen3-VL."""

from huggingface_hub.dataclasses import strict

from turingvit_hf.modeling.configuration_wrapped import TuringViTWrappedConfig


MERGERS = ("qwen2_5_vl", "qwen3_vl")


@strict
class TuringViTQwenVisionConfig(TuringViTWrappedConfig):
    """Configuration of a tower with the patch merger of a Qwen, which is that VLM's projector.

    Args:
        tower_config: Configuration of the tower, a `TuringViTConfig` or its values.
        merger: Whose merger follows the tower, "qwen2_5_vl" or "qwen3_vl".
        out_hidden_size: Width of the language model, which the merger gives.
        spatial_merge_size: How many patches to a side become one token.
        tokens_per_second: What a second of a video is worth in temporal positions, for Qwen2.5-VL.
        deepstack_visual_indexes: After which of the tower's layers, counted from 0, a merger of its own gives what
            Qwen3-VL adds to the hidden states of its first layers.

    Raises:
        StrictDataclassError: A value has a wrong type or is not allowed; the text says which and why.
    """

    model_type = "turingvit_qwen_vision"

    merger: str = "qwen2_5_vl"
    out_hidden_size: int = 3584
    spatial_merge_size: int = 2
    tokens_per_second: int | float = 4
    deepstack_visual_indexes: list[int] | tuple[int, ...] = ()

    @property
    def hidden_size(self) -> int:
        """Width of the tower."""
        return self.tower_config.hidden_size

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.tower_config.patch_size

    @property
    def temporal_patch_size(self) -> int:
        """Frames in a patch: each frame of a video is a step of the grid."""
        return 1

    @property
    def in_channels(self) -> int:
        """Channels of the pixels."""
        return self.tower_config.num_channels

    def validate_merger(self):
        """The merger is one that there is, and Qwen3-VL's layers are the tower's, ascending."""
        if self.merger not in MERGERS:
            raise ValueError(f"merger={self.merger!r}, allowed are {MERGERS}")
        if self.spatial_merge_size < 1:
            raise ValueError(f"spatial_merge_size={self.spatial_merge_size} must be at least 1")
        indexes = list(self.deepstack_visual_indexes)
        if indexes != sorted(set(indexes)) or not all(0 <= index < self.num_hidden_layers for index in indexes):
            raise ValueError(
                f"deepstack_visual_indexes={indexes} must ascend within the {self.num_hidden_layers} layers of the "
                "tower"
            )
        if indexes and self.merger != "qwen3_vl":
            raise ValueError(f"deepstack_visual_indexes={indexes} are Qwen3-VL's, merger={self.merger!r}")


__all__ = ["TuringViTQwenVisionConfig"]
