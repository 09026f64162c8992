# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Folders of files as JSON lines: what was there when a run began."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from turingvit_hf.curation.config import SourceConfig
from turingvit_hf.curation.tables import written_file
from turingvit_hf.data.rows import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from turingvit_hf.data.sources import MEDIA_COLUMNS
from turingvit_hf.errors import InputError


SUFFIXES = {"image": IMAGE_SUFFIXES, "video": VIDEO_SUFFIXES}
OTHER_FORMS = (".tar", ".tar.gz", ".tgz", ".parquet")


def list_folder(source: SourceConfig, target: Path) -> str | None:
    """Return the path of a folder's listing, which is written once to `target`; None for what is no such folder.

    A `metadata.csv` is the listing; without one all files of the wanted kind are, in any depth. A caption is then what
    stands in a text file beside, as img2dataset writes it, or the name of a sub-folder, unless that is a number; a
    JSON file beside adds its entries, but for those that would name another file.

    Raises:
        InputError: there is nothing of the wanted kind, or `metadata.csv` or a sub-folder cannot be read.
    """
    folder = Path(source.path).expanduser()
    if source.format not in ("auto", "folder") or not folder.is_dir() or (folder / "metadata.jsonl").is_file():
        return None
    if source.format == "auto" and _holds_other_forms(folder):
        return None
    if target.is_file():
        return str(target)
    num_rows = 0
    with written_file(target) as partial, partial.open("w", encoding="utf-8") as file:
        # in ASCII, which can hold names that are no UTF-8 too
        for row in _rows(folder, source.kind):
            file.write(json.dumps(row) + "\n")
            num_rows += 1
        if not num_rows:
            raise InputError(
                f"{folder} has no metadata.jsonl, no metadata.csv and no {source.kind} files "
                f"({', '.join(sorted(SUFFIXES[source.kind]))})"
            )
    return str(target)


def _holds_other_forms(folder: Path) -> bool:
    return any(name.lower().endswith(OTHER_FORMS) for _, _, names in os.walk(folder) for name in names)


def _rows(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    if (path := folder / "metadata.csv").is_file():
        yield from _rows_of_csv(path)
        return
    for place, subfolders, names in os.walk(folder, onerror=_refuse):
        subfolders.sort()
        here = Path(place)
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES[kind]:
                yield {"file_name": str((here / name).relative_to(folder)), **_beside(here / name, folder, kind)}


def _refuse(error: OSError) -> None:
    """Raises for a sub-folder that cannot be listed: its rows would be lost without a word."""
    raise InputError(f"cannot list {error.filename}: {error.strerror}") from error


def _rows_of_csv(path: Path) -> Iterator[dict[str, Any]]:
    limit = csv.field_size_limit(2**31 - 1)  # by itself it refuses a caption of more than 131,072 characters
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                yield {key: value for key, value in row.items() if key is not None}
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV file in UTF-8: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _beside(file: Path, folder: Path, kind: str) -> dict[str, Any]:
    """What is known of a file besides its name."""
    values: dict[str, Any] = {}
    try:
        entries = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        if isinstance(entries, dict):
            values |= {name: value for name, value in entries.items() if name not in MEDIA_COLUMNS[kind]}
    except (OSError, ValueError):
        values = {}  # there is none, or what is there is not about the picture
    try:
        values["caption"] = file.with_suffix(".txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        name = file.parent.name
        if "caption" not in values and file.parent != folder and not name.isdecimal():
            values["caption"] = name.replace("_", " ")
    return values | {"file_name": str(file.relative_to(folder))}
