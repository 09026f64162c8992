# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Inputs cut into shards, which are the units of work."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turingvit_hf.curation.config import CurationConfig, SourceConfig
from turingvit_hf.curation.listing import list_folder
from turingvit_hf.curation.rows import OpenSource, forget_sources, key_digests, open_curated, recipe_of, repeated
from turingvit_hf.data.parquet_stream import ParquetStream
from turingvit_hf.data.rows import TarRows
from turingvit_hf.data.sources import open_source
from turingvit_hf.data.streams import RowStream
from turingvit_hf.errors import InputError


@dataclass(frozen=True)
class Shard:
    """A stretch of a source.

    Attributes:
        number: of the shard in the run.
        source: number of the source in the config.
        unit: which shard of a stream; 0 for rows by index.
        start, stop: its rows in the unit; `stop` None: to the end.
        listing: file of the run folder that holds the source's listing, None where it is read in place.
        repeats: positions of rows, counted from `start`, whose key an earlier row of the source has.
        keys: digest of its rows' keys in their order, which tells when rows have moved; empty of streams.
    """

    number: int
    source: int
    unit: int
    start: int
    stop: int | None
    listing: str | None = None
    repeats: tuple[int, ...] = ()
    keys: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The shard as plain values."""
        return dataclasses.asdict(self)


def list_shards(config: CurationConfig, folder: Path) -> tuple[list[Shard], list[int | None]]:
    """Return the shards of all sources, and how many rows each source has as far as that is known without reading.

    A folder that has no `metadata.jsonl` is listed into `folder`, which becomes the run's `sources`, so that files
    which come or go later shift no rows.

    Raises:
        InputError: a source cannot be opened, or has no rows.
    """
    forget_sources()
    shards: list[Shard] = []
    counts: list[int | None] = []
    left = config.limit
    for number, source in enumerate(config.sources):
        if left is not None and left <= 0:
            counts.append(0)
            continue
        listing = list_folder(source, folder / f"{number:02d}.jsonl")
        opened = open_curated(source, listing)
        bounds = [bound for bound in (source.max_samples, left) if bound is not None]
        stretches = list(_stretches(opened, source, config.shard_size, min(bounds, default=None)))
        if not stretches:
            raise InputError(f"{source.path!r} has no rows")
        digests = key_digests(source, listing)
        repeats = repeated(digests)
        for unit, start, stop in stretches:
            within = tuple(int(row) - start for row in repeats if start <= row < (stop or 0))
            place = None if listing is None else f"sources/{number:02d}.jsonl"
            keys = hashlib.sha256(digests[start:stop].tobytes()).hexdigest()[:16] if len(digests) else ""
            shards.append(Shard(len(shards), number, unit, start, stop, place, within, keys))
        is_known = all(stop is not None for _, _, stop in stretches)
        counts.append(sum(stop - start for _, start, stop in stretches if stop is not None) if is_known else None)
        if left is not None:
            left -= counts[-1] or 0
    return shards, counts


def count_rows(source: SourceConfig) -> int | None:
    """Return how many rows a stream of local tars has, by their headers; None where those cannot be had."""
    if "://" in source.path:
        return None
    try:
        recipe = dataclasses.replace(recipe_of(source), streaming=False)
        rows = open_source(recipe, captions=False).rows if recipe.format in ("auto", "webdataset") else None
    except InputError:
        return None
    return len(rows) if isinstance(rows, TarRows) else None


def _stretches(
    opened: OpenSource, source: SourceConfig, size: int, wanted: int | None
) -> Iterator[tuple[int, int, int | None]]:
    """Yield (unit, start, stop) of each shard: of streams a tar or file, cut where its length is known."""
    rows = opened.rows
    if not isinstance(rows, RowStream):
        lengths: list[int | None] = [len(rows)]
    else:
        is_here = isinstance(rows, ParquetStream) and "://" not in source.path
        lengths = [rows.num_rows(unit) if is_here else None for unit in range(rows.num_shards)]
    for unit, known in enumerate(lengths):
        if wanted is not None and wanted <= 0:
            return
        length = known
        if length is None and wanted is not None and isinstance(rows, RowStream):
            length = sum(1 for _ in itertools.islice(rows.read_shard(unit, 0), wanted))
        if length is None:
            yield unit, 0, None
            continue
        if wanted is not None:
            length = min(length, wanted)
            wanted -= length
        for start in range(0, length, size):
            yield unit, start, min(start + size, length)
