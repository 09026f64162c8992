# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows of parquet files: those of the table from any row on, whoever else reads, and each read once for all shards."""

import multiprocessing
import pickle
import random

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from turingvit_hf.data import parquet_stream
from turingvit_hf.data.parquet_stream import ParquetStream


NUM_ROWS = 700


@pytest.fixture
def path(tmp_path):
    rows = {
        "number": list(range(NUM_ROWS)),
        "image": [{"bytes": bytes([n % 256]) * (n % 50), "path": None} for n in range(NUM_ROWS)],
        "text": [None if n % 7 == 0 else [f"row {n}"] for n in range(NUM_ROWS)],
    }
    features = datasets.Features(
        {
            "number": datasets.Value("int64"),
            "image": datasets.Image(),
            "text": datasets.List(datasets.Value("string")),
        }
    )
    schema = features.arrow_schema
    table = pa.table(rows, schema=schema)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    return tmp_path / "a.parquet"


def stream_of(path):
    return ParquetStream([str(path)], None, path=str(path))


def numbers(stream, start, stop=NUM_ROWS):
    rows = stream.read_shard(0, start)
    return [next(rows)["number"] for _ in range(stop - start)]


def test_rows_are_those_of_the_table_from_any_row_on(path, monkeypatch):
    monkeypatch.setattr(parquet_stream, "BATCH_ROWS", 64)
    expected = pq.read_table(path).to_pylist()
    stream = stream_of(path)
    assert (stream.columns, stream.num_rows(0)) == (("number", "image", "text"), NUM_ROWS)
    assert list(stream.read_shard(0, 0)) == expected
    rng = random.Random(0)
    for start in (0, 63, 64, 299, 300, 301, 699, 700, *(rng.randrange(NUM_ROWS) for _ in range(40))):
        stop = min(NUM_ROWS, start + rng.randrange(150))
        rows = stream.read_shard(0, start)
        assert [next(rows) for _ in range(stop - start)] == expected[start:stop], start


def test_two_readers_of_one_stream_do_not_meet(path, monkeypatch):
    monkeypatch.setattr(parquet_stream, "BATCH_ROWS", 16)
    stream = stream_of(path)
    list(zip(range(5), stream.read_shard(0, 0), strict=False))  # leaves a reader behind
    first, second = stream.read_shard(0, 2), stream.read_shard(0, 40)
    pairs = [(next(first)["number"], next(second)["number"]) for _ in range(300)]
    assert pairs == [(2 + n, 40 + n) for n in range(300)]


def test_stretches_one_after_the_other_read_each_batch_once(path, monkeypatch):
    monkeypatch.setattr(parquet_stream, "BATCH_ROWS", 50)
    decoded = []
    batches = pq.ParquetFile.iter_batches

    def counted(file, **options):
        for batch in batches(file, **options):
            decoded.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    stream = stream_of(path)
    found = [number for start in range(0, NUM_ROWS, 20) for number in numbers(stream, start, start + 20)]
    assert found == list(range(NUM_ROWS))
    assert sum(decoded) == NUM_ROWS
    decoded.clear()
    assert numbers(stream_of(path), 610, 620) == list(range(610, 620))
    assert sum(decoded) <= 100, "row groups before it are not read"


def test_other_processes_open_the_file_themselves(path):
    stream = stream_of(path)
    rows = stream.read_shard(0, 0)
    next(rows)
    rows.close()
    assert numbers(pickle.loads(pickle.dumps(stream)), 5, 9) == [5, 6, 7, 8]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.starmap(numbers, [(stream, 20, 24)]) == [[20, 21, 22, 23]]
    assert numbers(stream, 1, 4) == [1, 2, 3]


def test_a_file_that_was_replaced_is_opened_anew(path, tmp_path):
    stream = stream_of(path)
    assert numbers(stream, 0, 3) == [0, 1, 2]
    other = pq.read_table(path).slice(100)
    pq.write_table(other, tmp_path / "new")
    (tmp_path / "new").replace(path)
    assert numbers(stream, 3, 6) == [103, 104, 105]
