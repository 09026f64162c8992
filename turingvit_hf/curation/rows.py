# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows of a source as samples of a run: ids, captions, where the media is, and what is wrong with a row."""

import hashlib
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from turingvit_hf.curation.config import SourceConfig
from turingvit_hf.curation.text import is_visible, well_formed
from turingvit_hf.data.columns import CAPTION_COLUMNS
from turingvit_hf.data.media import find_media
from turingvit_hf.data.parquet_stream import ParquetStream
from turingvit_hf.data.rows import JsonLinesRows, Rows, ShapesPicture, ShapesRows
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.sources import MEDIA_COLUMNS, open_source
from turingvit_hf.data.streams import RowStream
from turingvit_hf.errors import BadRowError, InputError


LICENSE_COLUMNS = ("license", "licence")
OPT_OUT_COLUMNS = ("opt_out", "optout", "noai")
# what a text in a column of that name says when it says nothing
FALSE_WORDS = ("", "0", "false", "no", "none", "null")


@dataclass(frozen=True)
class OpenSource:
    """A source whose rows can be read.

    Attributes:
        rows: by index, or a stream.
        media_columns: the first that a row has holds its image or video.
        class_names: of columns that hold numbers of classes, their names.
        root: the folder that relative paths start from.
    """

    rows: Rows | RowStream
    media_columns: tuple[str, ...]
    class_names: dict[str, list[str]]
    root: Path | None


_opened: dict[str, OpenSource] = {}


def recipe_of(source: SourceConfig) -> SourceRecipe:
    """Return a source as the readers of pretraining take it."""
    return SourceRecipe(
        path=source.path,
        kind=source.kind,
        format=source.format,
        split=source.split,
        media_column=source.media_column,
        # `datasets` would copy parquet files into its cache
        streaming=True if is_parquet(source) else None,
    )


def is_parquet(source: SourceConfig) -> bool:
    """Return whether a source consists of parquet files."""
    if source.format != "auto":
        return source.format == "parquet"
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        return source.path.lower().endswith(".parquet")
    return any(folder.rglob("*.parquet")) and not any(folder.rglob("*.tar")) and not any(folder.rglob("*.tar.gz"))


def forget_sources() -> None:
    """Opens sources anew from here on: their files may have changed since an earlier run in this process."""
    _opened.clear()


def open_curated(source: SourceConfig, listing: str | None) -> OpenSource:
    """Return a source, open; a process opens each once.

    Raises:
        InputError: it cannot be opened, has no rows, or no column of media.
    """
    key = repr((source, listing))
    if key not in _opened:
        _opened[key] = _open(source, listing)
    return _opened[key]


def _open(source: SourceConfig, listing: str | None) -> OpenSource:
    if listing is None:
        opened = open_source(recipe_of(source), captions=False)
        return OpenSource(opened.rows, opened.media_columns, opened.class_names, opened.root)
    rows = JsonLinesRows(Path(listing))
    wanted = (source.media_column,) if source.media_column else MEDIA_COLUMNS[source.kind]
    columns = tuple(name for name in wanted if name in rows.columns)
    if not columns:
        raise InputError(
            f"{source.path!r} has no {source.kind} column: it has {sorted(rows.columns)}, looked for {list(wanted)}"
        )
    return OpenSource(rows, columns, {}, Path(source.path).expanduser())


def read_samples(
    source: SourceConfig,
    *,
    name: str,
    listing: str | None,
    unit: int,
    start: int,
    stop: int | None,
    repeats: Collection[int] = (),
    wanted: Collection[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the samples of a stretch of a source, media included, front to back.

    Args:
        source: the source.
        name: of the source in ids.
        listing: the file that its rows stand in, or None.
        unit: which shard of a stream.
        start: first row.
        stop: row after the last, None: to the end.
        repeats: positions, counted from `start`, whose key an earlier row has.
        wanted: positions, counted from `start`; None: all. Media of others is not looked at.

    Raises:
        InputError: the source cannot be read on.
    """
    opened = open_curated(source, listing)
    is_stream = isinstance(opened.rows, RowStream)
    seen: set[str] = set()
    for position, row in _numbered(opened.rows, unit, start, stop, wanted):
        number = f"{unit}/{start + position}" if is_stream else str(start + position)
        sample = _sample(row, opened, source, number=number, unit=unit if is_stream else None)
        # but for the media: a path is what the file system calls it
        sample = {name: value if name == "media" else well_formed(value) for name, value in sample.items()}
        if position in repeats or sample["key"] in seen:
            sample |= {"fault": "row has the key of an earlier row", "fault_detail": sample["key"], "media": None}
            sample["key"] += f"#{number}"
        seen.add(sample["key"])
        yield {"sample_id": sample_id(name, sample["key"]), "position": position, "source": name} | sample


def key_digests(source: SourceConfig, listing: str | None) -> np.ndarray:
    """Return 64-bit digests of the keys of a source's rows, in their order; of rows by index, else none.

    Keys of a stream's shards differ by the number of the shard.

    Raises:
        InputError: no row has a column that the source names, as far as that is known without reading a tar.
    """
    opened = open_curated(source, listing)
    if isinstance(opened.rows, ParquetStream):
        _check_columns(source, opened.rows.columns)
    if isinstance(opened.rows, RowStream | ShapesRows):
        return np.zeros(0, np.uint64)
    digests = np.empty(len(opened.rows), np.uint64)
    columns: set[str] = set()
    for number, row in _numbered(opened.rows, 0, 0, None, None):
        key = str(number)
        if not isinstance(row, BadRowError):
            columns.update(row)
            key = _key(row, source, opened.root, _path_of(row, opened)[1], number=key, unit=None)
        digests[number] = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
    _check_columns(source, columns)
    return digests


def _check_columns(source: SourceConfig, columns: Collection[str]) -> None:
    """Raises an `InputError` for a column that is not there: its captions, or who opted out, would be overlooked."""
    named = {"caption_columns": source.caption_columns}
    named |= {name: (getattr(source, name),) for name in ("license_column", "opt_out_column", "key_column")}
    for option, names in named.items():
        for name in names:
            if name is not None and name not in columns:
                raise InputError(f"{source.path!r} has no column {name!r} ({option}): it has {sorted(columns)}")


def repeated(digests: np.ndarray) -> np.ndarray:
    """Return the numbers of rows whose key an earlier row has, ascending."""
    _, first = np.unique(digests, return_index=True)
    is_repeat = np.ones(len(digests), bool)
    is_repeat[first] = False
    return np.flatnonzero(is_repeat)


def sample_id(source: str, key: str) -> str:
    """Return what a sample is known by: 16 hex digits of sha256 over the source's name, NUL, and the row's key."""
    return hashlib.sha256(f"{source}\0{key}".encode()).hexdigest()[:16]


def is_of_sample(row: Mapping[str, Any], sample: Mapping[str, Any]) -> bool:
    """Return whether a stored row, which may be a clip of it, is of the sample that was read in its place."""
    return row["sample_id"].partition("-")[0] == sample["sample_id"]


def check_sample(row: Mapping[str, Any], sample: Mapping[str, Any], source: SourceConfig) -> None:
    """Raises an `InputError` where another sample was read in the place of a stored row: pairs would be wrong."""
    if not is_of_sample(row, sample):
        raise InputError(
            f"{source.path} has changed: {sample['key']!r} stands where {row['key']!r} was when the run began; "
            "begin another run"
        )


def _numbered(
    rows: Rows | RowStream, unit: int, start: int, stop: int | None, wanted: Collection[int] | None
) -> Iterator[tuple[int, dict[str, Any] | BadRowError]]:
    if isinstance(rows, RowStream):
        values: Iterable[Any] = rows.read_shard(unit, start)
        for position, row in enumerate(values):
            if stop is not None and position >= stop - start:
                return
            if wanted is None or position in wanted:
                yield position, row
        return
    stop = len(rows) if stop is None else min(stop, len(rows))
    for position in range(stop - start):
        if wanted is None or position in wanted:
            try:
                yield position, rows[start + position]
            except BadRowError as error:
                yield position, error


def _sample(
    row: dict[str, Any] | BadRowError, opened: OpenSource, source: SourceConfig, *, number: str, unit: int | None
) -> dict[str, Any]:
    """A row as a sample, without its id."""
    empty: dict[str, Any] = dict.fromkeys(
        ("source_uri", "raw_caption", "license", "opt_out", "fault", "fault_detail", "media")
    )
    empty |= {"key": number, "raw_captions": []}
    if isinstance(row, BadRowError):
        return empty | {"fault": row.reason, "fault_detail": row.detail or None}
    column, path = _path_of(row, opened)
    value = row.get(column)
    captions = _captions(row, opened, source, column)
    sample = empty | {
        "key": _key(row, source, opened.root, path, number=number, unit=unit),
        "raw_captions": captions,
        "raw_caption": captions[0] if captions else None,
        "license": _first_text(row, (source.license_column,) if source.license_column else LICENSE_COLUMNS),
        "opt_out": _is_true(row, (source.opt_out_column,) if source.opt_out_column else OPT_OUT_COLUMNS),
    }
    sample["source_uri"] = row["url"] if isinstance(row.get("url"), str) else f"{source.path}#{sample['key']}"
    try:
        media = find_media(value, source.kind, root=opened.root, is_confined=not source.allow_outside)
    except BadRowError as error:
        return sample | {"fault": error.reason, "fault_detail": error.detail or None}
    if isinstance(media, Path) and not isinstance(row.get("url"), str):
        sample["source_uri"] = str(media)
    return sample | {"media": _plain_media(media)}


def _path_of(row: dict[str, Any], opened: OpenSource) -> tuple[str, Any]:
    """The column of a row's media, and the path in it, or whatever else stands there."""
    column = next((name for name in opened.media_columns if row.get(name)), opened.media_columns[0])
    value = row.get(column)
    return column, value.get("path") if isinstance(value, dict) else value


def _plain_media(media: Any) -> bytes | str:
    if isinstance(media, ShapesPicture):
        media = media.render()
    if isinstance(media, Image.Image):
        buffer = io.BytesIO()
        media.save(buffer, format="PNG")
        return buffer.getvalue()
    return media if isinstance(media, bytes) else str(media)


def _key(
    row: dict[str, Any], source: SourceConfig, root: Path | None, path: Any, *, number: str, unit: int | None
) -> str:
    key = _raw_key(row, source, root, path, number=number, unit=unit)
    # names of files that are no UTF-8 must stay different
    return key.encode("utf-8", "backslashreplace").decode()


def _raw_key(
    row: dict[str, Any], source: SourceConfig, root: Path | None, path: Any, *, number: str, unit: int | None
) -> str:
    if source.key_column is not None and row.get(source.key_column) is not None:
        key = str(row[source.key_column])
        return key if unit is None else f"{unit}/{key}"
    if "__key__" in row:
        # keys of different tars may be the same
        return f"{unit or 0}/{row['__key__']}"
    if isinstance(path, str) and path and unit is None:
        file = Path(path)
        if root is not None and file.is_absolute() and file.is_relative_to(root.absolute()):
            file = file.relative_to(root.absolute())
        return file.as_posix()
    return number


def _captions(row: dict[str, Any], opened: OpenSource, source: SourceConfig, media_column: str) -> list[str]:
    """The row's own captions, with single spaces, none empty and none twice."""
    usual = next((name for name in CAPTION_COLUMNS if name in row and name != media_column), None)
    names = source.caption_columns or ((usual,) if usual else ())
    texts: dict[str, None] = {}
    for name in names:
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and name in opened.class_names:
            names_of_classes = opened.class_names[name]
            # -1 says that there is no label
            value = names_of_classes[value].replace("_", " ") if 0 <= value < len(names_of_classes) else None
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, bytes):
                text = text.decode("utf-8", errors="replace")
            if isinstance(text, str) and is_visible(text):
                texts[" ".join(text.split())] = None
    return list(texts)


def _first_text(row: dict[str, Any], names: Iterable[str]) -> str | None:
    for name in names:
        value = row.get(name)
        if value is not None:
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return None


def _is_true(row: dict[str, Any], names: Iterable[str]) -> bool:
    for name in names:
        value = row.get(name)
        if value is not None:
            return value.strip().lower() not in FALSE_WORDS if isinstance(value, str) else bool(value)
    return False
