# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The stage `deduplicate`: over the whole table, from stored hashes."""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from turingvit_hf.curation.deduplication import Duplicate, find_duplicates, preference
from turingvit_hf.curation.picture_hashes import WIDTHS, PictureHashes
from turingvit_hf.curation.stages import STAGES, enabled_stages
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.stored import live_rows
from turingvit_hf.curation.tables import file_state, read_rows
from turingvit_hf.errors import InputError


def duplicate_rows(run: RunFolder) -> tuple[Iterator[list[dict[str, Any]]], dict[str, Any]]:
    """Return the rows of each shard with `dup_of`, `dup_kind` and `dup_distance`, and `known` and `known_files`: how
    many pictures were known, and the state of the files that list them.

    Of duplicates the largest picture is kept, then the sharpest, then the first by sample id: no model has seen them
    yet, and none shall be asked about every copy. What is better said of a copy is not lost: rows that are kept have
    their copies' captions in `copied_captions`.

    Raises:
        InputError: what `deduplicate.against` names cannot be read.
    """
    pixels, sharpness, counts = array("d"), array("d"), array("q")

    def rows_to_hash() -> Iterator[dict[str, Any]]:
        for shard in run.shards:
            rows = live_rows(run, STAGES["deduplicate"], shard.number)
            counts.append(len(rows))
            for row in rows:
                pixels.append((row.get("width") or 0) * (row.get("height") or 0))
                sharpness.append(row.get("smooth_laplacian") or 0.0)
                yield row

    pictures = PictureHashes.of_rows(rows_to_hash())
    ids = pictures.sample_ids
    section = run.config.deduplicate
    known_files = {str(file): file_state(file) for file in map(_list_in, section.against)}
    known = _known(section.against)
    order = preference(pixels, sharpness, ids)
    found = find_duplicates(
        pictures,
        order,
        run.config.thresholds.duplicates,
        exact=section.exact,
        near=section.near,
        known=known,
    )
    copies = [(ids[row], duplicate.of) for row in order if (duplicate := found[row]) and duplicate.kind != "known"]
    copied = _copied_captions(run, copies, section.max_copied_captions)

    def rows_of_shards() -> Iterator[list[dict[str, Any]]]:
        start = 0
        for count in counts:
            stretch = slice(start, start + count)
            yield [
                {"sample_id": sample_id, "copied_captions": copied.get(sample_id)} | duplicate_columns(duplicate)
                for sample_id, duplicate in zip(ids[stretch], found[stretch], strict=True)
            ]
            start += count

    facts = {"known": len(known.sample_ids) if known is not None else 0, "known_files": known_files}
    return rows_of_shards(), facts


def duplicate_columns(duplicate: Duplicate | None) -> dict[str, Any]:
    """Return the columns that tell what a row is a duplicate of."""
    if duplicate is None:
        return {"dup_of": None, "dup_kind": None, "dup_distance": None}
    return {"dup_of": duplicate.of, "dup_kind": duplicate.kind, "dup_distance": float(duplicate.distance)}


def _copied_captions(run: RunFolder, copies: Sequence[tuple[str, str]], most: int) -> dict[str, list[dict[str, str]]]:
    """The different captions of each kept row's copies, with the id of the copy that each was first seen at.

    Args:
        run: the run.
        copies: (id of a copy, id of the row that is kept), the copy that comes first first.
        most: captions that a kept row takes over.
    """
    wanted = {copy for copy, _ in copies}
    first = enabled_stages(run.config)[0].name
    captions: dict[str, list[str]] = {}
    kept: dict[str, list[str]] = {}
    survivors = {survivor for _, survivor in copies}
    # only of those, and only these columns: captions of all rows would not fit into memory
    for shard in run.shards if wanted and most else ():
        for row in read_rows(run.shard_file(shard.number, f"{first}.parquet"), ["sample_id", "raw_captions"]):
            if row["sample_id"] in wanted:
                captions[row["sample_id"]] = row["raw_captions"] or []
            elif row["sample_id"] in survivors:
                kept[row["sample_id"]] = row["raw_captions"] or []
    found: dict[str, dict[str, str]] = {}
    for copy, survivor in copies:
        of_survivor = found.setdefault(survivor, {})
        for text in captions.get(copy, ()):
            if text not in kept.get(survivor, ()) and len(of_survivor) < most:
                of_survivor.setdefault(text, copy)
    return {
        survivor: [{"text": text, "sample_id": copy} for text, copy in texts.items()]
        for survivor, texts in found.items()
        if texts
    }


def _known(places: tuple[str, ...]) -> PictureHashes | None:
    """The pictures of earlier runs and of lists; rows that an earlier run dropped are none.

    Raises:
        InputError: a list cannot be read, has neither column, or a hash that is none.
    """
    found = []
    for place in places:
        file = _list_in(place)
        try:
            names = pq.read_schema(file).names
            found.append(PictureHashes.of_rows(_listed(Path(place).name, file, names)))
        except (OSError, ValueError) as error:
            raise InputError(f"deduplicate.against: cannot read {file}: {error}") from error
        if "sha256" not in names and "phash" not in names:
            raise InputError(f"deduplicate.against: {file} has neither sha256 nor phash, only {', '.join(names)}")
    if not found:
        return None
    ids = [sample_id for pictures in found for sample_id in pictures.sample_ids]
    return PictureHashes(ids, np.concatenate([pictures.records for pictures in found]))


def _list_in(place: str) -> Path:
    """The file of a list, or of an earlier run's rows."""
    path = Path(place).expanduser()
    return path / "rows.parquet" if path.is_dir() else path


def _listed(name: str, file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a list that were kept, a batch in memory at a time."""
    wanted = [column for column in ("sample_id", "status", *WIDTHS) if column in columns]
    number = 0
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(columns=wanted):
            for row in batch.to_pylist():
                if row.get("status", "kept") == "kept":
                    yield row | {"sample_id": f"{name}/{row.get('sample_id', number)}"}
                number += 1
