# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What stages have stored: whether it still holds, which rows live on, and how it is written and counted."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from turingvit_hf.curation.decisions import decide
from turingvit_hf.curation.stages import Stage, enabled_stages
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.tables import (
    digest_of,
    file_digest,
    file_state,
    metadata_of,
    read_rows,
    table_of,
    write_table,
)


# columns that every stage stores about its own work
KEPT_ABOUT = ("error", "attempts", "input_digest")


def is_current(run: RunFolder, stage: Stage, shard: int | None) -> bool:
    """Return whether what is stored of a stage is what the run's config, the stages before it and the lists of known
    pictures give. A list that is gone by now is taken to be as it was."""
    manifest = run.manifest(stage.name, shard)
    return (
        manifest is not None
        and manifest["stage_hash"] == stage.hash(run.config)
        and manifest["decisions_hash"] == stage.decisions_hash(run.config)
        and manifest["input_hash"] == input_hash(run, stage, shard)
        and all(file_state(file) in (None, was) for file, was in manifest["facts"].get("known_files", {}).items())
    )


def input_hash(run: RunFolder, stage: Stage, shard: int | None) -> str:
    """Return the hash of all that a stage reads: what earlier stages stored, and what rows are dropped by."""
    parts: list[Any] = []
    numbers = [entry.number for entry in run.shards] if shard is None else [shard]
    for earlier in enabled_stages(run.config):
        if earlier.name == stage.name:
            break
        parts.append(earlier.decisions_hash(run.config))
        for number in [None] if earlier.is_whole else numbers:
            manifest = run.manifest(earlier.name, number)
            parts.append([earlier.name, number, manifest["output_digest"] if manifest else None])
    if not parts:  # the first stage reads the source
        parts += [run.config.to_dict()["sources"], run.config.sample]
        parts += [entry.to_dict() for entry in run.shards if entry.number in numbers]
    return digest_of(parts)


def count_retriable(run: RunFolder, stage: Stage, shard: int) -> int:
    """Return how many rows of a shard ended as errors and may be tried again, as often as the config allows now."""
    manifest = run.manifest(stage.name, shard)
    if manifest is None or not manifest["errors"]:
        return 0
    rows = read_rows(run.shard_file(shard, f"{stage.name}.parquet"), ["error", "attempts"])
    return sum(row["error"] is not None and row["attempts"] < run.config.max_attempts for row in rows)


class StoredRows:
    """What an earlier run stored of a stage of a shard: of each row that the stage was given one row, or several where
    the stage takes rows apart."""

    def __init__(self, run: RunFolder, stage: Stage, shard: int, stage_hash: str):
        path = run.shard_file(shard, f"{stage.name}.parquet")
        is_usable = path.is_file() and metadata_of(path).get("stage_hash") == stage_hash
        rows = read_rows(path) if is_usable else []
        self.facts = json.loads(metadata_of(path).get("facts", "{}")) if is_usable else {}
        if is_usable and stage.vectors:
            for row, vectors in zip(rows, read_rows(vectors_file(path)), strict=True):
                row.update(vectors)
        # the digest of a row that the stage was given has its id in it
        self._by_input: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            self._by_input.setdefault(row["input_digest"], []).append(row)

    def find(self, row: dict[str, Any], limit: int) -> list[dict[str, Any]] | None:
        """What is stored of a row; None if there is nothing made from this input, or it is to be tried again."""
        found = self._by_input.get(row["input_digest"])
        if found is None or any(part["error"] is not None and part["attempts"] < limit for part in found):
            return None
        return found

    def attempts(self, row: dict[str, Any]) -> int:
        """How often this row, with this input, was tried before."""
        return max((part["attempts"] for part in self._by_input.get(row["input_digest"], ())), default=0)


def live_rows(run: RunFolder, stage: Stage, shard: int) -> list[dict[str, Any]]:
    """Return the rows of a shard that reach a stage: neither dropped nor errors before it, with all stored columns."""
    thresholds = run.config.thresholds
    rows = run.read_shard(shard, before=stage.name)
    return [row for row in rows if not row["errors"] and decide(row, thresholds) is None]


def store_rows(run: RunFolder, stage: Stage, shard: int, rows: list[dict[str, Any]], metadata: dict[str, str]) -> None:
    """Write the rows of a stage of a shard, vectors into a file of their own."""
    path = run.shard_file(shard, f"{stage.name}.parquet")
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    columns = [name for name in names if name not in (*stage.vectors, *KEPT_ABOUT)] or ["sample_id"]
    if stage.vectors:
        # before the table that tells whether both are there
        write_table(vectors_file(path), vector_table(rows, stage.vectors), metadata)
    write_table(path, table_of(rows, [*columns, *KEPT_ABOUT]), metadata)


def vectors_file(path: Path) -> Path:
    """Return the file of a stage's vectors, beside its table."""
    return path.with_suffix(".vectors.parquet")


def vector_table(rows: list[dict[str, Any]], columns: Sequence[str]) -> pa.Table:
    """Return arrays of half precision as a table: a vector, or a list of vectors, a row."""
    arrays = {}
    for name in columns:
        values = [row.get(name) for row in rows]
        is_nested = any(value is not None and np.ndim(value) != 1 for value in values)
        is_nested = is_nested or name == "candidate_embeddings"
        vector = pa.list_(pa.float16())
        cells = [
            None
            if value is None
            else [np.asarray(part, np.float16) for part in value]
            if is_nested
            else np.asarray(value, np.float16)
            for value in values
        ]
        arrays[name] = pa.array(cells, type=pa.list_(vector) if is_nested else vector)
    return pa.table(arrays)


def count_rows(run: RunFolder, stage: Stage, shard: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a stage made of a shard, counted: rows = kept + dropped + errors."""
    thresholds, limit = run.config.thresholds, run.config.max_attempts
    dropped: Counter[str] = Counter()
    usage: Counter[str] = Counter()
    num_errors = num_retriable = 0
    stored = {row["sample_id"]: row for row in run.read_shard(shard, before=stage.name)}
    for row in rows:
        for name, values in row.items():
            if name.endswith("_usage") and values:
                usage.update({key: value for key, value in values.items() if value})
        drop = decide(stored.get(row["sample_id"], {}) | row, thresholds)
        if drop is not None:
            dropped[drop.reason] += 1
        elif row["error"] is not None:
            num_errors += 1
            num_retriable += row["attempts"] < limit
    return {
        "stage": stage.name,
        "shard": shard,
        "rows": len(rows),
        "kept": len(rows) - dropped.total() - num_errors,
        "dropped": dict(sorted(dropped.items())),
        "errors": num_errors,
        "retriable": num_retriable,
        "usage": dict(usage),
        "decisions_hash": stage.decisions_hash(run.config),
        "output_digest": file_digest(run.shard_file(shard, f"{stage.name}.parquet")),
    }
