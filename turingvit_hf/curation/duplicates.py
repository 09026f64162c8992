# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The stage `deduplicate`: over the whole table, from stored hashes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from turingvit_hf.curation.deduplication import Duplicate, PictureHashes, find_duplicates, preference
from turingvit_hf.curation.stages import STAGES
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.stored import live_rows
from turingvit_hf.errors import InputError


HASHES = ("sha256", "phash", "dhash", "color_grid")


def duplicate_rows(run: RunFolder) -> tuple[Iterator[list[dict[str, Any]]], dict[str, Any]]:
    """Return the rows of each shard with `dup_of`, `dup_kind` and `dup_distance`, and how many pictures were known.

    Of duplicates the largest picture is kept, then the sharpest, then the first by sample id.

    Raises:
        InputError: what `deduplicate.against` names cannot be read.
    """
    ids: list[str] = []
    columns: dict[str, list[str | None]] = {name: [] for name in HASHES}
    pixels: list[float] = []
    sharpness: list[float] = []
    counts: list[int] = []
    for shard in run.shards:
        rows = live_rows(run, STAGES["deduplicate"], shard.number)
        counts.append(len(rows))
        for row in rows:
            ids.append(row["sample_id"])
            for name in HASHES:
                columns[name].append(row.get(name))
            pixels.append((row.get("width") or 0) * (row.get("height") or 0))
            sharpness.append(row.get("smooth_laplacian") or 0.0)
    section = run.config.deduplicate
    known = _known(section.against)
    found = find_duplicates(
        PictureHashes(ids, **columns),
        preference(pixels, sharpness, ids),
        run.config.thresholds.duplicates,
        exact=section.exact,
        near=section.near,
        known=known,
    )

    def rows_of_shards() -> Iterator[list[dict[str, Any]]]:
        start = 0
        for count in counts:
            stretch = slice(start, start + count)
            yield [
                {"sample_id": sample_id} | duplicate_columns(duplicate)
                for sample_id, duplicate in zip(ids[stretch], found[stretch], strict=True)
            ]
            start += count

    return rows_of_shards(), {"known": len(known.sample_ids) if known is not None else 0}


def duplicate_columns(duplicate: Duplicate | None) -> dict[str, Any]:
    """Return the columns that tell what a row is a duplicate of."""
    if duplicate is None:
        return {"dup_of": None, "dup_kind": None, "dup_distance": None}
    return {"dup_of": duplicate.of, "dup_kind": duplicate.kind, "dup_distance": float(duplicate.distance)}


def _known(places: tuple[str, ...]) -> PictureHashes | None:
    """The pictures of earlier runs and of lists; rows that an earlier run dropped are none.

    Raises:
        InputError: a list cannot be read, or has neither column.
    """
    if not places:
        return None
    ids: list[str] = []
    columns: dict[str, list[str | None]] = {name: [] for name in HASHES}
    for place in places:
        path = Path(place).expanduser()
        file = path / "rows.parquet" if path.is_dir() else path
        try:
            names = pq.read_schema(file).names
            wanted = [name for name in ("sample_id", "status", *HASHES) if name in names]
            rows = pq.read_table(file, columns=wanted).to_pylist()
        except (OSError, ValueError) as error:
            raise InputError(f"deduplicate.against: cannot read {file}: {error}") from error
        if "sha256" not in names and "phash" not in names:
            raise InputError(f"deduplicate.against: {file} has neither sha256 nor phash, only {', '.join(names)}")
        for number, row in enumerate(rows):
            if row.get("status", "kept") == "kept":
                ids.append(f"{path.name}/{row.get('sample_id', number)}")
                for name in HASHES:
                    columns[name].append(row.get(name))
    return PictureHashes(ids, **columns)
