# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the configurations of models around a tower share: the tower's own, and what a VLM reads of it through them."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig


@strict
class TuringViTWrappedConfig(PreTrainedConfig):
    """Configuration of a model around a tower, in the place of a VLM's `vision_config`.

    Args:
        tower_config: Configuration of the tower, a `TuringViTConfig` or its values.
    """

    base_config_key = "vision_config"
    sub_configs_defaults: ClassVar[dict] = {"tower_config": TuringViTConfig}

    tower_config: Any = None  # a TuringViTConfig once this is built

    @property
    def num_hidden_layers(self) -> int:
        """The tower's number of layers."""
        return self.tower_config.num_hidden_layers

    @property
    def num_attention_heads(self) -> int:
        """The tower's heads."""
        return self.tower_config.num_attention_heads

    @property
    def initializer_range(self) -> float:
        """Standard deviation of the tower's new weights."""
        return self.tower_config.initializer_range


__all__ = ["TuringViTWrappedConfig"]
