# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows that cannot be used are left out and counted by reason, do not disturb a resume, and end a run if too many."""

import dataclasses
import json

import pytest

from tests.training.data.step_cases import FORMS, assert_equal, recipe, steps_of
from tests.training.data_files import encoded, picture, write
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.errors import InputError
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.collators import ImageTextPackCollator
from turingvit_hf.training.data.step_loader import StepLoader


def bad_rows(folder, good=40):
    """A JSON-lines file with good rows and one of each bad kind, and the reasons that they are counted by."""
    picture(1).save(folder / "good.png")
    (folder / "cut.jpg").write_bytes(encoded(picture(2), "JPEG")[:-300])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture")
    rows = [json.dumps({"path": "good.png", "caption": f"good {number}"}) for number in range(good)]
    rows[3:3] = [
        json.dumps({"path": "cut.jpg", "caption": "cut off"}),
        json.dumps({"path": "text.jpg", "caption": "text"}),
        json.dumps({"path": "empty.jpg", "caption": "empty"}),
        json.dumps({"path": "none.jpg", "caption": "missing"}),
        json.dumps({"path": "good.png", "caption": ""}),
        json.dumps({"path": None, "caption": "no image"}),
        "{broken",
    ]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    return SourceRecipe(str(folder / "rows.jsonl")), {
        "image cannot be read": 2,
        "image is empty": 1,
        "file is missing": 1,
        "caption is empty or no text": 1,
        "row has no image": 1,
        "row is no JSON object": 1,
    }


@pytest.mark.parametrize("streaming", [False, True])
def test_bad_rows_are_left_out_counted_and_do_not_disturb_a_resume(streaming, collate, tmp_path, caplog):
    source, reasons = bad_rows(tmp_path)
    data = recipe(dataclasses.replace(source, streaming=streaming), max_bad_share=0.2)
    loader = StepLoader(data, collate, seed=0)
    expected = steps_of(loader, 24)
    counts = loader.counts()
    assert set(counts["skipped"]) == set(reasons)
    num_bad, num_rows = sum(counts["skipped"].values()), counts["rows"]
    assert abs(num_bad / num_rows - 7 / 47) < 0.05
    assert caplog.text.count("rows are left out: image cannot be read (the first: ") == 1
    for stop in (3, 10):
        loader = StepLoader(dataclasses.replace(data, num_workers=2), collate, seed=0)
        steps_of(loader, stop)
        state = json.loads(json.dumps(loader.state_dict()))
        resumed = StepLoader(data, collate, seed=0)
        resumed.load_state_dict(state)
        assert_equal(steps_of(resumed, 24 - stop), expected[stop:])
        assert resumed.counts() == counts


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("good", "max_bad_share"), [(40, 0.05), (0, 0.5), (0, 1.0)])
def test_too_many_bad_rows_end_the_run(good, max_bad_share, num_workers, collate, tmp_path, monkeypatch):
    monkeypatch.setattr("turingvit_hf.training.data.readers.MAX_BAD_RUN", 300)
    source, _ = bad_rows(tmp_path, good)
    loader = StepLoader(recipe(source, max_bad_share=max_bad_share, num_workers=num_workers), collate, seed=0)
    message = r"of \d+ rows cannot be used, max_bad_share is .*: .*\d+: image cannot be read \(.*(cut|text)\.jpg: "
    with pytest.raises(InputError, match=message):
        steps_of(loader, 1000)


@pytest.mark.parametrize("form", ["folder jsonl", "webdataset", "parquet"])
def test_fewer_rows_than_readers_are_read_by_all(form, collate, tmp_path, caplog):
    path = write(form, tmp_path / "data", num_pictures=3, num_shards=1)
    source = SourceRecipe(str(path), streaming=FORMS[form].get("streaming"))
    data = recipe(source, packs_per_step=4, num_readers=2)
    loader = StepLoader(data, collate, seed=0)
    expected = steps_of(loader, 6)
    assert all(len(step["packs"]) == 4 for step in expected)
    assert len(caplog.records) == 1
    assert "8 readers" in caplog.text
    loader = StepLoader(data, collate, seed=0)
    steps_of(loader, 3)
    resumed = StepLoader(data, collate, seed=0)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert_equal(steps_of(resumed, 3), expected[3:])


def test_long_captions_are_cut_and_counted(tokenizer, tmp_path, caplog):
    picture(0).save(tmp_path / "a.png")
    rows = [{"path": "a.png", "caption": text} for text in ("a", "fox " * 50)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    collate = ImageTextPackCollator(TuringViTImageProcessor(), tokenizer, max_tokens=8, lowercase=True)
    loader = StepLoader(recipe(SourceRecipe(str(tmp_path / "rows.jsonl"))), collate, seed=0)
    steps = steps_of(loader, 4)
    assert max(pack["input_ids"].shape[1] for step in steps for pack in step["packs"]) == 8
    counts = loader.counts()
    assert abs(counts["noted"]["caption is cut at 8 tokens"] - counts["images"] / 2) <= 10
    assert "superclass_ids" not in steps[0]["packs"][0]


def test_a_row_that_is_gone_at_resume_is_an_error(sources, collate, tmp_path):
    path = write("folder jsonl", tmp_path / "data")
    loader = StepLoader(recipe(SourceRecipe(str(path))), collate, seed=0)
    steps_of(loader, 4)
    for file in (path / "pictures").iterdir():
        file.unlink()
    resumed = StepLoader(recipe(SourceRecipe(str(path))), collate, seed=0)
    resumed.load_state_dict(loader.state_dict())
    with pytest.raises(InputError, match="a row that the checkpoint holds cannot be read any more: file is missing"):
        next(resumed)
