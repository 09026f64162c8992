# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A run that goes on with another config, or from another place, ends as a fresh one would, and loses no answer."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.curation.run_cases import LENIENT, make_config, picture, write_listing, write_pictures
from turingvit_hf.curation.exports import export
from turingvit_hf.curation.report.pictures import read_pictures
from turingvit_hf.curation.rows import forget_sources
from turingvit_hf.curation.runs import run, score, status
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.taggers import TaggedText, Word
from turingvit_hf.curation.tune import apply, tune
from turingvit_hf.errors import InputError


class LastWordTagger:
    """Takes the last word of a caption for its only noun."""

    name = "last word"

    def tag(self, text):
        word = Word(text.split()[-1].strip("."), "noun")
        return TaggedText((word,), ((word,),))


@pytest.fixture
def folder(tmp_path):
    """Ten pictures without a listing of their own, one of them a copy of another."""
    folder = tmp_path / "pictures"
    write_pictures(folder, 9)
    (folder / "copy.png").write_bytes((folder / "004.png").read_bytes())
    for path in folder.glob("*.png"):
        path.with_suffix(".txt").write_text(f"Some boats and the number {path.stem}.")
    return folder


def ends(out):
    """How each row ended, and by what score."""
    columns = ["key", "status", "drop_stage", "drop_reason", "overall", "better_share", "caption"]
    return pq.read_table(out / "rows.parquet", columns=columns).to_pylist()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"deduplicate": {"enabled": False}}, {}),
        ({}, {"deduplicate": {"enabled": False}}),
        ({"score": {"enabled": False}}, {}),
        ({}, {"limit": 3}),
        ({"limit": 5}, {}),
        ({}, {"shard_size": 4}),
        ({"shard_size": 2}, {"limit": 7}),
    ],
)
def test_a_changed_run_ends_as_a_fresh_one(folder, tmp_path, before, after):
    changed = {"thresholds": {"quality": {"min_side": 32, "max_edge_width": None, "min_edge_share": None}}}
    changed["thresholds"]["score"] = {"top_fraction": 0.5}
    run(make_config(folder, **changed | before), tmp_path / "out")
    run(make_config(folder, **changed | after), tmp_path / "out", force=True)
    run(make_config(folder, **changed | after), tmp_path / "fresh")
    assert ends(tmp_path / "out") == ends(tmp_path / "fresh")


def test_no_answer_is_asked_for_again_when_rows_move_to_other_shards(folder, tmp_path):
    log = tmp_path / "asked"
    run(make_config(folder, log=log, shard_size=3), tmp_path / "out")
    asked = log.read_text().count("asked")
    for values in ({"shard_size": 10}, {"shard_size": 2, "limit": 6}, {"shard_size": 5}):
        run(make_config(folder, log=log, **values), tmp_path / "out", force=True)
        assert log.read_text().count("asked") == asked


def test_a_run_goes_on_elsewhere(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(folder.absolute())
    run(config, "out")
    (tmp_path / "away").mkdir()
    shutil.move("out", "away/moved")
    monkeypatch.chdir(tmp_path / "away")
    before = (tmp_path / "away/moved/rows.parquet").read_bytes()
    run(config, "moved")
    assert (tmp_path / "away/moved/rows.parquet").read_bytes() == before
    assert export("moved", "curated").num_rows == sum(row["status"] == "kept" for row in ends(tmp_path / "away/moved"))


def test_what_is_refused_changes_nothing(folder, tmp_path):
    config, out = make_config(folder), tmp_path / "out"
    run(config, out)
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for changes, options in (
        ({"sources": [{"path": str(tmp_path / "nowhere"), "format": "folder"}]}, {}),
        ({"sources": [{"path": str(folder), "kind": "video"}]}, {}),
        ({"seed": 9}, {"from_stage": "nonsense"}),
    ):
        with pytest.raises(InputError):
            run(make_config(folder, **changes), out, force=True, **options)
        left = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert left == files, changes
    with pytest.raises(InputError, match=r"score\.enabled"):
        score(out, ["score.enabled=false"])
    with pytest.raises(InputError, match="nonsense"):
        run(config, tmp_path / "new", from_stage="nonsense")
    assert not (tmp_path / "new").exists()
    run(config, out)
    assert (out / "rows.parquet").read_bytes() == files[out / "rows.parquet"]


def test_a_listed_folder_keeps_its_rows_when_files_come(folder, tmp_path):
    config, out = make_config(folder), tmp_path / "out"
    run(config, out)
    before = ends(out)
    picture(77).save(folder / "000a.png")
    run(config, out)
    assert ends(out) == before
    rows = [{"file_name": path.name, "caption": "x"} for path in sorted(folder.glob("*.png"))]
    write_listing(folder, rows)
    run(config, out)
    assert ends(out) == before


def stored(out):
    """What decides whether pairs are right: the file, what it looks like, its caption and scores."""
    columns = ["key", "status", "source_uri", "sha256", "phash", "license", "caption", "A", "G"]
    return pq.read_table(out / "rows.parquet", columns=columns).to_pylist()


def test_rows_that_move_in_their_shard_keep_their_pictures(folder, tmp_path):
    run(make_config(folder, limit=8), tmp_path / "out")
    picture(77).save(folder / "000a.png")  # all that follow it are one place later
    (folder / "000a.txt").write_text("A kite.")
    config = make_config(folder, limit=9)
    run(config, tmp_path / "out", force=True)
    run(config, tmp_path / "fresh")
    assert stored(tmp_path / "out") == stored(tmp_path / "fresh")
    export(tmp_path / "out", tmp_path / "curated", form="parquet")
    written = pq.read_table(tmp_path / "curated/00000.parquet").to_pylist()
    assert len(written) == 9
    assert all(row["image"]["bytes"] == (folder / row["key"]).read_bytes() for row in written)


def test_other_columns_of_a_source_are_read(folder, tmp_path):
    names = ("image", "small", "caption", "alt", "licence", "rights")
    rows = []
    for number, path in enumerate(sorted(folder.glob("*.png"))):
        small = folder.parent / f"small{number}.png"
        picture(100 + number, side=40).save(small)
        values = ({"bytes": path.read_bytes()}, {"bytes": small.read_bytes()}, f"Boat {number}", f"Kite {number}")
        rows.append(dict(zip(names, (*values, "CC0", "none"), strict=True)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    source = {"path": str(tmp_path / "data.parquet")}
    run(make_config(folder, sources=[source]), tmp_path / "out")
    for changes in ({"caption_columns": ["alt"]}, {"license_column": "rights"}, {"media_column": "small"}):
        source |= changes
        config = make_config(folder, sources=[source])
        run(config, tmp_path / "out", force=True)
        run(config, tmp_path / f"fresh{len(source)}")
        assert stored(tmp_path / "out") == stored(tmp_path / f"fresh{len(source)}"), changes


def test_other_pictures_of_the_same_names_are_measured_and_captioned(folder, tmp_path):
    other = tmp_path / "other" / "pictures"
    other.mkdir(parents=True)
    for path in folder.glob("*.txt"):
        picture(int.from_bytes(path.stem.encode())).save(other / f"{path.stem}.png")
        shutil.copy(path, other)
    log = tmp_path / "asked"
    run(make_config(folder, log=log), tmp_path / "out")
    run(make_config(other, log=log), tmp_path / "out", force=True)
    run(make_config(other, log=tmp_path / "fresh-log"), tmp_path / "fresh")
    assert stored(tmp_path / "out") == stored(tmp_path / "fresh")


def test_a_picture_is_never_taken_for_another_when_its_listing_changes(folder, tmp_path):
    rows = [{"file_name": path.name, "caption": f"Boat {path.stem}"} for path in sorted(folder.glob("*.png"))]
    write_listing(folder, rows)
    log = tmp_path / "asked"
    config, out = make_config(folder, log=log), tmp_path / "out"
    run(config, out)
    write_listing(folder, rows[::-1])
    forget_sources()
    message = r"has changed: 'copy\.png' stands where '000\.png' was when the run began"
    with pytest.raises(InputError, match=message):
        export(out, tmp_path / "curated")
    with pytest.raises(InputError, match=message):
        run(config, out, from_stage="caption")
    assert not read_pictures(RunFolder(out), [row["sample_id"] for row in RunFolder(out).iterate_rows()])


def test_a_picture_that_was_replaced_is_not_exported_with_the_caption_of_the_old_one(folder, tmp_path):
    config, out = make_config(folder), tmp_path / "out"
    run(config, out)
    picture(77).save(folder / "002.png")
    done = export(out, tmp_path / "curated", form="parquet")
    assert (done.num_rows, done.num_lost) == (8, 1)
    assert "002.png" not in pq.read_table(tmp_path / "curated/00000.parquet", columns=["key"]).column(0).to_pylist()


def test_a_picture_that_is_replaced_between_two_stages_is_an_error_until_it_is_measured_anew(folder, tmp_path):
    log, out = tmp_path / "asked", tmp_path / "out"
    run(make_config(folder), out)
    picture(77).save(folder / "002.png")
    captioned = make_config(folder, log=log)
    assert run(captioned, out, force=True).num_errors == 1
    (row,) = [row for row in RunFolder(out).iterate_rows() if row["key"] == "002.png"]
    assert row["errors"] == {
        "caption": "its file has changed since it was measured; run with --from-stage measure takes it as it is now"
    }
    assert (row["width"], row["height"]) == (96, 96)
    assert run(captioned, out, from_stage="measure").num_errors == 0
    run(make_config(folder, log=tmp_path / "fresh-log"), tmp_path / "fresh")
    assert stored(out) == stored(tmp_path / "fresh")


def test_an_export_is_of_the_config_that_the_folder_has(folder, tmp_path):
    out = tmp_path / "out"
    run(make_config(folder), out)
    apply(out, tune(out, {"score.top_fraction": 0.5}))
    assert not status(out)["is_finished"]
    with pytest.raises(InputError, match=r"no rows\.parquet of its config: the run is not finished"):
        export(out, tmp_path / "curated")
    kept = run(RunFolder(out).config, out).num_kept
    assert status(out)["is_finished"]
    assert export(out, tmp_path / "curated").num_rows == kept == 4


def test_what_verdicts_are_held_against_needs_no_picture(folder, tmp_path):
    out, values = tmp_path / "out", {"log": tmp_path / "asked"}
    values["verify"] = {"verifiers": [{"kind": "tests.curation.looking_cases:DoubtingVerifier"}]}
    run(make_config(folder, **values), out)
    folder.rename(tmp_path / "gone")
    forget_sources()
    scored = score(out, ["thresholds.captions.min_verdict=5"])
    assert scored.num_errors == 0
    (tmp_path / "gone").rename(folder)
    thresholds = {"captions": {"min_verdict": 5}, "quality": LENIENT}
    fresh = run(make_config(folder, thresholds=thresholds, **values), tmp_path / "fresh")
    assert ends(out) == ends(tmp_path / "fresh")
    assert 0 < scored.num_kept == fresh.num_kept < 9


def test_another_tagger_finds_other_phrases(folder, tmp_path):
    values = {"ground": {"enabled": True, "detector": {"kind": "tests.curation.looking_cases:CornerDetector"}}}
    run(make_config(folder, **values), tmp_path / "out")
    changed = make_config(folder, caption={"tagger": {"kind": f"{__name__}:LastWordTagger"}}, **values)
    for place in ("out", "fresh"):
        run(changed, tmp_path / place, force=True)
    found, fresh = (
        pq.read_table(tmp_path / place / "rows.parquet", columns=["phrases", "boxes", "grounding_recall"]).to_pylist()
        for place in ("out", "fresh")
    )
    assert found == fresh
    assert ["004"] in [row["phrases"] for row in found]
