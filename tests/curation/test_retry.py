# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A retry redoes rows that ended as errors and nothing else, also where a stage takes rows apart."""

import pyarrow.parquet as pq
import pytest

from tests.curation.run_cases import make_config, write_listing, write_pictures
from tests.curation.video_files import encode, pan
from turingvit_hf.curation.report.pictures import read_pictures
from turingvit_hf.curation.runs import retry, run
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.steps import videos


@pytest.fixture
def cut_again(monkeypatch):
    """Names of the videos that were cut, in order; reading `away.mp4` fails until `away` is cleared."""
    seen, away = [], ["away.mp4"]
    hash_of, find = videos.media_hash, videos.find_shots

    def media_hash(media):
        if any(str(media).endswith(name) for name in away):
            raise OSError(5, "Input/output error")
        return hash_of(media)

    def find_shots(media, **options):
        seen.append(str(media).rpartition("/")[2])
        return find(media, **options)

    monkeypatch.setattr(videos, "media_hash", media_hash)
    monkeypatch.setattr(videos, "find_shots", find_shots)
    return seen, away


def rows_of(out):
    return sorted(pq.read_table(out / "rows.parquet").to_pylist(), key=lambda row: (row["key"], row["start_ms"] or 0))


def test_only_videos_that_failed_are_cut_again(tmp_path, cut_again):
    seen, away = cut_again
    folder, log = tmp_path / "videos", tmp_path / "asked"
    folder.mkdir()
    names = ["away.mp4", "one.mp4", "two.mp4"]
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode([*pan(number, 40, 2), *pan(10 + number, 30, 1)]))
    write_listing(folder, [{"file_name": name, "caption": f"A pan over {name}."} for name in names])
    config = make_config(
        folder,
        log=log,
        sources=[{"path": str(folder), "name": "videos", "kind": "video"}],
        shard_size=8,
        thresholds={"quality": {"min_side": 32}, "consistency": {"low": None}},
    )
    first = run(config, tmp_path / "out")
    assert (first.errors["cut"], first.num_retriable) == (1, 1)
    assert sorted(seen) == ["one.mp4", "two.mp4"]
    asked = log.read_text().count("asked")
    before = [row for row in rows_of(tmp_path / "out") if row["key"] != "away.mp4"]

    second = retry(tmp_path / "out")  # it still cannot be read: nothing is cut, and the attempt counts
    assert (second.errors["cut"], seen.count("one.mp4")) == (1, 1)
    (error,) = [row for row in rows_of(tmp_path / "out") if row["status"] == "error"]
    assert (error["attempts"], error["error_stage"]) == (2, "cut")
    assert log.read_text().count("asked") == asked

    away.clear()
    third = retry(tmp_path / "out")
    assert third.num_errors == 0
    assert sorted(seen) == names, "each video was cut once"
    rows = rows_of(tmp_path / "out")
    assert {row["attempts"] for row in rows if row["key"] == "away.mp4"} == {3}
    assert {row["attempts"] for row in rows if row["key"] != "away.mp4"} == {1}
    keys = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("asked")]
    assert len(keys) == len(set(keys)) > asked
    compared = ("sample_id", "start_ms", "end_ms", "sha256", "caption", "A", "T", "status")
    after = [row for row in rows if row["key"] != "away.mp4"]
    assert [[row[name] for name in compared] for row in after] == [[row[name] for name in compared] for row in before]
    run(config, tmp_path / "fresh")
    assert [[row[name] for name in compared] for row in rows] == [
        [row[name] for name in compared] for row in rows_of(tmp_path / "fresh")
    ]


def test_a_row_that_stands_for_no_picture_is_shown_without_one(tmp_path):
    folder = tmp_path / "pictures"
    rows = write_pictures(folder, 3)
    write_listing(folder, [*rows, rows[0]])
    config = make_config(
        folder, shard_size=2, embed={"enabled": False}, score={"enabled": False}
    )  # the repeat is in another shard than what it repeats
    run(config, tmp_path / "out")
    found = {row["key"]: row for row in rows_of(tmp_path / "out")}
    assert found["000.png#3"]["drop_reason"] == "row has the key of an earlier row"
    ids = {row["sample_id"]: key for key, row in found.items()}
    pictures = read_pictures(RunFolder(tmp_path / "out"), ids)
    assert {ids[name] for name in pictures} == {"000.png", "001.png", "002.png"}
