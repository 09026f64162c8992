# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The architecture of a dual encoder: a tower and a text encoder that share an embedding space."""

import math
from typing import ClassVar

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto import AutoConfig

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig


TEXT_POOLINGS = ("pooler", "mean", "last_token")


@strict
class TuringViTDualEncoderConfig(PreTrainedConfig):
    """Configuration of a tower and a text encoder that share an embedding space.

    Args:
        vision_config: Configuration of the tower, a `TuringViTConfig` or its values.
        text_config: Configuration of any transformers text encoder, or its values with their `model_type`.
        projection_dim: Width of the shared space.
        text_pooling: How the text encoder's tokens become one vector: `"pooler"` takes its own `pooler_output`,
            `"mean"` the mean over the tokens that are not padding, `"last_token"` the last such token (decoder-like
            encoders). For the latter two an encoder that can do without its pooler has none.
        num_superclasses: Number of subwords that the SuperClass head tells apart, the size of its vocabulary; 0
            builds no such head.
        logit_scale_init_value: t', the logarithm of the factor on the similarities; ln 10 as in SigLIP.
        logit_bias_init_value: What is added to the similarities; -10 suits batches of about 20,000, for smaller ones
            take `initial_logit_bias(batch_size)`.

    Raises:
        StrictDataclassError: A value has a wrong type or is not allowed; the text says which and why.
    """

    model_type = "turingvit_dual_encoder"
    sub_configs_defaults: ClassVar[dict] = {
        "vision_config": TuringViTConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
    }

    vision_config: PreTrainedConfig | dict | None = None
    text_config: PreTrainedConfig | dict | None = None
    projection_dim: int = 512
    text_pooling: str = "pooler"
    num_superclasses: int = 0
    logit_scale_init_value: float | int = math.log(10)
    logit_bias_init_value: float | int = -10.0
    initializer_range: float = 0.02

    def validate_text_pooling(self):
        """The pooling is one of those this model has."""
        if self.text_pooling not in TEXT_POOLINGS:
            raise ValueError(f"text_pooling={self.text_pooling!r}, allowed are {TEXT_POOLINGS}")

    def validate_heads(self):
        """The shared space has at least one dimension, and the SuperClass head as many classes as there are."""
        if self.projection_dim < 1:
            raise ValueError(f"projection_dim={self.projection_dim} must be at least 1")
        if self.num_superclasses < 0:
            raise ValueError(f"num_superclasses={self.num_superclasses} must be 0 (no head) or more")

    def validate_vision_head(self):
        """The tower has its pooling head, since the shared space is fed by it."""
        if isinstance(self.vision_config, PreTrainedConfig) and not self.vision_config.vision_use_head:
            raise ValueError("vision_config.vision_use_head=False: a dual encoder needs the tower's pooling head")


def initial_logit_bias(batch_size: int) -> float:
    """The bias at which a random model already has the right share of pairs: ln(p / (1 - p)) with p = 1 / batch_size.

    Raises:
        ValueError: `batch_size` is below 2, where no pair is wrong.
    """
    if batch_size < 2:
        raise ValueError(f"a contrastive batch has at least 2 pairs, not {batch_size}")
    return -math.log(batch_size - 1)


__all__ = ["TuringViTDualEncoderConfig"]
