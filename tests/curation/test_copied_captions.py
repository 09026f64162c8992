# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The row that is kept of duplicates has the captions of its copies as candidates; and rows without any caption."""

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.curation.run_cases import make_config, picture, write_listing, write_pictures
from turingvit_hf.curation.exports import export
from turingvit_hf.curation.outcomes import best_candidate
from turingvit_hf.curation.runs import run
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.sources import open_source
from turingvit_hf.errors import InputError


LARGE = 192
OFF = {"enabled": False}


@pytest.fixture
def copies(tmp_path):
    """A large picture, a small one and a JPEG of it, the same file again, and others between them."""
    folder = tmp_path / "pictures"
    rows = write_pictures(folder, 12)
    large = picture(500).resize((LARGE, LARGE), Image.Resampling.LANCZOS)
    large.save(folder / "large.png")
    picture(500).save(folder / "small.png")
    large.resize((120, 120), Image.Resampling.LANCZOS).save(folder / "small.jpg", quality=90)
    (folder / "again.png").write_bytes((folder / "small.png").read_bytes())
    said = {
        "small.png": "The best of all captions.",
        "small.jpg": "Worse.",
        "again.png": "Said of a copy.",
        "large.png": "Worse.",
    }
    for number, (name, caption) in enumerate(said.items()):
        rows.insert(3 * number, {"file_name": name, "caption": caption})
    write_listing(folder, rows)
    return folder


def rows_of(out):
    return {row["key"]: row for row in pq.read_table(out / "rows.parquet").to_pylist()}


def test_the_best_caption_wins_whichever_copy_it_came_with(copies, tmp_path):
    run(make_config(copies), tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    kept = rows["large.png"]
    assert kept["status"] == "kept"
    for name in ("small.png", "small.jpg", "again.png"):
        assert (rows[name]["status"], rows[name]["dup_of"]) == ("dropped", kept["sample_id"])
    candidates = [
        row
        for row in pq.read_table(tmp_path / "run" / "candidates.parquet").to_pylist()
        if row["sample_id"] == kept["sample_id"]
    ]
    sources = {row["text"]: row["copied_from"] for row in candidates}
    # its own first, and no caption twice
    assert candidates[0]["text"] == "Worse."
    assert sources == {
        "Worse.": None,
        "The best of all captions.": rows["small.png"]["sample_id"],
        "Said of a copy.": rows["again.png"]["sample_id"],
    }
    best = max(candidates, key=lambda row: row["overall"])
    assert kept["caption"] == best["text"]
    assert kept["caption_from"] == best["copied_from"]
    assert rows["001.png"]["num_candidates"] == 1


@pytest.mark.parametrize("shard_size", [1, 5, 100])
def test_survivors_and_their_captions_are_the_same_however_rows_are_cut_into_shards(copies, tmp_path, shard_size):
    def outcome(out):
        names = ("status", "dup_of", "caption", "caption_from", "num_candidates", "drop_reason")
        return {key: [row[name] for name in names] for key, row in rows_of(out).items()}

    off = {"embed": OFF, "score": OFF}
    run(make_config(copies, **off), tmp_path / "run")
    run(make_config(copies, shard_size=shard_size, **off), tmp_path / "other")
    assert outcome(tmp_path / "other") == outcome(tmp_path / "run")


def test_copies_bring_as_many_captions_as_are_wanted_in_order_of_preference(copies, tmp_path):
    off = {"embed": OFF, "score": OFF}
    run(make_config(copies, deduplicate={"max_copied_captions": 1}, **off), tmp_path / "one")
    by_id = {row["sample_id"]: row for row in RunFolder(tmp_path / "one").iterate_rows()}
    (survivor,) = (row for row in by_id.values() if row["key"] == "large.png")
    # the larger copy says the same as the survivor; of the two that are one file, the smaller id comes first
    texts = {by_id[copy["sample_id"]]["key"]: copy["text"] for copy in survivor["copied_captions"]}
    first = min(("small.png", "again.png"), key=lambda key: next(i for i, r in by_id.items() if r["key"] == key))
    assert list(texts) == [first]
    run(make_config(copies, deduplicate={"max_copied_captions": 0}, **off), tmp_path / "none")
    assert rows_of(tmp_path / "none")["large.png"]["num_candidates"] == 1
    run(make_config(copies, caption={"use_raw": False, "captioners": []}, **off), tmp_path / "raw")
    assert rows_of(tmp_path / "raw")["large.png"]["num_candidates"] == 0


def test_no_captioner_is_asked_about_copies(copies, tmp_path):
    run(make_config(copies, log=tmp_path / "log"), tmp_path / "run")
    asked = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("asked")]
    assert len(asked) == 13 * 5


@pytest.fixture
def mute(tmp_path):
    """Pictures of which every other one has no caption."""
    folder = tmp_path / "pictures"
    rows = write_pictures(folder, 6)
    for row in rows[::2]:
        row["caption"] = " "
    write_listing(folder, rows)
    return folder


@pytest.mark.parametrize("with_scores", [True, False])
def test_a_row_that_ends_without_a_caption_is_dropped(mute, tmp_path, with_scores):
    off = {} if with_scores else {"embed": OFF, "score": OFF}
    outcomes = run(make_config(mute, **off), tmp_path / "run")
    assert (outcomes.num_kept, dict(outcomes.dropped)) == (3, {("caption", "no caption"): 3})
    rows = rows_of(tmp_path / "run")
    assert {key for key, row in rows.items() if row["status"] == "kept"} == {"001.png", "003.png", "005.png"}
    assert all(row["caption"] for row in rows.values() if row["status"] == "kept")
    assert export(tmp_path / "run", tmp_path / "out").num_rows == 3


def test_a_row_whose_captions_are_all_refused_is_dropped_without_scores_too(mute, tmp_path):
    verifier = {"kind": "tests.curation.stand_ins:Refusing"}
    config = make_config(mute, embed=OFF, score=OFF, verify={"verifiers": [verifier]})
    outcomes = run(config, tmp_path / "run")
    assert dict(outcomes.dropped) == {
        ("caption", "no caption"): 3,
        ("verify", "no candidate caption is left"): 3,
    }


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_images_alone_are_kept_and_read_where_no_captions_are_wanted(mute, tmp_path, form):
    outcomes = run(make_config(mute, caption=OFF, embed=OFF, score=OFF), tmp_path / "run")
    assert outcomes.num_kept == 6
    export(tmp_path / "run", tmp_path / "out", form=form)
    opened = open_source(SourceRecipe(path=str(tmp_path / "out"), streaming=False), captions=False)
    assert len(opened.rows) == 6
    if form == "webdataset":
        assert "txt" not in opened.rows[0]
    with pytest.raises(InputError, match=r"score.enabled needs caption.enabled"):
        make_config(mute, caption=OFF)


def test_without_scores_the_chosen_caption_is_the_one_that_is_grounded(mute, tmp_path):
    run(make_config(mute, embed=OFF, score=OFF), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    for row in folder.read_shard(0, before="ground"):
        if row["key"] == "001.png":
            assert row["caption"] == best_candidate(row)[1]["text"] == "Picture 1 of boats."
