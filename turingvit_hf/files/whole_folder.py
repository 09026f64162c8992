# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Folders that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_free(directory: str | os.PathLike) -> Path:
    """The folder's full path, if something may be written there.

    Raises:
        ValueError: It is a file or holds something, or a file stands in the way above it.
    """
    directory = Path(directory).expanduser().resolve()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} {'is not empty' if directory.is_dir() else 'is a file'}: choose another folder")
    above = next(parent for parent in directory.parents if parent.exists())
    if not above.is_dir():
        raise ValueError(f"cannot make {directory}: {above} is a file")
    return directory


@contextmanager
def written_whole(directory: str | os.PathLike) -> Iterator[Path]:
    """A folder beside `directory` to write into; it takes that name at the end, and goes when the block fails.

    Raises:
        ValueError: `directory` is not free.
    """
    directory = check_free(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as scratch:
        partial = Path(scratch, "partial")
        partial.mkdir()
        yield partial
        if directory.exists():
            directory.rmdir()  # empty, as was checked
        partial.rename(directory)
