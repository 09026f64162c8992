# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows by index: tables and archives that can be asked for any row, each row a plain dict of undecoded values."""

import array
import csv
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import datasets
from PIL import Image

from turingvit_hf.data.draws import draws
from turingvit_hf.data.shapes import render_scene, sample_scene, sample_size
from turingvit_hf.errors import BadRowError, InputError


NUM_SHAPES = 100_000
IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))


class Rows(Protocol):
    """A table whose rows can be asked for in any order, from any process."""

    columns: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class TableRows:
    """Rows that are in memory."""

    def __init__(self, rows: Sequence[dict[str, Any]]):
        self._rows = rows
        self.columns = tuple(rows[0]) if rows else ()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


class JsonLinesRows:
    """The lines of a JSON-lines file, of which only the offsets are in memory; empty lines are none."""

    def __init__(self, path: Path):
        self._path = path
        self._offsets = array.array("q")
        with path.open("rb") as file:
            offset = 0
            for line in file:
                if line.strip():
                    self._offsets.append(offset)
                offset += len(line)
        names: dict[str, None] = {}
        for index in range(min(len(self), 100)):
            try:
                names.update(dict.fromkeys(self[index]))
            except BadRowError:
                continue
        self.columns = tuple(names)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row; opened anew, since a file that is open in two processes has one position.

        Raises:
            BadRowError: the line is no JSON object.
        """
        with self._path.open("rb") as file:
            file.seek(self._offsets[index])
            line = file.readline()
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadRowError("row is no JSON object", f"{self._path}, row {index}: {error}") from error
        if not isinstance(row, dict):
            raise BadRowError("row is no JSON object", f"{self._path}, row {index}: {row!r:.100}")
        return row


class DatasetRows:
    """The rows of a `datasets.Dataset`, pictures and videos undecoded."""

    def __init__(self, dataset: datasets.Dataset):
        self._dataset = undecoded(dataset)
        self.columns = tuple(dataset.column_names)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._dataset[index]


class ShapesPicture:
    """A picture of colored shapes that is not drawn yet."""

    def __init__(self, *key: object):
        self._rng = draws(*key)
        self.scene = sample_scene(self._rng)
        self.size = sample_size(self._rng)

    def render(self) -> Image.Image:
        """The picture, RGB, `size` = (width, height) pixels; the second time its details differ."""
        return render_scene(self.scene, width=self.size[0], height=self.size[1], rng=self._rng)


class ShapesRows:
    """Rendered pictures of colored shapes with captions; the row's number and `name` decide what it shows."""

    def __init__(self, name: str, num_rows: int = NUM_SHAPES):
        self.columns: tuple[str, ...] = ("image", "caption")
        self._name = name
        self._num_rows = num_rows

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = ShapesPicture(self._name, index)
        return {"image": picture, "caption": picture.scene.describe()}


class TarRows:
    """The samples of uncompressed tars in WebDataset form, found by their headers; bodies are read when asked for.

    Raises:
        InputError: a tar is compressed or damaged.
    """

    def __init__(self, paths: Sequence[str]):
        # of each sample: its tar, its key, and of each of its files the extension, where it starts, its size
        self._samples: list[tuple[str, str, list[tuple[str, int, int]]]] = []
        for path in paths:
            try:
                with tarfile.open(path, "r:") as tar:
                    for key, members in _grouped(tar):
                        parts = [(name, member.offset_data, member.size) for name, member in members]
                        self._samples.append((path, key, parts))
            except (tarfile.TarError, OSError) as error:
                raise InputError(f"cannot index {path} ({error}); a compressed tar needs streaming: true") from error
        self.columns = columns_of_tar(self[0]) if self._samples else ()

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, key, parts = self._samples[index]
        values = {}
        with open(path, "rb") as file:
            for name, offset, size in parts:
                file.seek(offset)
                values[name] = file.read(size)
        return decode_tar_sample(key, values)


def read_folder(folder: Path, kind: str) -> Rows:
    """Return the rows of a folder: its `metadata.jsonl` or `metadata.csv`, or one class a sub-folder.

    Rows of class sub-folders have the columns `file_name` and `caption`, the sub-folder's name with spaces.

    Raises:
        InputError: the folder has neither.
    """
    if (path := folder / "metadata.jsonl").is_file():
        return JsonLinesRows(path)
    if (path := folder / "metadata.csv").is_file():
        with path.open(encoding="utf-8-sig", newline="") as file:
            return TableRows(list(csv.DictReader(file)))
    suffixes = VIDEO_SUFFIXES if kind == "video" else IMAGE_SUFFIXES
    rows = [
        {"file_name": str(file.relative_to(folder)), "caption": subfolder.name.replace("_", " ")}
        for subfolder in sorted(folder.iterdir())
        if subfolder.is_dir()
        for file in sorted(subfolder.rglob("*"))
        if file.suffix.lower() in suffixes
    ]
    if not rows:
        raise InputError(
            f"{folder} has no metadata.jsonl, no metadata.csv and no sub-folder with {kind} files "
            f"({', '.join(sorted(suffixes))})"
        )
    return TableRows(rows)


def iterate_tar(tar: tarfile.TarFile, start: int) -> Iterator[dict[str, Any] | BadRowError | None]:
    """Yield the samples of an open tar, None for each of the first `start`, which are not read."""
    for number, (key, members) in enumerate(_grouped(tar, read_from=start)):
        if number < start:
            yield None
            continue
        try:
            yield decode_tar_sample(key, {name: body for name, (_, body) in members})
        except BadRowError as error:
            yield error


def decode_tar_sample(key: str, values: dict[str, bytes]) -> dict[str, Any]:
    """Return a sample as a row: text decoded, the entries of its JSON file as columns, all else as bytes."""
    row: dict[str, Any] = {}
    for name, value in values.items():
        extension = name.rpartition(".")[2].lower()
        if extension == "json":
            try:
                entries = json.loads(value)
            except ValueError as error:
                raise BadRowError("JSON of the sample cannot be read", f"{key}.{name}: {error}") from error
            row |= entries if isinstance(entries, dict) else {name: entries}
        elif extension in ("txt", "text", "cls"):
            row[name] = value.decode("utf-8", errors="replace")
        else:
            row[name] = value
    return row | {"__key__": key}


def columns_of_tar(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the columns that a row out of a tar has."""
    return tuple(name for name in row if name != "__key__")


def undecoded(dataset: Any) -> Any:
    """Return a dataset or stream whose pictures and videos come as they are stored, so that none ends the run."""
    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.Video):
            dataset = dataset.cast_column(name, datasets.Video(decode=False))
    return dataset


def _grouped(tar: tarfile.TarFile, read_from: int | None = None) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Yield (key, [(extension, member)]) of each run of files that share a key, which is the path up to its first dot.

    With `read_from`, members are (member, body) and bodies are read from that sample on, front to back.
    """
    key, number, members = None, -1, []
    for member in _files(tar):
        path = PurePosixPath(member.name)
        stem, _, extension = path.name.partition(".")
        member_key = str(path.parent / stem)
        if member_key != key:
            if key is not None:
                yield key, members
            key, number, members = member_key, number + 1, []
        if read_from is None:
            members.append((extension.lower(), member))
        else:
            file = tar.extractfile(member) if number >= read_from else None
            members.append((extension.lower(), (member, file.read() if file else b"")))
    if key is not None:
        yield key, members


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        name = PurePosixPath(member.name).name
        if member.isfile() and "." in name and not name.startswith("."):
            yield member
