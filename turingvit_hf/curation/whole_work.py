# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Stages over the whole table: each a job of its own, stored with one row group a shard."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from turingvit_hf.curation.decisions import decide
from turingvit_hf.curation.duplicates import duplicate_rows
from turingvit_hf.curation.engines import Engine
from turingvit_hf.curation.scoring import score_rows
from turingvit_hf.curation.stages import Stage
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.stored import input_hash
from turingvit_hf.curation.tables import TYPES, file_digest, table_of, write_json, write_tables


NUMBERS = {
    **dict.fromkeys(
        ("dup_distance", "text_quality", "alignment", "ambiguity", "overall", "better_share"), pa.float64()
    ),
    "best": pa.int64(),
    "caption": pa.string(),
}
COLUMNS = {
    "deduplicate": ("sample_id", "dup_of", "dup_kind", "dup_distance", "copied_captions"),
    "score": (
        "sample_id",
        "candidates",
        "best",
        "caption",
        "text_quality",
        "alignment",
        "ambiguity",
        "overall",
        "better_share",
        "dup_of",
        "dup_kind",
        "dup_distance",
    ),
}


def run_whole(run: RunFolder, stage: Stage, engine: Engine) -> dict[str, Any]:
    """Do a stage over the whole table, store what comes of it, and return its manifest."""
    started = time.perf_counter()
    hash_before, stage_hash = input_hash(run, stage, None), stage.hash(run.config)
    shards, facts = duplicate_rows(run) if stage.name == "deduplicate" else score_rows(run, engine)
    schema = pa.schema({name: TYPES.get(name) or NUMBERS[name] for name in COLUMNS[stage.name]})
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()

    def tables() -> Iterator[pa.Table]:
        for rows in shards:
            for row in rows:
                counts["rows"] += 1
                drop = decide(row, run.config.thresholds)
                if drop is not None:
                    dropped[drop.reason] += 1
            yield table_of(rows, schema)

    path = run.whole_file(f"{stage.name}.parquet")
    write_tables(path, tables(), schema, {"stage_hash": stage_hash})
    manifest = {
        "stage": stage.name,
        "shard": None,
        "rows": counts["rows"],
        "kept": counts["rows"] - dropped.total(),
        "dropped": dict(sorted(dropped.items())),
        "errors": 0,
        "retriable": 0,
        "usage": {},
        "facts": facts,
        "output_digest": file_digest(path),
        "stage_hash": stage_hash,
        "decisions_hash": stage.decisions_hash(run.config),
        "input_hash": hash_before,
        "seconds": round(time.perf_counter() - started, 3),
    }
    write_json(run.whole_file(f"{stage.name}.json"), manifest)
    return manifest
