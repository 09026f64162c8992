# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints that carry their own code, for people who load them with `trust_remote_code=True` and have no package.

This is an explicit step and no side effect of saving: an ordinary checkpoint holds no code and no `auto_map`, and
`import turingvit_hf` is what makes the Auto classes know it.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

import turingvit_hf
from turingvit_hf.integrations.flat_source import flat_name, flatten_sources
from turingvit_hf.integrations.model_card import tower_card, vlm_card
from turingvit_hf.modeling.configuration_reduced import TuringViTReducedConfig
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_reduced import TuringViTReducedModel
from turingvit_hf.modeling.modeling_turingvit import (
    TuringViTBackbone,
    TuringViTForImageClassification,
    TuringViTModel,
)
from turingvit_hf.modeling.vlm_hooks import OwnTowerSpec
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.processing.processing_llava import TuringViTLlavaProcessor


# What a folder says about itself, so that a later export knows which files it may replace.
MANIFEST = "turingvit_export.json"
CARD = "README.md"

TOWER_AUTO_CLASSES = {
    "AutoConfig": TuringViTConfig,
    "AutoModel": TuringViTModel,
    "AutoModelForImageClassification": TuringViTForImageClassification,
    "AutoBackbone": TuringViTBackbone,
}
TOWER_CLASSES = (TuringViTModel, TuringViTForImageClassification, TuringViTBackbone)
TOWERS_IN_VLMS = {TuringViTConfig: TuringViTModel, TuringViTReducedConfig: TuringViTReducedModel}

VLM_CONFIGURATION = '''\
# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The configuration of a VLM of transformers whose tower is a TuringViT."""

import transformers

from .{config_file} import {tower_config}
from .{model_file} import {tower_model}


# known by this copy's own class and not by a model type, so no other copy and no installed package is in the way
transformers.AutoModel.register({tower_config}, {tower_model})


class {config_class}(transformers.{config_class}):
    """As in transformers, which finds the model class by this name, but with this folder's tower inside."""

    sub_configs_defaults = transformers.{config_class}.sub_configs_defaults | {{"vision_config": {tower_config}}}
'''


def export_for_hub(
    model: PreTrainedModel,
    processor: TuringViTImageProcessor | ProcessorMixin | None,
    directory: str | os.PathLike,
    *,
    max_shard_size: int | str = "50GB",
) -> Path:
    """The folder of a checkpoint that loads with `trust_remote_code=True` where turingvit_hf is not installed.

    It holds the weights as safetensors, the configurations with their `auto_map`, the source files those name, and a
    model card to start from. It is written beside its place and then moved there, so an interrupted export leaves
    what was there before. A previous export is replaced, except for its model card, which may have been edited.

    Args:
        model: A `TuringViTModel`, `TuringViTForImageClassification` or `TuringViTBackbone`, or a VLM of transformers
            whose `vision_config` is a `TuringViTConfig` or a `TuringViTReducedConfig`, such as
            `LlavaForConditionalGeneration`.
        processor: The image processor of a tower, the processor of a VLM, or None to leave it out.
        directory: The folder to make; its parent must exist. An empty folder or a previous export may be there.
        max_shard_size: Most bytes in a file of weights, a number or text like "5GB"; what is larger is split.

    Raises:
        ValueError: The model or the processor is none of those above, the two do not fit together, or the folder
            holds files that no export wrote.
    """
    is_tower = type(model) in TOWER_CLASSES
    _check_model(model, is_tower=is_tower)
    _check_processor(processor, model.config, is_tower=is_tower)
    directory = Path(directory).resolve()
    _check_directory(directory)

    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as scratch:
        export = Path(scratch, "export")
        export.mkdir()
        model.save_pretrained(export, max_shard_size=max_shard_size)
        if processor is not None:
            processor.save_pretrained(export)
        if is_tower:
            _complete_tower(export, model, has_processor=processor is not None)
        else:
            _complete_vlm(export, model, processor)
        if (directory / CARD).exists():
            # it may have been edited
            card = (directory / CARD).read_text(encoding="utf-8")
        else:
            card = _card(directory.name, model, has_processor=processor is not None)
        (export / CARD).write_text(card, encoding="utf-8")
        written = sorted(str(file.relative_to(export)) for file in export.rglob("*") if file.is_file())
        _write_json(export / MANIFEST, {"turingvit_hf": turingvit_hf.__version__, "files": [*written, MANIFEST]})
        _move_into_place(export, directory, old=Path(scratch, "old"))
    return directory


def _complete_tower(export: Path, model: PreTrainedModel, *, has_processor: bool) -> None:
    """Adds to a tower's saved weights what makes the folder stand on its own."""
    auto_map = {auto_class: _reference(target) for auto_class, target in TOWER_AUTO_CLASSES.items()}
    changes: dict[str, Any] = {"auto_map": auto_map}
    if isinstance(model, TuringViTBackbone):
        # a backbone has no pooling head, and AutoModel must not make up one with random weights
        changes["vision_use_head"] = False
    _update_json(export / "config.json", changes)
    entries = [target.__module__ for target in TOWER_AUTO_CLASSES.values()]
    if has_processor:
        _update_json(export / "preprocessor_config.json", _image_processor_map())
        entries.append(TuringViTImageProcessor.__module__)
    _write_sources(export, entries)


def _complete_vlm(export: Path, model: PreTrainedModel, processor: Any) -> None:
    """Adds to a VLM's saved weights what makes the folder stand on its own.

    A nested configuration's `auto_map` is not read, but the VLM's own may name a class that knows the tower. That must
    have the name of the original, since transformers finds the model class by it.
    """
    config_class = type(model.config)
    file_name = f"configuration_{model.config.model_type}_turingvit"
    _update_json(export / "config.json", {"auto_map": {"AutoConfig": f"{file_name}.{config_class.__name__}"}})
    tower_config = type(model.config.vision_config)
    tower_model = TOWERS_IN_VLMS[tower_config]
    entries = [tower_config.__module__, tower_model.__module__]
    if processor is not None and type(processor.image_processor) is TuringViTImageProcessor:
        saved = json.loads((export / "processor_config.json").read_text(encoding="utf-8"))
        saved["image_processor"] |= _image_processor_map()
        if type(processor) is TuringViTLlavaProcessor:
            saved["auto_map"] = {"AutoProcessor": _reference(TuringViTLlavaProcessor)}
            entries.append(TuringViTLlavaProcessor.__module__)
        _write_json(export / "processor_config.json", saved)
        entries.append(TuringViTImageProcessor.__module__)
    _write_sources(export, entries)
    source = VLM_CONFIGURATION.format(
        config_class=config_class.__name__,
        config_file=flat_name(tower_config.__module__),
        model_file=flat_name(tower_model.__module__),
        tower_config=tower_config.__name__,
        tower_model=tower_model.__name__,
    )
    (export / f"{file_name}.py").write_text(source, encoding="utf-8")


def _card(name: str, model: PreTrainedModel, *, has_processor: bool) -> str:
    if type(model) not in TOWER_CLASSES:
        return vlm_card(name, type(model.config).__name__, has_processor=has_processor)
    is_classifier = isinstance(model, TuringViTForImageClassification)
    return tower_card(name, is_classifier=is_classifier, has_processor=has_processor)


def _write_sources(export: Path, entries: list[str]) -> None:
    for name, text in flatten_sources(entries).items():
        (export / name).write_text(text, encoding="utf-8")


def _reference(target: type) -> str:
    """How an `auto_map` names a class: the flat file without its ending, and the class."""
    return f"{flat_name(target.__module__)}.{target.__name__}"


def _image_processor_map() -> dict[str, dict[str, str]]:
    return {"auto_map": {"AutoImageProcessor": _reference(TuringViTImageProcessor)}}


def _update_json(file: Path, changes: dict) -> None:
    _write_json(file, json.loads(file.read_text(encoding="utf-8")) | changes)


def _write_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _move_into_place(export: Path, directory: Path, *, old: Path) -> None:
    """Renames the finished export to its place; what was there goes to `old`, and comes back if that fails."""
    if directory.exists():
        directory.rename(old)
    try:
        export.rename(directory)
    except OSError:
        if old.exists():
            old.rename(directory)
        raise


def _check_model(model: PreTrainedModel, *, is_tower: bool) -> None:
    """Raises ValueError unless this is a tower, or a VLM of transformers that keeps its TuringViT when it is saved."""
    name = f"{type(model).__module__}.{type(model).__name__}"
    config = getattr(model, "config", None)
    if not is_tower and type(getattr(config, "vision_config", None)) not in TOWERS_IN_VLMS:
        raise ValueError(
            f"cannot export a {name}: expected one of {sorted(c.__name__ for c in TOWER_CLASSES)} itself (merge "
            "adapters first; a subclass has code that the export would lack), or a VLM of transformers whose "
            "vision_config is a TuringViTConfig or a TuringViTReducedConfig"
        )
    if model._hf_peft_config_loaded:
        raise ValueError(f"cannot export a {name} with adapters in it, which would be all that is saved: merge them")
    if is_tower:
        return
    config_class = type(model.config)
    for part in (type(model), config_class):
        if getattr(transformers, part.__name__, None) is not part:
            raise ValueError(f"cannot export a {name}: its {part.__name__} is not one of transformers' own")
    if isinstance(config_class.sub_configs_defaults.get("vision_config"), OwnTowerSpec):
        raise ValueError(
            f"cannot export a {name} with code: {config_class.__name__} reads every vision_config as its own kind "
            "unless turingvit_hf is imported. Save it with save_pretrained and load it where it is"
        )
    reloaded = config_class.from_dict(model.config.to_dict())
    if type(reloaded.vision_config) not in TOWERS_IN_VLMS:
        raise ValueError(
            f"cannot export a {name}: a saved {config_class.__name__} comes back with "
            f"{type(reloaded.vision_config).__name__} for its tower"
        )


def _check_processor(processor, config: PreTrainedConfig, *, is_tower: bool) -> None:
    """Raises ValueError unless the processor is of the kind that goes with the model, and cuts its patches."""
    if processor is None:
        return
    if not is_tower:
        if not isinstance(processor, ProcessorMixin) or "image_processor" not in processor.get_attributes():
            raise ValueError(
                "a VLM is exported with its processor (a ProcessorMixin with an image_processor) or None, got "
                f"{type(processor).__name__}"
            )
        return
    if type(processor) is not TuringViTImageProcessor:
        raise ValueError(f"a tower is exported with a TuringViTImageProcessor or None, got {type(processor).__name__}")
    if processor.patch_size != config.patch_size:
        raise ValueError(f"the processor's patch_size is {processor.patch_size}, the tower's is {config.patch_size}")


def _check_directory(directory: Path) -> None:
    """Raises ValueError unless the folder can be made, is empty, or holds a previous export and nothing else."""
    if not directory.exists():
        if not directory.parent.is_dir():
            raise ValueError(f"cannot make {directory}: the folder above it does not exist")
        return
    if not directory.is_dir():
        raise ValueError(f"cannot export to {directory}: it is a file")
    manifest = directory / MANIFEST
    written = json.loads(manifest.read_text(encoding="utf-8"))["files"] if manifest.is_file() else []
    found = {str(file.relative_to(directory)) for file in directory.rglob("*") if not file.is_dir()}
    if foreign := sorted(found.difference(written)):
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise ValueError(
            f"{directory} holds files that no export wrote, and a new export would remove them: "
            f"{', '.join(foreign[:5])}{more}; choose another folder"
        )
