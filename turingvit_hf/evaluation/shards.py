# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Features in files: each shard is made once, by one of the processes, and appears whole or not at all."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from turingvit_hf.errors import InputError


class Shard(NamedTuple):
    """What one file holds.

    Attributes:
        tensors: by name.
        notes: whatever else belongs to it, as JSON has it.
    """

    tensors: dict[str, Tensor]
    notes: dict[str, Any]


def make_shards(
    folder: Path, num_shards: int, make: Callable[[int], Shard], *, spec: Mapping[str, Any], processes: PartialState
) -> list[Shard]:
    """All shards in order, those that are not there yet made first. Collective: every process calls it.

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
        InputError: a file cannot be written or read.
    """
    text = json.dumps(spec, sort_keys=True, indent=2)
    place = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    paths = [place / f"{number:06}.safetensors" for number in range(num_shards)]
    try:
        place.mkdir(parents=True, exist_ok=True)
        if processes.is_main_process:
            _write(place / "spec.json", lambda path: path.write_text(text + "\n", encoding="utf-8"))
        for number in range(processes.process_index, num_shards, processes.num_processes):
            if not paths[number].exists():
                shard = make(number)
                tensors = {name: value.contiguous() for name, value in shard.tensors.items()}
                notes = {"notes": json.dumps(shard.notes)}
                _write(paths[number], lambda path, *what: save_file(what[0], path, metadata=what[1]), tensors, notes)
        processes.wait_for_everyone()
        return [_read(path) for path in paths]
    except (OSError, SafetensorError) as error:
        raise InputError(f"features in {place} cannot be kept: {error}") from error


def _read(path: Path) -> Shard:
    with safe_open(path, framework="pt") as file:
        return Shard({name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["notes"]))  # noqa: SIM118


def _write(path: Path, write: Callable[..., Any], *what: Any) -> None:
    """Has a file written beside its place and moved there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(partial, *what)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
