# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The configuration of a tower that gives fewer tokens: several by several patches become one, without a parameter."""

from huggingface_hub.dataclasses import strict

from turingvit_hf.modeling.configuration_wrapped import TuringViTWrappedConfig


REDUCTIONS = ("mean_pool", "pixel_unshuffle")


@strict
class TuringViTReducedConfig(TuringViTWrappedConfig):
    """Configuration of a tower whose tokens are merged; to a VLM it is a tower with larger patches.

    `hidden_size` and `patch_size` are those of what comes out, which is what a VLM builds its projector and counts its
    tokens from.

    Args:
        tower_config: Configuration of the tower, a `TuringViTConfig` or its values.
        token_reduction: `"mean_pool"` averages the tokens, `"pixel_unshuffle"` puts them side by side.
        merge_size: How many patches to a side become one token.

    Raises:
        StrictDataclassError: A value has a wrong type or is not allowed; the text says which and why.
    """

    model_type = "turingvit_reduced"

    token_reduction: str = "mean_pool"
    merge_size: int = 2

    @property
    def hidden_size(self) -> int:
        """Width of a token that comes out."""
        factor = self.merge_size**2 if self.token_reduction == "pixel_unshuffle" else 1
        return self.tower_config.hidden_size * factor

    @property
    def patch_size(self) -> int:
        """Side in pixels of what one token that comes out stands for."""
        return self.tower_config.patch_size * self.merge_size

    @property
    def image_size(self) -> int:
        """The tower's nominal side in pixels."""
        return self.tower_config.image_size

    @property
    def num_channels(self) -> int:
        """Channels of the pixels."""
        return self.tower_config.num_channels

    @property
    def layer_norm_eps(self) -> float:
        """What the tower's norms add to the mean square."""
        return self.tower_config.rms_norm_eps

    def validate_reduction(self):
        """The reduction is one that there is, of at least two patches."""
        if self.token_reduction not in REDUCTIONS:
            raise ValueError(f"token_reduction={self.token_reduction!r}, allowed are {REDUCTIONS}")
        if self.merge_size < 2:
            raise ValueError(f"merge_size={self.merge_size} must be at least 2")


__all__ = ["TuringViTReducedConfig"]
