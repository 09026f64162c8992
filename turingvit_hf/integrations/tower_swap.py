# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A TuringViT tower in the place of the vision encoder of an existing VLM.

Language model, embeddings and whatever else has no share in the change keep their weights bit for bit; the class of
the VLM stays what it was, so that what is saved loads with plain `from_pretrained` after `import turingvit_hf`.
"""

import copy
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from turingvit_hf.integrations.vlm_families import llava
from turingvit_hf.integrations.vlm_families.adapter import SwapRequest, TowerAdapter, bare_copy
from turingvit_hf.integrations.vlm_families.registry import adapter_for, known_families, register_adapter
from turingvit_hf.integrations.whole_folder import written_whole
from turingvit_hf.modeling.configuration_reduced import REDUCTIONS
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


logger = logging.get_logger(__name__)

# Beside a saved VLM: what its optimizer should know.
REPORT = "turingvit_swap.json"

for _adapter in (*llava.ADAPTERS,):
    register_adapter(_adapter)


@dataclass(frozen=True)
class SwapResult:
    """A VLM with its new tower.

    Attributes:
        model: The VLM, the same object that was given.
        processor: A processor for it.
        newly_initialized: Names of its parameters that hold no trained values, from the root of the VLM: what the
            first stage of training is for.
        image_tokens: Most tokens that one image takes in a text.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    newly_initialized: list[str] = field(default_factory=list)
    image_tokens: int = 0

    def save(self, directory: str | os.PathLike, *, max_shard_size: int | str = "50GB") -> Path:
        """The folder with model and processor, written whole or not at all.

        `turingvit_swap.json` beside them holds `newly_initialized` and `image_tokens`.

        Raises:
            ValueError: The folder holds something already.
        """
        directory = Path(directory)
        with written_whole(directory) as folder:
            self.model.save_pretrained(folder, max_shard_size=max_shard_size)
            self.processor.save_pretrained(folder)
            report = {"newly_initialized": self.newly_initialized, "image_tokens": self.image_tokens}
            (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return directory


def swap_vision_tower(
    vlm: PreTrainedModel,
    tower: TuringViTModel | str | os.PathLike,
    *,
    processor: ProcessorMixin,
    image_processor: TuringViTImageProcessor | None = None,
    token_reduction: str | None = None,
    image_size: int | None = None,
    max_image_tokens: int | None = None,
) -> SwapResult:
    """The VLM with `tower` in the place of its vision encoder, and a processor that fits.

    The VLM is changed in place, after everything has been checked; tower and processor are left as they are. Of the
    VLM's own weights only those change whose shape depends on the tower's width, such as the first matrix of the
    projector; their names are returned.

    Args:
        vlm: A VLM of a family in `known_families()`, in full precision.
        tower: A `TuringViTModel`, or its folder or hub id. Its pooling head is left behind.
        processor: The processor of the VLM.
        image_processor: That of the tower; by default the one in the tower's folder, or for a tower that is given as
            a model one with the default settings and its patch size.
        token_reduction: "mean_pool" or "pixel_unshuffle" makes one token of two by two before the projector sees
            them; None leaves all.
        image_size: Side in pixels of the squares of families that cut images into fixed ones; None keeps the VLM's
            own, or the next that whole patches fill.
        max_image_tokens: Most tokens of an image in families of native resolution; None keeps the limit of the image
            processor, or half of the language model's context if that is less.

    Returns:
        Model, processor and the names of the new parameters.

    Raises:
        ValueError: The family is not known or cannot be done right, or VLM, tower, processor and options do not fit
            together; the VLM is then as it was.
    """
    check_vlm(vlm)
    adapter = adapter_for(vlm.config)
    if token_reduction is not None and token_reduction not in REDUCTIONS:
        raise ValueError(f"{token_reduction=}, allowed are None and {REDUCTIONS}")
    check_processor(vlm.config, processor)
    if not isinstance(tower, TuringViTModel):
        tower, image_processor = load_tower(tower, image_processor)
    image_processor = image_processor or TuringViTImageProcessor(patch_size=tower.config.patch_size)
    check_tower(tower, image_processor)
    request = SwapRequest(
        vlm=vlm,
        processor=processor,
        tower=bare_copy(tower, like=vlm.get_submodule(adapter.tower_name)),
        image_processor=image_processor,
        token_reduction=token_reduction,
        image_size=image_size,
        max_image_tokens=max_image_tokens,
    )
    adapter.check(request)
    new_tower = adapter.make_tower(request)
    changes = adapter.config_changes(request, new_tower.config)
    config = changed_config(vlm.config, changes)
    check_round_trip(config, new_tower)
    new_processor = adapter.make_processor(request, config)
    image_tokens = adapter.image_tokens(new_processor, config)
    check_context(image_tokens, request.context_length)
    newly_initialized = adapter.put_in(request, new_tower, changes)
    return SwapResult(vlm, new_processor, newly_initialized, image_tokens)


def load_tower(
    path: str | os.PathLike, image_processor: TuringViTImageProcessor | None
) -> tuple[TuringViTModel, TuringViTImageProcessor | None]:
    """The tower in a folder or under a hub id, and the image processor beside it where none is given."""
    config = AutoConfig.from_pretrained(path)
    if config.model_type != "turingvit":
        raise ValueError(f"{path} holds a {config.model_type!r}, a tower is a 'turingvit'{_tower_hint(config)}")
    tower = TuringViTModel.from_pretrained(path, vision_use_head=False)
    if image_processor is None:
        try:
            image_processor = TuringViTImageProcessor.from_pretrained(path)
        except OSError:
            logger.warning(
                f"{path} has no image processor: pixels are prepared with the default mean and standard deviation. "
                "Give the tower's own as image_processor if it has others."
            )
    return tower, image_processor


def check_vlm(vlm: PreTrainedModel) -> None:
    """Raises ValueError for a model whose weights cannot be replaced as they are."""
    name = type(vlm).__name__
    if not isinstance(vlm, PreTrainedModel):
        raise ValueError(f"the VLM must be a PreTrainedModel of transformers, got a {name}")
    if getattr(vlm, "_hf_peft_config_loaded", False):
        raise ValueError(f"this {name} has adapters in it: merge or unload them first")
    if getattr(vlm, "hf_quantizer", None) is not None or getattr(vlm.config, "quantization_config", None) is not None:
        raise ValueError(
            f"this {name} is quantized: load it in bfloat16 or float32, swap, save, and quantize what was saved"
        )
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


def check_tower(tower: TuringViTModel, image_processor: TuringViTImageProcessor) -> None:
    """Raises ValueError unless this is a tower with values, and an image processor that cuts its patches."""
    if type(tower) is not TuringViTModel:
        raise ValueError(
            f"the tower must be a TuringViTModel itself or a path, got a {type(tower).__name__}; of a model that "
            "wraps one, give its `turingvit`"
        )
    if any(parameter.is_meta for parameter in tower.parameters()):
        raise ValueError("the tower is on the meta device and has no values: load it with from_pretrained")
    if not isinstance(image_processor, TuringViTImageProcessor):
        raise ValueError(f"image_processor must be a TuringViTImageProcessor, got a {type(image_processor).__name__}")
    if image_processor.patch_size != tower.config.patch_size:
        raise ValueError(
            f"the image processor cuts patches of {image_processor.patch_size} pixels, the tower takes "
            f"{tower.config.patch_size}: images would have more or fewer tokens than features"
        )


def check_processor(config: PreTrainedConfig, processor: ProcessorMixin) -> None:
    """Raises ValueError unless the processor has a tokenizer whose image token is the VLM's."""
    if not isinstance(processor, ProcessorMixin) or getattr(processor, "tokenizer", None) is None:
        raise ValueError(f"processor must be the VLM's own, with its tokenizer, got a {type(processor).__name__}")
    ours, theirs = getattr(config, "image_token_id", None), getattr(processor, "image_token_id", None)
    if ours is not None and theirs is not None and ours != theirs:
        raise ValueError(
            f"the processor's image token has the id {theirs}, the VLM's is {ours}: its features would find no place. "
            "Is this the processor of another VLM?"
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


def _tower_hint(config: PreTrainedConfig) -> str:
    if config.model_type == "turingvit_dual_encoder":
        return ": a training stage has it in its folder vision_tower"
    return ""


__all__ = ["SwapResult", "TowerAdapter", "known_families", "register_adapter", "swap_vision_tower"]
