# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Parquet files in order: a row is found by its row group, and stretches that follow each other are read once."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from turingvit_hf.data.streams import RowStream
from turingvit_hf.errors import BadRowError, InputError


# rows are decoded at a time up to so many bytes, and never more than so many rows
BATCH_BYTES, BATCH_ROWS = 8 << 20, 1024
# of a column that are read from a file at a time
READ_BYTES = 1 << 20


class ParquetStream(RowStream):
    """Parquet files, local or at any address that fsspec knows, each a shard; pictures and videos come as stored.

    Args:
        paths: of the files.
        max_rows: read no more rows than these, from the front.
        path: what the user named, for errors.
    """

    def __init__(self, paths: Sequence[str], max_rows: int | None, *, path: str):
        self._paths = tuple(paths)
        self._path = path
        reader = _Reader(self._paths[0])
        super().__init__(len(paths), reader.columns, max_rows)
        self.class_names = reader.class_names
        # whoever reads the next stretch goes on here: a row group has no way to its middle but through its beginning
        self._idle: tuple[int, _Reader] | None = None

    def num_rows(self, shard: int) -> int:
        """Return how many rows a shard has, by what its file says of itself.

        Raises:
            InputError: the file is damaged or cannot be reached.
        """
        try:
            return _Reader(self._paths[shard]).num_rows
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._fault(shard, error) from error

    def read_shard(self, shard: int, start: int) -> Iterator[dict[str, Any] | BadRowError]:
        """Yield the rows of a shard from number `start` on.

        Raises:
            InputError: the shard is damaged or cannot be reached.
        """
        reader = None
        try:
            reader = self._reader(shard, start)
            for row in range(start, reader.num_rows):
                yield reader.row(row)
        except (OSError, ValueError, pa.ArrowException) as error:
            reader = None
            raise self._fault(shard, error) from error
        finally:
            if reader is not None:
                self._idle = os.getpid(), reader

    def _reader(self, shard: int, start: int) -> "_Reader":
        """The reader that was left at an earlier row of this shard, or a new one."""
        idle, self._idle = self._idle, None
        path = self._paths[shard]
        # a process that was forked must not share the place in an open file with its parent
        if idle is not None and idle[0] == os.getpid() and idle[1].can_go_on(path, start):
            return idle[1]
        return _Reader(path)

    def _fault(self, shard: int, error: Exception) -> InputError:
        reason = str(error).strip().partition("\n")[0]
        return InputError(f"cannot read shard {shard} of {self.num_shards} of {self._path}: {reason}")

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; it opens the files itself."""
        return self.__dict__ | {"_idle": None}


class _Reader:
    """One file, read forward: rows of the current batch as often as wanted, those before it no more."""

    def __init__(self, path: str):
        self._path = path
        self._identity = _identity(path)
        opened: Any = fsspec.open(path, "rb") if "://" in path else None
        file = path if opened is None else opened.open()
        # not whole columns of a row group at a time: they may hold gigabytes of pictures
        self._file = pq.ParquetFile(file, pre_buffer=False, buffer_size=READ_BYTES)
        self.columns = tuple(self._file.schema_arrow.names)
        self.num_rows = self._file.metadata.num_rows
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._rows: list[dict[str, Any]] = []
        self._batch: pa.RecordBatch | None = None
        self._first = 0  # row of the file that the batch begins with

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Of columns that hold numbers of classes, their names."""
        features = datasets.Features.from_arrow_schema(self._file.schema_arrow)
        return {name: feature.names for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}

    def can_go_on(self, path: str, row: int) -> bool:
        """Whether a row of a file can be read from here on."""
        return path == self._path and row >= self._first and self._identity == _identity(path)

    def row(self, number: int) -> dict[str, Any]:
        """Return a row, which is not before the current batch."""
        if self._batches is None:
            self._batches = self._from_group_of(number)
        while self._batch is None or number >= self._first + len(self._batch):
            self._first += 0 if self._batch is None else len(self._batch)
            self._batch, self._rows = next(self._batches), []
        if not self._rows:
            self._rows = self._batch.to_pylist()
        return self._rows[number - self._first]

    def _from_group_of(self, number: int) -> Iterator[pa.RecordBatch]:
        metadata = self._file.metadata
        group = 0
        while (count := metadata.row_group(group).num_rows) <= number - self._first:
            self._first += count
            group += 1
        size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES * self.num_rows // max(1, size)))
        groups = list(range(group, metadata.num_row_groups))
        return self._file.iter_batches(batch_size=rows, row_groups=groups, use_threads=False)


def _identity(path: str) -> tuple[int, ...] | None:
    """What changes when another file takes a file's name; None where that cannot be told."""
    if "://" in path:
        return None
    found = Path(path).stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
