# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Features in files: each shard is made once, by one of the processes, and appears whole or not at all."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.processes import Processes


logger = logging.getLogger(__name__)

# how often it is asked whether the disk holds what is still to come, in shards
SHARDS_PER_LOOK = 64


class Shard(NamedTuple):
    """What one file holds.

    Attributes:
        tensors: by name.
        notes: whatever else belongs to it, as JSON has it.
    """

    tensors: dict[str, Tensor]
    notes: dict[str, Any]


def make_shards(
    folder: Path, num_shards: int, make: Callable[[int], Shard], *, spec: Mapping[str, Any], processes: Processes
) -> list[Path]:
    """The files of all shards in order, those that are not there yet made first. Collective: every process calls it.

    Process r makes the shards r, r + W and so on; which process makes one changes nothing of it. The shards lie in a
    sub-folder whose name depends on `spec`, which says what they were made of, so that others are never taken for
    them. All processes see one file system.

    Args:
        folder: for shards of all kinds.
        num_shards: how many there are.
        make: gives the shard of a number.
        spec: everything that the shards depend on, as JSON has it.
        processes: which of how many this is.

    Raises:
        InputError: a file cannot be written, or the disk would not hold all of them.
    """
    text = json.dumps(spec, sort_keys=True, indent=2)
    place = folder / name_of(spec)
    paths = [place / f"{number:06}.safetensors" for number in range(num_shards)]
    try:
        place.mkdir(parents=True, exist_ok=True)
        if processes.is_main:
            write_whole(place / "spec.json", lambda path: path.write_text(text + "\n", encoding="utf-8"))
        num_made = 0
        for number in range(processes.index, num_shards, processes.number):
            if not paths[number].exists():
                shard = make(number)
                tensors = {name: value.contiguous() for name, value in shard.tensors.items()}
                if num_made % SHARDS_PER_LOOK == 0:
                    _check_room(place, sum(tensor.nbytes for tensor in tensors.values()), paths)
                notes = {"notes": json.dumps(shard.notes)}
                write_whole(
                    paths[number], lambda path, *what: save_file(what[0], path, metadata=what[1]), tensors, notes
                )
                num_made += 1
        processes.wait()
    except (OSError, SafetensorError) as error:
        raise InputError(f"features in {place} cannot be kept: {error}") from error
    return paths


def name_of(spec: Mapping[str, Any]) -> str:
    """The name of the sub-folder for what depends on `spec`."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, indent=2).encode()).hexdigest()[:16]


def read_shard(path: Path, *, with_tensors: bool = True) -> Shard:
    """What a file holds, or only its notes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys()) if with_tensors else []
            return Shard({name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["notes"]))
    except (OSError, SafetensorError) as error:
        raise InputError(f"features in {path} cannot be read: {error}; delete that file") from error


def write_whole(path: Path, write: Callable[..., Any], *what: Any) -> None:
    """Has a file written beside its place and moved there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(partial, *what)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check_room(place: Path, num_bytes: int, paths: Sequence[Path]) -> None:
    """Refuses to go on where the shards that are not there yet, each as large as this one, would not fit."""
    num_missing = sum(not path.exists() for path in paths)
    needed, free = num_bytes * num_missing, shutil.disk_usage(place).free
    logger.info(
        "%s: %d files to make, %.2f GB or so in all, of %.2f GB free", place, num_missing, needed / 1e9, free / 1e9
    )
    if needed > free:
        raise InputError(
            f"features in {place} would take {needed / 1e9:.1f} GB or so, and {free / 1e9:.1f} GB are free: choose "
            "another folder, smaller images (--max-patches, --image-size) or fewer of them"
        )
