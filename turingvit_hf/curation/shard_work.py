# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""One stage of one shard: what engines run, in any process and any number of times, with the same result."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.rows import check_sample, read_samples
from turingvit_hf.curation.stages import STAGES, Stage, enabled_stages
from turingvit_hf.curation.state import EARLIER_CALLS, RunFolder, source_name
from turingvit_hf.curation.steps.base import Step
from turingvit_hf.curation.stored import KEPT_ABOUT, StoredRows, count_rows, input_hash, live_rows, store_rows
from turingvit_hf.curation.tables import (
    digest_of,
    read_rows,
    write_json,
)
from turingvit_hf.errors import InputError


# columns that the reader gives and the first stage stores
LISTED = (
    "sample_id",
    "position",
    "source",
    "key",
    "source_uri",
    "raw_caption",
    "raw_captions",
    "license",
    "opt_out",
    "fault",
    "fault_detail",
)
# of these what the source says now, beside measurements that are kept: a row may have moved and have other captions
READ_ANEW = tuple(name for name in LISTED if name not in ("sample_id", "fault", "fault_detail"))
# steps of a process, with the models that they have loaded, by run folder, stage and config
_steps: dict[tuple[str, str, str], list[Step]] = {}


@dataclass(frozen=True)
class Task:
    """One stage of one shard.

    Attributes:
        folder: of the run.
        stage: its name.
        shard: its number.
        retry: whether rows that ended as errors are tried again, as often as the config allows.
    """

    folder: str
    stage: str
    shard: int
    retry: bool = False


def run_task(task: Task) -> dict[str, Any]:
    """Do one stage of one shard, store what comes of it, and return its manifest.

    Rows whose input and config have not changed keep what was stored before, beside what their source says now.

    Raises:
        InputError: the run as a whole is at fault, not a row.
    """
    started = time.perf_counter()
    run, stage = RunFolder(task.folder), STAGES[task.stage]
    config = run.config
    stage_hash, hash_before = stage.hash(config), input_hash(run, stage, task.shard)
    before = run.manifest(stage.name, task.shard)
    hashes = {"stage_hash": stage_hash, "input_hash": hash_before}
    if before is not None and not task.retry and all(before[name] == value for name, value in hashes.items()):
        # only what rows are dropped by has changed; the source is not even opened
        rows = read_rows(run.shard_file(task.shard, f"{stage.name}.parquet"))
        manifest = before | count_rows(run, stage, task.shard, rows)
        write_json(run.shard_file(task.shard, f"{stage.name}.json"), manifest)
        return manifest
    journal = Journal(run.shard_file(task.shard, "calls.jsonl"), earlier=run.path / EARLIER_CALLS)
    steps = _steps_of(task.folder, stage, run)
    for step in steps:
        step.journal = journal
    known = StoredRows(run, stage, task.shard, stage_hash)
    limit = config.max_attempts if task.retry else 0
    rows = []
    inputs = _inputs(run, stage, task.shard)
    num_fresh = num_reused = 0
    while batch := list(islice(inputs, stage.batch_size(config))):
        for row in batch:
            row["input_digest"] = _digest(row, steps)
        done = [_read_anew(row, known.find(row, limit)) for row in batch]
        fresh = [row for row, result in zip(batch, done, strict=True) if result is None]
        results = iter(_apply(steps, fresh, known))
        for result in done:
            rows += list(_exploded(next(results), stage.explodes)) if result is None else result
        num_fresh += len(fresh)
        num_reused += len(batch) - len(fresh)
    # a manifest never stands beside a table that it was not made for
    run.shard_file(task.shard, f"{stage.name}.json").unlink(missing_ok=True)
    facts = stage.facts(steps) if num_fresh else known.facts
    store_rows(run, stage, task.shard, rows, {"stage_hash": stage_hash, "facts": json.dumps(facts)})
    manifest = count_rows(run, stage, task.shard, rows) | {
        "facts": facts,
        **hashes,
        "reused": num_reused,
        "answers": journal.num_added,
        "seconds": round(time.perf_counter() - started, 3),
    }
    write_json(run.shard_file(task.shard, f"{stage.name}.json"), manifest)
    return manifest


def _inputs(run: RunFolder, stage: Stage, shard: int) -> Iterator[dict[str, Any]]:
    """The rows that a stage works on, with their media if it needs that."""
    entry = run.shards[shard]
    source = run.config.sources[entry.source]
    stretch = {
        "name": source_name(run.config, entry.source),
        "listing": run.listing_of(entry),
        "unit": entry.unit,
        "start": entry.start,
        "stop": entry.stop,
        "repeats": entry.repeats,
    }
    if stage.name == enabled_stages(run.config)[0].name:
        threshold = int(run.config.sample * 16**8)
        num_rows = 0
        for row in read_samples(source, **stretch):
            num_rows += 1
            if int(row["sample_id"][:8], 16) < threshold:
                yield row
        if entry.stop is not None and num_rows != entry.stop - entry.start:
            raise InputError(
                f"{source.path} has changed: {num_rows} of the {entry.stop - entry.start} rows of shard {shard} are "
                "left; begin another run"
            )
        return
    rows = live_rows(run, stage, shard)
    if not stage.needs_media(run.config):
        yield from rows
        return
    by_position: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_position.setdefault(row["position"], []).append(row)
    for sample in read_samples(source, wanted=by_position.keys(), **stretch):
        for row in by_position[sample["position"]]:
            check_sample(row, sample, source)
            yield row | {"media": sample["media"]}


def _apply(steps: Sequence[Step], rows: list[dict[str, Any]], known: StoredRows) -> list[dict[str, Any]]:
    """Run the steps over a batch and return what is stored of each row."""
    # the first stage stores what the reader gives as well
    stored = LISTED if rows and _is_of_source(rows[0]) else ("sample_id",)
    results = [{name: row.get(name) for name in stored} for row in rows]
    open_rows = list(range(len(rows)))
    values = [dict(row) for row in rows]
    for step in steps:
        # a row with a fault has nothing to be measured by later steps, yet its columns must be there
        batch = {name: [values[index].get(name) for index in open_rows] for name in _columns(values, step)}
        if not open_rows:
            break
        for name, column in step(batch).items():
            assert len(column) == len(open_rows), f"{step.name}: {name} has {len(column)} of {len(open_rows)} values"
            for index, value in zip(open_rows, column, strict=True):
                values[index][name] = value
                if name not in step.drafts:
                    results[index][name] = value
        open_rows = [index for index in open_rows if results[index].get("error") is None]
    for row, result in zip(rows, results, strict=True):
        result["error"] = result.get("error")
        result["attempts"] = known.attempts(row) + 1
        result["input_digest"] = row["input_digest"]
    return results


def _columns(values: list[dict[str, Any]], step: Step) -> list[str]:
    """The columns of a batch: all that rows have, and those that a step reads whether they are there or not."""
    names: dict[str, None] = dict.fromkeys(step.reads)
    for row in values:
        names.update(dict.fromkeys(row))
    return [name for name in names if name not in ("errors", "stages", *KEPT_ABOUT)]


def _digest(row: dict[str, Any], steps: Sequence[Step]) -> str:
    """What a row's result depends on: its media, and the stored columns that the steps read."""
    names = {name for step in steps for name in step.reads} - {"error"}
    if _is_of_source(row):
        media = row["media"]
        if isinstance(media, str):
            media = os.fsencode(media)  # a name may be no UTF-8
        content = None if media is None else hashlib.sha256(media).hexdigest()
        return digest_of({name: row[name] for name in ("sample_id", "fault", "fault_detail")} | {"media": content})
    if not names.isdisjoint(("media", "image")):
        names.add("sha256")
    names -= {"media", "image"}
    return digest_of({name: row[name] for name in sorted(names) if name in row} | {"sample_id": row["sample_id"]})


def _is_of_source(row: dict[str, Any]) -> bool:
    """Whether a row comes from the reader, and not out of what an earlier stage stored."""
    return "errors" not in row


def _read_anew(row: dict[str, Any], found: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """What is stored of a row, with what its source says of it now."""
    if found is None or not _is_of_source(row):
        return found
    return [part | {name: row[name] for name in READ_ANEW} for part in found]


def _exploded(row: dict[str, Any], column: str | None) -> Iterator[dict[str, Any]]:
    """A row for each element of a list, which brings columns of its own; the row itself where there are none."""
    parts = row.pop(column, None) or () if column is not None else ()
    if not parts:
        yield row
    for part in parts:
        yield row | part | {"sample_id": f"{row['sample_id']}-{part['start_ms']}-{part['end_ms']}"}


def _steps_of(folder: str, stage: Stage, run: RunFolder) -> list[Step]:
    """The steps of a stage, whose models stay loaded as long as the process lives."""
    key = (folder, stage.name, stage.hash(run.config))
    if key not in _steps:
        _steps.clear()  # one stage at a time: models of the one before need not stay
        _steps[key] = stage.steps(run.config)
    return _steps[key]
