# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What is refused before a VLM is touched, each with its reason."""

import copy
import os

from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


def check_vlm(vlm: PreTrainedModel) -> None:
    """Raises ValueError for a model whose weights cannot be replaced as they are."""
    name = type(vlm).__name__
    if not isinstance(vlm, PreTrainedModel):
        raise ValueError(f"the VLM must be a PreTrainedModel of transformers, got a {name}")
    if getattr(vlm, "_hf_peft_config_loaded", False):
        raise ValueError(f"this {name} has adapters in it: merge or unload them first")
    check_not_quantized(vlm.config)
    if meta := [key for key, parameter in vlm.named_parameters() if parameter.is_meta]:
        raise ValueError(
            f"{len(meta)} parameters of this {name} are on the meta device, {meta[0]} for one, and have no values: "
            "load it with from_pretrained, without offloading"
        )
    devices = {str(device) for device in (getattr(vlm, "hf_device_map", None) or {}).values()}
    if len(devices) > 1:
        raise ValueError(
            f"this {name} is spread over {sorted(devices)}: load it on one device, swap, and spread later"
        )


def check_not_quantized(config: PreTrainedConfig) -> None:
    """Raises ValueError for a VLM with quantized weights."""
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(
            f"this VLM ({type(config).__name__}) is quantized: take one in bfloat16 or float32, swap, save, and "
            "quantize what was saved"
        )


def check_is_tower(path: str | os.PathLike, config: PreTrainedConfig) -> None:
    """Raises ValueError unless this is the configuration of a tower; `path` is where it was found."""
    if config.model_type == "turingvit":
        return
    is_stage = config.model_type == "turingvit_dual_encoder"
    hint = ": a training stage has it in its folder vision_tower" if is_stage else ""
    raise ValueError(f"{path} holds a {config.model_type!r}, a tower is a 'turingvit'{hint}")


def check_tower(tower: TuringViTModel) -> None:
    """Raises ValueError unless this is a tower with values."""
    if type(tower) is not TuringViTModel:
        raise ValueError(
            f"the tower must be a TuringViTModel itself or a path, got a {type(tower).__name__}; of a model that "
            "wraps one, give its `turingvit`"
        )
    if any(parameter.is_meta for parameter in tower.parameters()):
        raise ValueError("the tower is on the meta device and has no values: load it with from_pretrained")


def check_image_processor(image_processor: TuringViTImageProcessor, config: TuringViTConfig) -> None:
    """Raises ValueError unless this is an image processor that cuts the tower's patches."""
    if not isinstance(image_processor, TuringViTImageProcessor):
        raise ValueError(f"image_processor must be a TuringViTImageProcessor, got a {type(image_processor).__name__}")
    if image_processor.patch_size != config.patch_size:
        raise ValueError(
            f"the image processor cuts patches of {image_processor.patch_size} pixels, the tower takes "
            f"{config.patch_size}: images would have more or fewer tokens than features"
        )


def check_processor(config: PreTrainedConfig, processor: ProcessorMixin) -> None:
    """Raises ValueError unless the processor has a tokenizer whose image token is the VLM's."""
    if not isinstance(processor, ProcessorMixin) or getattr(processor, "tokenizer", None) is None:
        raise ValueError(f"processor must be the VLM's own, with its tokenizer, got a {type(processor).__name__}")
    ours = getattr(config, "image_token_id", None)
    # Gemma's image_token_id is that of its start token, image_token_ids is right in every family
    theirs = [token for token in getattr(processor, "image_token_ids", ()) if token is not None]
    if ours is not None and theirs and ours not in theirs:
        raise ValueError(
            f"the processor's image token has the id {theirs[0]}, the VLM's is {ours}: its features would find no "
            "place. Is this the processor of another VLM?"
        )


def check_context(image_tokens: int, context_length: int | None) -> None:
    """Raises ValueError where the largest image alone leaves no room for a text."""
    if context_length is not None and image_tokens >= context_length:
        raise ValueError(
            f"one image takes up to {image_tokens} tokens, the language model has {context_length} positions: choose "
            "a smaller max_image_tokens (native resolution) or image_size (fixed squares), or a token_reduction"
        )


def changed_config(config: PreTrainedConfig, changes: dict) -> PreTrainedConfig:
    """A copy of a configuration with these fields replaced."""
    changed = copy.deepcopy(config)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def check_round_trip(config: PreTrainedConfig, tower: PreTrainedModel) -> None:
    """Raises ValueError if a saved configuration would come back with another tower's."""
    reloaded = type(config).from_dict(config.to_dict())
    if type(reloaded.vision_config) is not type(tower.config):
        raise ValueError(
            f"a saved {type(config).__name__} comes back with {type(reloaded.vision_config).__name__} in place of "
            f"{type(tower.config).__name__}: this family cannot keep a TuringViT"
        )
