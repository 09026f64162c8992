# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables on disk: typed columns, equal bytes for equal rows, and files that appear complete or not at all."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


VERDICT = pa.struct({"grounded": pa.bool_(), "hallucinated_phrases": pa.list_(pa.string()), "quality": pa.float64()})
FULL_VERDICT = pa.struct({"verifier": pa.string(), **{field.name: field.type for field in VERDICT}})
FAILURE = pa.struct(
    {
        **{name: pa.string() for name in ("model", "style", "kind", "detail")},
        "num_tries": pa.int64(),
        "passing": pa.bool_(),
    }
)
COUNTS = ("num_calls", "num_recorded", "num_retries", "num_failures", "prompt_tokens", "completion_tokens")
USAGE = pa.struct({**{name: pa.int64() for name in COUNTS}, "cost": pa.float64()})
CANDIDATE = pa.struct(
    {
        "text": pa.string(),
        "origin": pa.string(),
        "copied_from": pa.string(),
        "captioner": pa.string(),
        "captioner_revision": pa.string(),
        "style": pa.string(),
        "prompt_hash": pa.string(),
        "parameters_hash": pa.string(),
        "seed": pa.int64(),
        "finish_reason": pa.string(),
        "prompt_tokens": pa.int64(),
        "completion_tokens": pa.int64(),
        "latency": pa.float64(),
        "num_words": pa.int64(),
        "noun_ratio": pa.float64(),
        "flags": pa.list_(pa.string()),
        "verdict": VERDICT,
        "verdicts": pa.list_(FULL_VERDICT),
        "verifier": pa.string(),
        "entropy": pa.float64(),
        "text_quality": pa.float64(),
        "alignment": pa.float64(),
        "ambiguity": pa.float64(),
        "overall": pa.float64(),
        "rank": pa.int64(),
    }
)
COPIED_CAPTION = pa.struct({"text": pa.string(), "sample_id": pa.string()})
BOX = pa.struct(
    {
        "phrase": pa.string(),
        "score": pa.float64(),
        **{corner: pa.float64() for corner in ("x0", "y0", "x1", "y1")},
    }
)
# columns that may be None in a whole shard, so that their type cannot be told by looking
TYPES = {
    "sample_id": pa.string(),
    "position": pa.int64(),
    "source": pa.string(),
    "key": pa.string(),
    "source_uri": pa.string(),
    "raw_caption": pa.string(),
    "raw_captions": pa.list_(pa.string()),
    "license": pa.string(),
    "opt_out": pa.bool_(),
    "fault": pa.string(),
    "fault_detail": pa.string(),
    "sha256": pa.string(),
    "phash": pa.string(),
    "dhash": pa.string(),
    "thumbnail": pa.string(),
    "width": pa.int64(),
    "height": pa.int64(),
    "start_ms": pa.int64(),
    "end_ms": pa.int64(),
    "dup_of": pa.string(),
    "dup_kind": pa.string(),
    "copied_captions": pa.list_(COPIED_CAPTION),
    "candidates": pa.list_(CANDIDATE),
    "phrases": pa.list_(pa.string()),
    "boxes": pa.list_(BOX),
    **{f"{stage}_failures": pa.list_(FAILURE) for stage in ("caption", "verification")},
    **{f"{stage}_usage": USAGE for stage in ("caption", "verification")},
    "grounding_recall": pa.float64(),
    "error": pa.string(),
    "attempts": pa.int64(),
    "input_digest": pa.string(),
}


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | pa.Schema) -> pa.Table:
    """Return rows as a table.

    Args:
        rows: what they lack is null.
        columns: names and types; or names alone, whose types are in `TYPES` or told by looking. A column of nothing
            but None is one of numbers then.

    Raises:
        TypeError: a candidate, box or verdict has a key that its type does not have, which would be lost.
    """
    known = {field.name: field.type for field in columns} if isinstance(columns, pa.Schema) else TYPES
    names = columns.names if isinstance(columns, pa.Schema) else columns
    arrays = []
    for name in names:
        values = [_plain(row.get(name)) for row in rows]
        if name in known:
            _check_keys(values, known[name], name)
            arrays.append(pa.array(values, type=known[name]))
            continue
        array = pa.array(values)
        arrays.append(array.cast(pa.float64()) if pa.types.is_null(array.type) else array)
    return pa.table(dict(zip(names, arrays, strict=True)))


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows of a parquet file as plain values."""
    return pq.read_table(path, columns=columns, use_threads=False, memory_map=False).to_pylist()


def metadata_of(path: Path) -> dict[str, str]:
    """Return the texts that were written beside a table's schema."""
    found = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in found.items()}


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, str] | None = None) -> None:
    """Write a table, complete or not at all; equal tables give equal bytes."""
    write_tables(path, [table], table.schema, metadata)


def write_tables(
    path: Path, tables: Iterable[pa.Table], schema: pa.Schema, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tables as the row groups of one file, complete or not at all, one in memory at a time."""
    schema = schema.with_metadata({key.encode(): value.encode() for key, value in (metadata or {}).items()})
    with written_file(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for table in tables:
            # a group for each table, even an empty one, so that groups can be asked for by number
            writer.write_table(table.cast(schema), row_group_size=max(1, len(table)))


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, complete or not at all."""
    with written_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, None where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


@contextmanager
def written_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to write; it is on disk and takes the name when the block ends, and vanishes when that
    fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def digest_of(value: Any) -> str:
    """Return 16 hex digits of sha256 over plain values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return 16 hex digits of sha256 over a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def file_state(path: str | Path) -> list[int] | None:
    """Return a file's bytes and the nanosecond of its last change, None where there is none: cheap for large files."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as what pyarrow takes inside nested values."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return list(value)
    return value


def _check_keys(values: Iterable[Any], wanted: pa.DataType, name: str) -> None:
    if pa.types.is_list(wanted) and pa.types.is_struct(wanted.value_type):
        known = {field.name for field in wanted.value_type}
        for value in values:
            for entry in value if value is not None else ():
                if not known.issuperset(entry):
                    raise TypeError(f"{name} has the keys {sorted(set(entry) - known)}, which would not be stored")
