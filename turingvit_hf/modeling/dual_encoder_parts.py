# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The parts of a dual encoder: its tower, and text encoders of transformers, how they are built, loaded and pooled."""

import copy
import inspect
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_MAPPING, Siglip2TextModel, SiglipTextModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto import AutoConfig

from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel


logger = logging.getLogger(__name__)

# AutoModel knows all text encoders but these
UNMAPPED = {"siglip_text_model": SiglipTextModel, "siglip2_text_model": Siglip2TextModel}


def load_tower(vision: str | Path | PreTrainedModel) -> TuringViTModel:
    """The tower of a checkpoint or of a model, with a pooling head, new where there was none.

    Args:
        vision: Hub id or folder of a `TuringViTModel` or of a model on top of one, or such a model itself.

    Raises:
        ValueError: It is none of those.
    """
    if not isinstance(vision, PreTrainedModel):
        config = AutoConfig.from_pretrained(vision)
        has_head = getattr(config, "vision_use_head", False)
        return TuringViTModel.from_pretrained(vision, config=_with_head(config, has_head=has_head, owner=str(vision)))
    tower: Any = vision.base_model
    if isinstance(tower, TuringViTModel) and tower.head is not None:
        return tower
    config = _with_head(tower.config, has_head=False, owner=f"this {type(vision).__name__}")
    with_head = TuringViTModel._from_config(config, dtype=tower.dtype)
    with_head.load_state_dict(tower.state_dict(), strict=False)
    return with_head.to(tower.device)


def _with_head(config: PreTrainedConfig, *, has_head: bool, owner: str) -> TuringViTConfig:
    """The configuration of the same tower with a pooling head."""
    if not isinstance(config, TuringViTConfig):
        raise ValueError(f"{owner} has a {type(config).__name__}, expected a tower or a model with a TuringViTConfig")
    if not has_head:
        logger.warning("%s has no pooling head: a new one with random weights is made", owner)
    config = copy.deepcopy(config)
    config.vision_use_head = True
    return config


def build_text_model(config: TuringViTDualEncoderConfig) -> PreTrainedModel:
    """The text encoder of a dual encoder, with random weights and without a pooler that nobody would read."""
    # the configuration has turned None and dictionaries into configurations
    text_config: PreTrainedConfig = config.text_config  # pyrefly: ignore[bad-assignment]
    model_class = _text_model_class(text_config)
    return model_class._from_config(text_config, **_pooler_arguments(model_class, config.text_pooling))


def load_text_model(text: str | Path | PreTrainedModel, pooling: str, dtype: torch.dtype) -> PreTrainedModel:
    """A text encoder with the weights of a checkpoint or of a model.

    Args:
        text: Hub id or folder of a text encoder, of a model with a head on one, such as a causal language model, or of
            an image-text model of transformers, such as CLIP, whose text encoder is taken; or such an encoder itself.
        pooling: As in `TuringViTDualEncoderConfig`; an encoder keeps a pooler of its own only for `"pooler"`.
        dtype: Of the weights of a checkpoint; a model keeps its own.

    Raises:
        ValueError: It is no text encoder that its own configuration could build again.
    """
    if isinstance(text, PreTrainedModel):
        model: Any = text.base_model
        model_class = _text_model_class(model.config)
        if type(model) is not model_class:
            raise ValueError(
                f"text encoder {type(model).__name__} cannot be kept: from its {type(model.config).__name__} a dual "
                f"encoder that is loaded again builds a {model_class.__name__}"
            )
        if _pooler_arguments(model_class, pooling):
            model.pooler = None  # pyrefly: ignore[bad-argument-type]
        return model
    config = AutoConfig.from_pretrained(text).get_text_config()
    model_class = _text_model_class(config)
    return model_class.from_pretrained(text, config=config, dtype=dtype, **_pooler_arguments(model_class, pooling))


def pool_text(tokens: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector for each text, (M, D), from its tokens (M, tokens, D) that are no padding, where `mask` is 1.

    Args:
        tokens: The encoder's last hidden state.
        mask: (M, tokens), padding on either side.
        pooling: `"mean"` or `"last_token"`.
    """
    if pooling == "mean":
        weights = mask[..., None].to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)
    places = torch.arange(tokens.shape[1], device=tokens.device)
    last_M = (mask.bool() * places).argmax(1)
    return tokens[torch.arange(tokens.shape[0], device=tokens.device), last_M]


def _text_model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    if config.model_type in UNMAPPED:
        return UNMAPPED[config.model_type]
    model_class: Any = MODEL_MAPPING.get(type(config), None)
    modalities = () if model_class is None else model_class.input_modalities
    # one modality is a text or a tuple
    if modalities not in ("text", ("text",), ["text"]) or config.is_encoder_decoder:
        raise ValueError(
            f"a dual encoder takes a text encoder that AutoModel can build from its configuration, and of a "
            f"{type(config).__name__} it builds {'none' if model_class is None else model_class.__name__}"
        )
    return model_class


def _pooler_arguments(model_class: type[PreTrainedModel], pooling: str) -> dict[str, Any]:
    """What leaves out a pooler that would get no gradient: DDP waits for those of all parameters."""
    has_choice = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if has_choice and pooling != "pooler" else {}
