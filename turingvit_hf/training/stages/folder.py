# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The output folder of a stage: what stands in it from the start, how a stage is resumed in it, and what it ends with.

recipe.yaml, environment.json   the resolved recipe, and on what it ran
tokenizer/                      where one was trained for this stage
checkpoint-N/                   what `--resume` goes on from
model/, vision_tower/           the whole model with its processor, and the tower alone, for AutoModel
report.json, curves.png, README.md
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accelerate
import datasets
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedTokenizerBase

import turingvit_hf
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.modeling.modeling_masked_image import TuringViTForMaskedImageModeling
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.processing.processing_turingvit import TuringViTProcessor
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.errors import InputError
from turingvit_hf.training.loop.checkpoints import find_last_checkpoint, recipe_fingerprint
from turingvit_hf.training.recipes import load_recipe
from turingvit_hf.training.yaml_files import dump_yaml


RECIPE, ENVIRONMENT, REPORT, CHAIN = "recipe.yaml", "environment.json", "report.json", "chain.json"
NOTHING = "nothing"


def is_finished(folder: Path) -> bool:
    """Whether a stage ended in this folder: the report is the last file that it writes."""
    return (folder / REPORT).is_file()


def check_folder(folder: Path, recipe: StageRecipe, *, resume: bool) -> None:
    """Checks that a stage may run in this folder: it is empty, or holds the same stage and is to be resumed.

    Raises:
        InputError: it is a file, it is not empty, or what it holds is not this recipe's.
    """
    check_is_free(folder, resume=resume)
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / RECIPE).is_file():
        raise InputError(f"{folder} holds no {RECIPE}, so it is not the output of a stage and cannot be resumed")
    differing = differences(recipe_fingerprint(load_recipe(folder / RECIPE)), recipe_fingerprint(recipe))
    if differing:
        raise InputError(f"{folder} was made by another recipe and cannot be resumed with this one: {differing}")


def check_is_free(folder: Path, *, resume: bool) -> None:
    """Checks that a folder is empty or absent, or is to be resumed.

    Raises:
        InputError: it is a file, or not empty and not to be resumed.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; the output is a folder")
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        raise InputError(f"{folder} is not empty; choose another folder, or go on with what it holds by --resume")


def differences(before: Any, now: Any, path: str = "") -> str:
    """A phrase for each value in which two nests of plain dictionaries differ, empty where they are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        phrases = [
            differences(before.get(key, NOTHING), now.get(key, NOTHING), f"{path}.{key}" if path else key)
            for key in sorted(before.keys() | now.keys())
        ]
        return "; ".join(filter(None, phrases))
    return "" if before == now else f"{path} was {before!r}, is {now!r}"


def write_beginning(folder: Path, recipe: StageRecipe, *, world_size: int) -> None:
    """Writes the resolved recipe, and adds this run to `environment.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace_text(folder / RECIPE, dump_yaml(recipe.to_dict()))
    path = folder / ENVIRONMENT
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else []
    checkpoint = find_last_checkpoint(folder)
    runs.append(describe_environment(world_size) | {"resumed_from": checkpoint.name if checkpoint else None})
    _replace_text(path, json.dumps({"runs": runs}, indent=2) + "\n")


def describe_environment(world_size: int) -> dict[str, Any]:
    """Versions, commit, devices and number of processes, as plain values."""
    modules = (turingvit_hf, torch, transformers, accelerate, datasets)
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    else:
        devices = [f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"]
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {module.__name__: module.__version__ for module in modules},
        "python": platform.python_version(),
        "commit": _commit(),
        "machine": platform.platform(),
        "num_cores": os.cpu_count(),
        "devices": devices,
        "world_size": world_size,
    }


def _commit() -> str | None:
    """The commit of the package's checkout, with a mark where files differ from it; None where it is installed."""
    package = Path(turingvit_hf.__file__).parent
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # git is not there, or does not trust the folder: the versions have to do
    return found.stdout.strip()


def save_models(
    folder: Path,
    model: TuringViTDualEncoderModel | TuringViTForMaskedImageModeling,
    weights: dict[str, Tensor],
    *,
    image_processor: TuringViTImageProcessor,
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Writes `model/` and `vision_tower/`, each with its processor.

    Args:
        folder: of the stage.
        model: gives class and configuration; its own weights may be elsewhere, in shards.
        weights: what to save, the complete state dict.
        image_processor: of the tower.
        tokenizer: of the text encoder, where there is one.
    """
    complete = type(model)._from_config(model.config)
    complete.load_state_dict(weights)
    complete.save_pretrained(folder / "model")
    if tokenizer is None:
        image_processor.save_pretrained(folder / "model")
    else:
        TuringViTProcessor(image_processor, tokenizer).save_pretrained(folder / "model")
    complete.turingvit.save_pretrained(folder / "vision_tower")
    image_processor.save_pretrained(folder / "vision_tower")


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Writes `report.json`, which marks the stage as finished."""
    _replace_text(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def write_chain_report(root: Path, folders: Sequence[Path]) -> None:
    """Writes `chain.json`: the reports of finished stages in order, each with the name of its folder."""
    reports = [json.loads((folder / REPORT).read_text(encoding="utf-8")) for folder in folders]
    stages = [{"folder": folder.name, **report} for folder, report in zip(folders, reports, strict=True)]
    _replace_text(root / CHAIN, json.dumps({"stages": stages}, indent=2, ensure_ascii=False) + "\n")


def _replace_text(path: Path, text: str) -> None:
    """Writes a file that is complete or as it was."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
