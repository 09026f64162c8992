# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints that are complete or not there, and what they hold beside Trainer's files.

A checkpoint is written to `.checkpoint-partial/checkpoint-N` and takes its place, `checkpoint-N`, by a rename when all
of it is on the disk. Older ones are removed after that. A run that is killed at any moment leaves its last complete
checkpoint, and at most a partial one that nobody takes for a checkpoint.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.trainer import TRAINER_STATE_NAME

from turingvit_hf.errors import InputError
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.distributed import barrier


PARTIAL = ".checkpoint-partial"
REPLACED = ".checkpoint-replaced"
NAME = re.compile(r"checkpoint-(\d+)")

FINGERPRINT = "fingerprint.json"

# of TrainingArguments; a resumed run takes these from the checkpoint, so a change would have no effect
TRAINING_KEYS = (
    "seed",
    "optim",
    "learning_rate",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "lr_scheduler_type",
)


def find_last_checkpoint(folder: str | Path) -> Path | None:
    """The complete checkpoint of the most steps in a folder; None where there is none, or no folder."""
    found = {}
    for path in Path(folder).glob("checkpoint-*"):
        match = NAME.fullmatch(path.name)
        if match and (path / TRAINER_STATE_NAME).is_file():
            found[int(match[1])] = path
    return found[max(found)] if found else None


def remove_torn_checkpoints(folder: str | Path) -> None:
    """Deletes what a killed run left of a checkpoint that it was writing."""
    for name in (PARTIAL, REPLACED):
        shutil.rmtree(Path(folder) / name, ignore_errors=True)


@contextmanager
def written_when_complete(target: Path, *, is_writer: bool) -> Iterator[Path]:
    """A folder to write to that becomes `target` when the block ends; when it fails nothing becomes `target`.

    Collective: every rank enters and may write its own files, one rank of those that share a file system renames.

    Args:
        target: name of the finished folder; one that is there is replaced.
        is_writer: whether this rank makes and renames folders.
    """
    partial = target.parent / PARTIAL / target.name
    if is_writer:
        remove_torn_checkpoints(target.parent)
        partial.mkdir(parents=True)
    barrier()
    yield partial
    barrier()
    if is_writer:
        _write_through(partial)
        if target.exists():
            target.rename(target.parent / REPLACED)
        partial.rename(target)
        _synchronize(target.parent)
        remove_torn_checkpoints(target.parent)
    barrier()


def _write_through(folder: Path) -> None:
    """Waits until files and folders are on the disk: a rename may otherwise outlive what it renamed in a power cut."""
    for directory, _, names in os.walk(folder):
        for name in names:
            _synchronize(Path(directory) / name)
        _synchronize(Path(directory))


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes plain values."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Plain values from a file.

    Raises:
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path.parent} has no {path.name}, so it cannot be resumed from here")
    return json.loads(path.read_text(encoding="utf-8"))


def read_tensors(path: Path) -> Any:
    """Tensors and plain values from a file, on the CPU; no code in it is run.

    Raises:
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path.parent} has no {path.name}, so it cannot be resumed from here")
    return torch.load(path, map_location="cpu", weights_only=True)


def recipe_fingerprint(recipe: StageRecipe, folder: Path | None = None) -> dict[str, Any]:
    """What must be the same for a run to go on from a checkpoint, as plain values.

    An earlier stage that lies beside this one, as in a chain, is known by its name there as well as by its path: a
    folder of stages may be moved as a whole, and a stage by itself.

    Args:
        recipe: the stage's.
        folder: the stage's, None where it has none.

    Left out is what changes no result or may change on the way: workers, limits, evaluation, number of steps, the form
    of the schedule, precision, clipping.
    """
    values = recipe.to_dict()
    for section, names in {
        "data": ("num_workers", "max_bad_share"),
        "objective": ("chunk_size",),
        "optimizer": ("max_logit_scale", "max_skipped_steps"),
    }.items():
        for name in names:
            del values[section][name]
    values["training"] = {key: recipe.training[key] for key in TRAINING_KEYS if key in recipe.training}
    values["init_from"] = _describe_start(recipe.init_from, folder)
    kept = ("stage", "model", "init_from", "data", "text", "teacher", "objective", "optimizer", "training")
    # through JSON, since it is compared with what a file says: tuples become lists
    return json.loads(json.dumps({key: values[key] for key in kept}))


def _describe_start(init_from: str | None, folder: Path | None) -> dict[str, str | None] | None:
    """Where a stage starts from: as a path, and from the folder that the stage's own folder is in."""
    if init_from is None:
        return None
    path = Path(init_from).expanduser()
    if not path.is_dir() and not path.is_absolute():  # an absolute one may have been moved
        return {"path": init_from, "beside": None}
    path = path.resolve()
    around = folder.expanduser().resolve().parent if folder is not None else None
    is_beside = around is not None and path.is_relative_to(around)
    return {"path": str(path), "beside": path.relative_to(around).as_posix() if is_beside else None}


def differing_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A phrase for each value in which two fingerprints differ, empty where they agree."""
    if _is_same_start(before.get("init_from"), now.get("init_from")):
        now = {**now, "init_from": before.get("init_from")}
    flat_before, flat_now = _flatten(before), _flatten(now)
    missing = "nothing"
    return "; ".join(
        f"{key} was {flat_before.get(key, missing)!r}, is {flat_now.get(key, missing)!r}"
        for key in sorted(flat_before.keys() | flat_now.keys())
        if flat_before.get(key, missing) != flat_now.get(key, missing)
    )


def _is_same_start(before: Any, now: Any) -> bool:
    """Whether one of the two descriptions of a start agrees; see `_describe_start`."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return before == now
    return before["path"] == now["path"] or (before["beside"] is not None and before["beside"] == now["beside"])


def check_checkpoint(checkpoint: Path, fingerprint: Mapping[str, Any] | None) -> None:
    """Checks that a run may go on from a checkpoint.

    Raises:
        InputError: it is no complete checkpoint, or it was made by another stage or configuration.
    """
    if not (checkpoint / TRAINER_STATE_NAME).is_file():
        raise InputError(f"{checkpoint} is no complete checkpoint: it has no {TRAINER_STATE_NAME}")
    if fingerprint is None:
        return
    differing = differing_keys(read_json(checkpoint / FINGERPRINT), fingerprint)
    if differing:
        raise InputError(f"{checkpoint} was made by another recipe and cannot be resumed with this one: {differing}")


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary with dotted keys."""
    if isinstance(value, Mapping):
        items = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, list):
        items = [(str(index), part) for index, part in enumerate(value)]
    else:
        return {prefix: value}
    flat = {}
    for key, part in items:
        flat |= _flatten(part, f"{prefix}.{key}" if prefix else key)
    return flat
