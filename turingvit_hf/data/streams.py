# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows in order: shards that are read front to back, with a position that is a few numbers."""

import gzip
import itertools
import lzma
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import datasets
import fsspec

from turingvit_hf.data.draws import draws
from turingvit_hf.data.rows import Rows, columns_of_tar, iterate_tar, undecoded
from turingvit_hf.errors import BadRowError, InputError


# so many shards a share: one more or less is a difference of at most an eighth
MANY = 8
READ_AHEAD = 16  # rows that `datasets` converts at a time


class Position(NamedTuple):
    """Where the next row of a share comes from.

    Attributes:
        epoch: full passes before this one.
        shard: place in the epoch's order of shards.
        row: rows of that shard that were read.
        seen: rows of the epoch that were read, those of other shares included.
        given: rows of the epoch that were given out.
    """

    epoch: int = 0
    shard: int = 0
    row: int = 0
    seen: int = 0
    given: int = 0


class RowStream(ABC):
    """Shards of rows. A share of 1/n reads every n-th shard, or every n-th row where shards would not divide evenly.

    They do where n divides their number or there are at least `MANY` times n.

    Args:
        num_shards: how many.
        columns: their columns.
        max_rows: read no more rows than these, from the front; shards then keep their order and all shares read them.
    """

    def __init__(self, num_shards: int, columns: Sequence[str], max_rows: int | None):
        self.num_shards = num_shards
        self.columns = tuple(columns)
        self.max_rows = max_rows

    @abstractmethod
    def read_shard(self, shard: int, start: int) -> Iterator[dict[str, Any] | BadRowError]:
        """Yield the rows of a shard from number `start` on."""

    def iterate(
        self, position: Position, *, index: int, num_shares: int, seed: int
    ) -> Iterator[tuple[dict[str, Any] | BadRowError, str, Position]]:
        """Yield (row, its name, position after it) of share `index` from `position` to the end of that epoch.

        Shards come in an order drawn for each epoch.
        """
        epoch, first, row, seen, given = position
        order = list(range(self.num_shards))
        is_even = self.num_shards % num_shares == 0 or self.num_shards >= MANY * num_shares
        by_shards = is_even and self.max_rows is None
        if self.max_rows is None:
            draws("shards", seed, epoch).shuffle(order)
        if by_shards:
            order = order[index::num_shares]
        for number in range(first, len(order)):
            for value in self.read_shard(order[number], row):
                if self.max_rows is not None and seen >= self.max_rows:
                    return
                name = f"{order[number]}:{row}"
                row, seen = row + 1, seen + 1
                if by_shards or (seen - 1) % num_shares == index:
                    given += 1
                    yield value, name, Position(epoch, number, row, seen, given)
            row = 0


class DatasetStream(RowStream):
    """A streamed `datasets.IterableDataset`."""

    def __init__(self, dataset: datasets.IterableDataset, max_rows: int | None, *, path: str):
        dataset = undecoded(dataset)
        self._path = path
        columns = dataset.column_names or tuple(next(iter(dataset), {}))
        super().__init__(dataset.num_shards, columns, max_rows)
        self._dataset = dataset

    def read_shard(self, shard: int, start: int) -> Iterator[dict[str, Any] | BadRowError]:
        """Yield the rows of a shard from number `start` on.

        Raises:
            InputError: the shard is damaged or cannot be reached.
        """
        rows = self._dataset.shard(num_shards=self.num_shards, index=shard).skip(start)
        try:
            # in batches: iterated plainly inside a loader worker, `datasets` would give it a part of the rows only
            for batch in rows.iter(batch_size=READ_AHEAD):
                for values in zip(*batch.values(), strict=True):
                    yield dict(zip(batch, values, strict=True))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read shard {shard} of {self.num_shards} of {self._path}: {error}") from error


class TarStream(RowStream):
    """Tars in WebDataset form, compressed or not, local or at any address that fsspec knows."""

    def __init__(self, paths: Sequence[str], max_rows: int | None):
        self._paths = tuple(paths)
        super().__init__(len(paths), (), max_rows)
        rows = (row for shard in range(len(paths)) for row in self.read_shard(shard, 0))
        first = next(rows, {})
        # no further than it must: the tars may hold terabytes
        row = next((row for row in itertools.chain((first,), rows) if not isinstance(row, BadRowError)), None)
        if row is None:
            raise InputError(f"none of {len(paths)} tars has a sample that can be read: {first}")
        self.columns = columns_of_tar(row)

    def read_shard(self, shard: int, start: int) -> Iterator[dict[str, Any] | BadRowError]:
        """Yield the samples of a tar from number `start` on, and one `BadRowError` for what follows damage.

        Raises:
            InputError: there is no such file, or it cannot be read for a reason that may pass.
        """
        path, num_samples = self._paths[shard], 0
        try:
            opened: Any = fsspec.open(path, "rb")
            with opened as file, tarfile.open(fileobj=file, mode="r|*") as tar:
                for row in iterate_tar(tar, start):
                    num_samples += 1
                    if row is not None:
                        yield row
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            # it counts as a row: whoever goes on behind it does not meet it again
            if start <= num_samples:
                yield BadRowError("rest of a tar cannot be read", f"{path}: {error}")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error}") from error


class RowsInOrder(RowStream):
    """Rows by index, read front to back as one shard."""

    def __init__(self, rows: Rows, max_rows: int | None):
        super().__init__(1, rows.columns, max_rows)
        self._rows = rows

    def read_shard(self, shard: int, start: int) -> Iterator[dict[str, Any] | BadRowError]:
        """Yield the rows from number `start` on."""
        for index in range(start, len(self._rows)):
            try:
                yield self._rows[index]
            except BadRowError as error:
                yield error
