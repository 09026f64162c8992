# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A TuringViT tower in the place of the vision encoder of an existing VLM.

Language model, embeddings and whatever else has no share in the change keep their weights bit for bit; the class of
the VLM stays what it was, so that what is saved loads with plain `from_pretrained` after `import turingvit_hf`.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from turingvit_hf.files.whole_folder import check_free, written_whole
from turingvit_hf.integrations.swap_checks import (
    changed_config,
    check_context,
    check_image_processor,
    check_is_tower,
    check_not_quantized,
    check_processor,
    check_round_trip,
    check_tower,
    check_vlm,
)
from turingvit_hf.integrations.vlm_families import llava, qwen, squares
from turingvit_hf.integrations.vlm_families.adapter import SwapRequest, TowerAdapter, bare_copy
from turingvit_hf.integrations.vlm_families.registry import adapter_for, known_families, register_adapter
from turingvit_hf.modeling.configuration_reduced import REDUCTIONS
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


logger = logging.get_logger(__name__)

# Beside a saved VLM: what its optimizer should know.
REPORT = "turingvit_swap.json"

for _adapter in (*llava.ADAPTERS, *qwen.ADAPTERS, *squares.ADAPTERS):
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
    if isinstance(tower, str | os.PathLike):
        tower, image_processor = load_tower(tower, image_processor)
    check_tower(tower)
    image_processor = image_processor or TuringViTImageProcessor(patch_size=tower.config.patch_size)
    check_image_processor(image_processor, tower.config)
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
    check_is_tower(path, AutoConfig.from_pretrained(path))
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


def swap_saved_vlm(
    vlm: str | os.PathLike,
    tower: str | os.PathLike,
    directory: str | os.PathLike,
    *,
    token_reduction: str | None = None,
    image_size: int | None = None,
    max_image_tokens: int | None = None,
) -> SwapResult:
    """`swap_vision_tower` from folders or hub ids to a folder, in the precision that the VLM was saved in.

    What the files alone can tell, such as a family without an adapter, a quantized VLM or a folder that is not free,
    is refused before any weight is read.

    Args:
        vlm: Folder or hub id of the VLM with its processor.
        tower: Folder or hub id of the tower.
        directory: The folder to make.
        token_reduction: See `swap_vision_tower`, as for the other options.
        image_size: See there.
        max_image_tokens: See there.

    Raises:
        ValueError: See `swap_vision_tower`; also where `directory` holds something.
        OSError: A folder or hub id has no model or no processor.
    """
    check_free(directory)
    config = AutoConfig.from_pretrained(vlm)
    adapter_for(config)
    check_not_quantized(config)
    check_is_tower(tower, AutoConfig.from_pretrained(tower))
    result = swap_vision_tower(
        AutoModelForImageTextToText.from_pretrained(vlm, dtype="auto"),
        tower,
        processor=AutoProcessor.from_pretrained(vlm),
        token_reduction=token_reduction,
        image_size=image_size,
        max_image_tokens=max_image_tokens,
    )
    result.save(directory)
    return result


__all__ = ["SwapResult", "TowerAdapter", "known_families", "register_adapter", "swap_saved_vlm", "swap_vision_tower"]
