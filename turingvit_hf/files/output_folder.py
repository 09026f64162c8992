# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Output folders that appear complete or not at all, and that never take the place of anything a person may miss."""

import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turingvit_hf.errors import InputError
from turingvit_hf.files.owners import is_gone, this_machine


def choose_folder(out: str | Path | None, *, default: str, marker: str, overwrite: bool) -> Path:
    """The folder to write to: `out` if it is free, or the first free one of `default`, `default-2`, `default-3` and so
    on.

    Args:
        out: what the user asked for, or None.
        default: name in the current folder.
        marker: file that tells a folder is the result of an earlier run.
        overwrite: whether `out` may be such a result.

    Raises:
        InputError: `out` is a file, or holds something and may not be replaced.
    """
    if out is None:
        names = itertools.chain([default], (f"{default}-{number}" for number in itertools.count(2)))
        return Path(next(name for name in names if not Path(name).exists()))
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; the output is a folder")
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise InputError(
                f"{folder} is not empty; choose another folder, or replace an earlier result with --overwrite"
            )
        if not (folder / marker).exists():
            raise InputError(f"{folder} has no {marker}, so it is not the result of an earlier run and stays as it is")
    return folder


@contextmanager
def written_in_one_piece(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write into; it takes the target's name when the block ends, and vanishes when the
    block fails. What a process left that was killed at this goes first.

    Raises:
        InputError: no folder can be made there.
    """
    machine = hashlib.sha256(this_machine().encode()).hexdigest()[:8]
    partial, replaced = (
        target.parent / f".{target.name}.{part}-{machine}-{os.getpid()}" for part in ("partial", "replaced")
    )
    try:
        _clear_leftovers(target, machine)
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot write to {target}: {error.strerror}") from error
    try:
        yield partial
        if target.exists():
            target.rename(replaced)
            partial.rename(target)
            shutil.rmtree(replaced)
        else:
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _clear_leftovers(target: Path, machine: str) -> None:
    """Removes folders of processes that were killed on this machine, but for an earlier result that one of them had
    moved out of the way and not replaced yet: that comes back."""
    name = re.compile(rf"\.{re.escape(target.name)}\.(partial|replaced)-{machine}-(\d+)")
    for folder in sorted(target.parent.glob(".*")):
        found = name.fullmatch(folder.name)
        if found is None or not is_gone(int(found.group(2))):
            continue
        if found.group(1) == "replaced" and not target.exists():
            folder.rename(target)
        else:
            shutil.rmtree(folder)
