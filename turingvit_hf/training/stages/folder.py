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
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import accelerate
import datasets
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedTokenizerBase

import turingvit_hf
from turingvit_hf.errors import InputError
from turingvit_hf.files.yaml_files import dump_yaml
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.modeling.modeling_masked_image import TuringViTForMaskedImageModeling
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.processing.processing_turingvit import TuringViTProcessor
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.distributed import barrier
from turingvit_hf.training.loop.checkpoints import (
    PARTIAL,
    differing_keys,
    find_last_checkpoint,
    recipe_fingerprint,
)
from turingvit_hf.training.recipes import load_recipe


RECIPE, ENVIRONMENT, REPORT, CHAIN = "recipe.yaml", "environment.json", "report.json", "chain.json"
TOKENIZER = "tokenizer"
LOGS = "runs"  # where transformers puts TensorBoard's
STAGE = re.compile(r"stage\d+")


def output_folder(out: str | Path) -> Path:
    """The folder that a person named to write to.

    Raises:
        InputError: the name is empty; `.` is how the current folder is called.
    """
    if not str(out).strip():
        raise InputError(f"--out {str(out)!r} names no folder; the current one is called .")
    return Path(out).expanduser()


def is_finished(folder: Path) -> bool:
    """Whether a stage ended in this folder: the report is the last file that it writes."""
    return (folder / REPORT).is_file()


def is_untrained(folder: Path) -> bool:
    """Whether a folder is absent or empty, or holds no more than what a stage writes before its first checkpoint.

    Nobody misses that, so the next start may replace it, whatever its recipe.
    """
    if not folder.is_dir():
        return not folder.exists()
    names = {path.name for path in folder.iterdir() if not _is_partial(path.name)}
    # environment.json comes first, and a person's own recipe may be called as ours is
    return not names or (ENVIRONMENT in names and names <= {RECIPE, ENVIRONMENT, TOKENIZER, LOGS})


def _is_partial(name: str) -> bool:
    """Whether a file or folder of this name is one that was being written."""
    return name == PARTIAL or (name.startswith(".") and ".partial" in name)


def check_folder(folder: Path, recipe: StageRecipe, *, resume: bool) -> None:
    """Checks that a stage may run in this folder: nothing was trained there, or the same stage is to be resumed.

    Raises:
        InputError: it is a file, it is not empty, or what it holds is not this recipe's.
    """
    if is_untrained(folder):
        return
    check_is_free(folder, resume=resume)
    for name in (RECIPE, ENVIRONMENT):
        if not (folder / name).is_file():
            raise InputError(f"{folder} holds no {name}, so it is not the output of a stage and cannot be resumed")
    made_by = recipe_fingerprint(load_recipe(folder / RECIPE), _earlier_place(folder))
    differing = differing_keys(made_by, recipe_fingerprint(recipe, folder))
    if differing:
        raise InputError(f"{folder} was made by another recipe and cannot be resumed with this one: {differing}")


def check_chain_folder(root: Path, *, resume: bool) -> None:
    """Checks that a chain may run in this folder: nothing was trained there, or it is to be resumed.

    Raises:
        InputError: it is a file, or not empty and not to be resumed.
    """
    if root.is_dir() and all(STAGE.fullmatch(path.name) and is_untrained(path) for path in root.iterdir()):
        return
    check_is_free(root, resume=resume)


def check_is_free(folder: Path, *, resume: bool) -> None:
    """Checks that a folder is empty or absent, or is to be resumed.

    Raises:
        InputError: it is a file, or not empty and not to be resumed.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; the output is a folder")
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        raise InputError(f"{folder} is not empty; choose another folder, or go on with what it holds by --resume")


def _earlier_place(folder: Path) -> Path:
    """Where a stage's folder was when it last ran, before it was moved or renamed."""
    return Path(_runs_of(folder)[-1].get("folder", folder))


def _runs_of(folder: Path) -> list[dict[str, Any]]:
    """What `environment.json` says of each run."""
    return json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))["runs"]


@contextmanager
def begun(folder: Path, recipe: StageRecipe, *, world_size: int, is_writer: bool) -> Iterator[None]:
    """A stage's folder with the resolved recipe, and this run added to `environment.json`.

    What a start without a checkpoint had left there is removed first. When the block fails before there is a
    checkpoint, what the stage wrote is removed again. Collective: every process enters, one writes.

    Raises:
        InputError: no folder can be made there.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    barrier()  # nobody writes before all have looked
    if is_writer:
        if is_untrained(folder):
            _remove_start(folder)
        _write_beginning(folder, recipe, world_size=world_size)
    barrier()
    try:
        yield
    except BaseException:
        if is_writer and is_untrained(folder):
            _remove_start(folder)
            for path in made:
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
        raise


def _remove_start(folder: Path) -> None:
    """Removes what a stage writes before its first checkpoint, but for logs of steps that it did take."""
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.name == LOGS:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_beginning(folder: Path, recipe: StageRecipe, *, world_size: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error
    runs = _runs_of(folder) if (folder / ENVIRONMENT).is_file() else []
    checkpoint = find_last_checkpoint(folder)
    here = {"folder": str(folder.resolve()), "resumed_from": checkpoint.name if checkpoint else None}
    runs.append(describe_environment(world_size) | here)
    _replace_text(folder / ENVIRONMENT, json.dumps({"runs": runs}, indent=2) + "\n")
    _replace_text(folder / RECIPE, dump_yaml(recipe.to_dict()))


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
    """Writes `chain.json`, unless it says so already: the reports of finished stages, each with its folder's name."""
    reports = [json.loads((folder / REPORT).read_text(encoding="utf-8")) for folder in folders]
    stages = [{"folder": folder.name, **report} for folder, report in zip(folders, reports, strict=True)]
    text = json.dumps({"stages": stages}, indent=2, ensure_ascii=False) + "\n"
    if not (root / CHAIN).is_file() or (root / CHAIN).read_text(encoding="utf-8") != text:
        _replace_text(root / CHAIN, text)


def _replace_text(path: Path, text: str) -> None:
    """Writes a file that is complete or as it was."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
