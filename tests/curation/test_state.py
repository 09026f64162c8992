# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What lies on disk: journals that survive, tables that are equal or absent, rows of every kind of source."""

import hashlib
import json
import os
import tarfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.curation.run_cases import make_config, picture, write_listing, write_pictures
from turingvit_hf.curation.beginning import begin
from turingvit_hf.curation.config_files import config_from_dict
from turingvit_hf.curation.journal import Journal, call_key
from turingvit_hf.curation.rows import forget_sources, read_samples, sample_id
from turingvit_hf.curation.runs import run, status
from turingvit_hf.curation.shards import list_shards
from turingvit_hf.curation.tables import table_of, write_table, written_file
from turingvit_hf.errors import InputError


def samples_of(tmp_path, path, **values):
    config = config_from_dict({"sources": [{"path": str(path), "name": "s", **values}], "shard_size": 2}, "test")
    shards, counts = list_shards(config, tmp_path / "sources")
    rows = [
        row
        for shard in shards
        for row in read_samples(
            config.sources[0],
            name="s",
            listing=None if shard.listing is None else str(tmp_path / shard.listing),
            unit=shard.unit,
            start=shard.start,
            stop=shard.stop,
            repeats=shard.repeats,
        )
    ]
    return rows, shards, counts


def test_a_journal_keeps_what_was_answered_and_forgets_a_line_that_was_cut(tmp_path):
    path = tmp_path / "calls.jsonl"
    first = Journal(path)
    assert not path.exists()
    first.put("a", {"text": "\u00e4"})
    first.put("b", 2)
    with path.open("ab") as file:
        file.write(b'{"key": "c", "ans')
    second = Journal(path)
    assert (second.get("a"), second.get("b"), second.get("c"), len(second)) == ({"text": "\u00e4"}, 2, None, 2)
    second.put("c", 3)
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "b", "c"]


def test_a_call_is_known_by_all_that_decides_its_answer():
    key = call_key("hash", "prompt", "model", {"temperature": 0, "seed": 1})
    assert key == call_key("hash", "prompt", "model", {"seed": 1, "temperature": 0})
    others = [
        call_key("other", "prompt", "model", {"temperature": 0, "seed": 1}),
        call_key(None, "prompt", "model", {"temperature": 0, "seed": 1}),
        call_key("hash", "other", "model", {"temperature": 0, "seed": 1}),
        call_key("hash", "prompt", "other", {"temperature": 0, "seed": 1}),
        call_key("hash", "prompt", "model", {"temperature": 0, "seed": 2}),
    ]
    assert len({key, *others}) == 6


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    def fail():
        with written_file(tmp_path / "file") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())


def test_equal_rows_are_equal_bytes_and_nothing_is_lost_in_silence(tmp_path):
    rows = [{"sample_id": "a", "candidates": [{"text": "x", "flags": ["few nouns"]}]}, {"sample_id": "b"}]
    for name in ("one", "two"):
        write_table(tmp_path / name, table_of(rows, ["sample_id", "candidates", "measured"]), {"stage_hash": "1"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert pq.read_schema(tmp_path / "one").field("measured").type == pa.float64()
    with pytest.raises(TypeError, match=r"candidates has the keys \['new'\]"):
        table_of([{"candidates": [{"text": "x", "new": 1}]}], ["candidates"])


def test_json_lines_of_a_folder(tmp_path):
    folder = tmp_path / "pictures"
    rows = write_pictures(folder, 3)
    rows[1]["caption"] = ["One.", "Two.", "  One.  "]
    write_listing(folder, rows)
    samples, shards, counts = samples_of(tmp_path, folder)
    assert (len(shards), counts) == (2, [3])
    assert [sample["key"] for sample in samples] == ["000.png", "001.png", "002.png"]
    assert samples[0]["sample_id"] == sample_id("s", "000.png")
    assert samples[1]["raw_captions"] == ["One.", "Two."]
    assert samples[0]["license"] == "CC0"
    assert samples[0]["media"] == samples[0]["source_uri"] == str(folder / "000.png")


def test_a_folder_without_a_list_is_listed_once(tmp_path):
    folder = tmp_path / "pictures"
    write_pictures(folder / "red_boats", 2)
    write_pictures(folder / "00001", 1)
    (folder / "00001" / "000.txt").write_text("A caption  beside.")
    (folder / "00001" / "000.json").write_text(json.dumps({"url": "http://x/y.png", "license": "CC-BY"}))
    write_pictures(folder, 1)
    samples, _, _ = samples_of(tmp_path, folder)
    found = {sample["key"]: sample["raw_caption"] for sample in samples}
    assert found == {
        "000.png": None,
        "00001/000.png": "A caption beside.",
        "red_boats/000.png": "red boats",
        "red_boats/001.png": "red boats",
    }
    beside = next(sample for sample in samples if sample["key"] == "00001/000.png")
    assert (beside["source_uri"], beside["license"]) == ("http://x/y.png", "CC-BY")
    write_pictures(folder / "later", 2)
    assert len(samples_of(tmp_path, folder)[0]) == 4


def test_a_file_beside_a_picture_names_no_other_one(tmp_path):
    folder = tmp_path / "pictures"
    write_pictures(folder, 2)
    (folder / "000.json").write_text(json.dumps({"image": "001.png", "file_name": "001.png", "caption": "First."}))
    (folder / "001.json").write_text(json.dumps({"image": 5, "path": "/elsewhere", "caption": "Second."}))
    samples, _, _ = samples_of(tmp_path, folder)
    found = [(sample["key"], sample["media"], sample["raw_caption"]) for sample in samples]
    expected = {"000.png": "First.", "001.png": "Second."}
    assert found == [(name, str(folder / name), text) for name, text in expected.items()]


def test_a_folder_that_cannot_be_listed_loses_no_rows_in_silence(tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    write_pictures(folder / "open", 2)
    write_pictures(folder / "shut", 2)
    scan = os.scandir

    def scandir(place):
        if str(place).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"cannot list .*shut: Permission denied"):
        samples_of(tmp_path, folder)


def test_a_list_in_csv_may_have_long_captions_and_is_utf_8(tmp_path):
    folder = tmp_path / "pictures"
    write_pictures(folder, 2)
    lines = ["file_name,caption", "000.png," + 50_000 * "word ", "001.png,\u00e9"]
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    samples, _, _ = samples_of(tmp_path, folder)
    assert [len(sample["raw_caption"]) for sample in samples] == [249_999, 1]
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="latin-1")
    (tmp_path / "sources" / "00.jsonl").unlink()
    with pytest.raises(InputError, match=r"metadata\.csv is no CSV file in UTF-8: .* byte 0xe9"):
        samples_of(tmp_path, folder)


def test_a_class_that_is_none_is_no_caption(tmp_path):
    write_pictures(tmp_path / "p", 3)
    cells = [{"bytes": (tmp_path / "p" / f"{n:03d}.png").read_bytes(), "path": None} for n in range(3)]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["red_kite", "dog"]))
    rows = datasets.Dataset.from_dict({"image": cells, "label": [0, 1, -1]}, features=features)
    pq.write_table(rows.data.table, tmp_path / "data.parquet")
    samples, _, _ = samples_of(tmp_path, tmp_path / "data.parquet")
    assert [sample["raw_caption"] for sample in samples] == ["red kite", "dog", None]


def test_tars_as_img2dataset_writes_them(tmp_path):
    for number in range(2):
        with tarfile.open(tmp_path / f"{number:05d}.tar", "w") as tar:
            for key in range(3):
                base = tmp_path / f"{number:05d}{key:04d}"
                picture(key).save(base.with_suffix(".jpg"))
                base.with_suffix(".txt").write_text(f"Caption {key}.")
                base.with_suffix(".json").write_text(json.dumps({"url": f"http://x/{key}", "width": 96}))
                for suffix in (".jpg", ".txt", ".json"):
                    tar.add(base.with_suffix(suffix), base.with_suffix(suffix).name)
                    base.with_suffix(suffix).unlink()
        (tmp_path / f"{number:05d}.parquet").write_bytes(b"img2dataset writes one beside each tar")
    samples, shards, counts = samples_of(tmp_path, tmp_path)
    assert (len(shards), counts, len({sample["sample_id"] for sample in samples})) == (2, [None], 6)
    assert [sample["raw_caption"] for sample in samples] == ["Caption 0.", "Caption 1.", "Caption 2."] * 2
    assert all(isinstance(sample["media"], bytes) for sample in samples)
    assert samples[5]["source_uri"] == "http://x/2"
    limited, shards, counts = samples_of(tmp_path, tmp_path, max_samples=4)
    assert (len(limited), counts) == (4, [4])


def test_parquet_is_cut_into_shards_of_known_length(tmp_path):
    write_pictures(tmp_path / "p", 5)
    cells = [{"bytes": (tmp_path / "p" / f"{n:03d}.png").read_bytes(), "path": None} for n in range(5)]
    table = pa.table({"image": cells, "text": [f"Number {n}." for n in range(5)], "opt_out": [False] * 4 + [True]})
    pq.write_table(table, tmp_path / "data.parquet")
    samples, shards, counts = samples_of(tmp_path, tmp_path / "data.parquet")
    assert ([shard.stop - shard.start for shard in shards], counts) == ([2, 2, 1], [5])
    assert [sample["raw_caption"] for sample in samples] == [f"Number {n}." for n in range(5)]
    assert [sample["opt_out"] for sample in samples] == [False] * 4 + [True]
    assert len({sample["sample_id"] for sample in samples}) == 5


def test_rendered_shapes_are_pictures_like_any(tmp_path):
    samples, _, _ = samples_of(tmp_path, "shapes", max_samples=3)
    assert [sample["key"] for sample in samples] == ["0", "1", "2"]
    assert all(sample["media"].startswith(b"\x89PNG") for sample in samples)


def test_rows_with_a_path_outside_are_refused_unless_allowed(tmp_path):
    folder = tmp_path / "pictures"
    write_listing(folder, [*write_pictures(folder, 1), {"file_name": "../outside.png", "caption": "x"}])
    picture(5).save(tmp_path / "outside.png")
    listing = folder / "metadata.jsonl"
    for path in (folder, listing):
        assert samples_of(tmp_path, path)[0][1]["fault"] == "file lies outside the folder of its source"
        assert samples_of(tmp_path, path, allow_outside=True)[0][1]["fault"] is None


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no file or folder"):
        samples_of(tmp_path, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image files"):
        samples_of(tmp_path, tmp_path / "empty")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "none.parquet")
    with pytest.raises(InputError, match=r"none\.parquet' has no rows"):
        samples_of(tmp_path, tmp_path / "none.parquet")


@pytest.mark.parametrize("option", ["caption_columns", "license_column", "opt_out_column", "key_column"])
def test_a_column_that_no_row_has_is_named(tmp_path, option):
    folder = tmp_path / "pictures"
    rows = write_pictures(folder, 120)
    rows[110]["noai"] = True  # one that a single row has, late, is there
    write_listing(folder, rows)
    values = ["wrong"] if option == "caption_columns" else "wrong"
    with pytest.raises(InputError, match=rf"has no column 'wrong' \({option}\): it has \['caption', .*'noai'\]"):
        samples_of(tmp_path, folder, **{option: values})
    samples, _, _ = samples_of(tmp_path, folder, opt_out_column="noai")
    assert [number for number, sample in enumerate(samples) if sample["opt_out"]] == [110]
    pq.write_table(pa.table({"image": [b"x"], "text": ["A kite."]}), tmp_path / "data.parquet")
    with pytest.raises(InputError, match=rf"has no column 'wrong' \({option}\): it has \['image', 'text'\]"):
        samples_of(tmp_path, tmp_path / "data.parquet", **{option: values})


def test_a_source_that_lost_rows_since_the_run_began_is_named(tmp_path):
    folder = tmp_path / "pictures"
    rows = write_pictures(folder, 6)
    write_listing(folder, rows)
    config = make_config(folder)
    begin(tmp_path / "run", config)
    write_listing(folder, rows[:4])
    forget_sources()
    with pytest.raises(InputError, match="has changed: 4 of the 6 rows of shard 0 are left"):
        run(config, tmp_path / "run")


def test_pictures_of_an_earlier_run_are_known(tmp_path):
    folder = tmp_path / "pictures"
    rows = write_pictures(folder, 6)
    write_listing(folder, rows[:4])
    off = {"embed": {"enabled": False}, "score": {"enabled": False}}
    run(make_config(folder, **off), tmp_path / "first")
    write_listing(folder, rows)
    config = make_config(folder, deduplicate={"against": [str(tmp_path / "first")]}, **off)
    outcomes = run(config, tmp_path / "second")
    assert (outcomes.num_kept, outcomes.num_dropped) == (2, 4)


def test_a_list_of_known_pictures_that_changed_is_read_again(tmp_path):
    folder, known = tmp_path / "pictures", tmp_path / "known.parquet"
    write_listing(folder, write_pictures(folder, 6))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.png"))]
    off = {"embed": {"enabled": False}, "score": {"enabled": False}}
    config = make_config(folder, deduplicate={"against": [str(known)]}, **off)
    pq.write_table(pa.table({"sha256": digests[:4]}), known)
    assert run(config, tmp_path / "run").num_kept == 2
    pq.write_table(pa.table({"sha256": digests[:1]}), known)
    assert not status(tmp_path / "run")["is_finished"]
    assert run(config, tmp_path / "run").num_kept == 5
    known.unlink()
    assert status(tmp_path / "run")["is_finished"]
    assert run(config, tmp_path / "run").num_kept == 5


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a"]}, "neither sha256 nor phash, only name"),
        ({"phash": ["ab"]}, "cannot read .*phash is 'ab', not 16 hex digits"),
        ({"phash": [1]}, "cannot read .*phash is 1, not 16 hex digits"),
        (None, "cannot read .*known.parquet"),
    ],
    ids=["no column", "no hash", "a number", "no file"],
)
def test_a_list_of_known_pictures_that_is_none_is_refused(tmp_path, columns, message):
    folder, known = tmp_path / "pictures", tmp_path / "known.parquet"
    write_listing(folder, write_pictures(folder, 2))
    if columns is not None:
        pq.write_table(pa.table(columns), known)
    config = make_config(
        folder, deduplicate={"against": [str(known)]}, embed={"enabled": False}, score={"enabled": False}
    )
    with pytest.raises(InputError, match=f"deduplicate.against: .*{message}"):
        run(config, tmp_path / "run")


def test_a_sample_is_found_by_its_id_alone(tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    write_listing(folder, write_pictures(folder, 12))
    found = begin_and_run(make_config(folder, shard_size=3), tmp_path / "run")
    rows = list(found.iterate_rows())
    for number, row in enumerate(rows):
        assert found.find_samples(row["sample_id"]) == {row["sample_id"]: number // 3}
        (alone,) = found.read_shard(number // 3, ids=[row["sample_id"]])
        assert alone == row
    assert sum(len(found.find_samples(digit)) for digit in "0123456789abcdef") == len(rows)
    parts = found.read_shard(1, columns=["sha256", "candidates.list.element.text"])
    for whole, part in zip(rows[3:6], parts, strict=True):
        assert part["candidates"] == [{"text": candidate["text"]} for candidate in whole["candidates"]]
        assert part.keys() == {"sample_id", "errors", "attempts", "stages", "sha256", "candidates"}
        assert all(part[name] == whole[name] for name in ("sample_id", "stages", "attempts", "sha256"))


def begin_and_run(config, out):
    run(config, out)
    return begin(out, config)
