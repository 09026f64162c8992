# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a run exports is read by pretraining and by `datasets` as it is."""

import json
import tarfile

import datasets
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.curation.run_cases import make_config, picture, write_bad_rows, write_listing, write_pictures
from turingvit_hf.curation import exports
from turingvit_hf.curation.exports import export
from turingvit_hf.curation.runs import run
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.sources import open_source
from turingvit_hf.errors import InputError
from turingvit_hf.training.arguments import DataRecipe
from turingvit_hf.training.data.samples import iterate_samples


NUM_PICTURES = 14


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    base = tmp_path_factory.mktemp("export")
    folder = base / "pictures"
    rows = write_pictures(folder, NUM_PICTURES)
    rows += [{"file_name": name, "caption": "A bad one <b>of</b> them."} for name in write_bad_rows(folder)]
    picture(77).save(folder / "photo.jpg")
    rows.append({"file_name": "photo.jpg", "caption": "A photograph."})
    write_listing(folder, rows)
    run(make_config(folder, log=base / "log"), base / "run")
    rows = pq.read_table(base / "run" / "rows.parquet").to_pylist()
    return base / "run", [row for row in rows if row["status"] == "kept"]


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_pretraining_reads_an_export(finished, tmp_path, form):
    run_folder, kept = finished
    done = export(run_folder, tmp_path / "out", form=form, rows_per_file=6)
    assert (done.num_rows, done.num_lost) == (len(kept), 0)
    recipe = SourceRecipe(path=str(tmp_path / "out"), streaming=False)
    opened = open_source(recipe)
    assert len(opened.rows) == len(kept)
    captions = {row["caption"] for row in kept}
    assert {opened.rows[index]["caption"] for index in range(len(opened.rows))} == captions
    samples = iterate_samples(
        SourceRecipe(path=str(tmp_path / "out")),
        DataRecipe(sources=(SourceRecipe(path=str(tmp_path / "out")),)),
        patch_size=16,
        num_samples=100,
    )
    assert sorted(sample.caption for sample in samples) == sorted(row["caption"] for row in kept)


def test_datasets_reads_tars(finished, tmp_path):
    run_folder, kept = finished
    export(run_folder, tmp_path / "out", rows_per_file=6)
    tars = sorted(str(path) for path in (tmp_path / "out").glob("png-*.tar"))
    read = datasets.load_dataset("webdataset", data_files=tars, split="train", cache_dir=str(tmp_path / "cache"))
    by_id = {row["sample_id"]: row for row in kept}
    assert len(tars) > 1
    for row in read:
        expected = by_id[row["__key__"]]
        assert row["txt"] == expected["caption"]
        assert row["json"]["overall"] == expected["overall"]
        assert row["png"].size == (expected["width"], expected["height"])
    index = pq.read_table(tmp_path / "out" / "index.parquet").to_pylist()
    assert {row["sample_id"] for row in index} == by_id.keys()
    assert {row["tar"] for row in index} == {path.name for path in (tmp_path / "out").glob("*.tar")}


def test_the_index_of_tars_is_written_as_it_grows(finished, tmp_path, monkeypatch):
    run_folder, kept = finished
    export(run_folder, tmp_path / "one")
    monkeypatch.setattr(exports, "ROWS_OF_INDEX", 4)
    held = []
    made = exports.table_of
    monkeypatch.setattr(exports, "table_of", lambda rows, schema: held.append(len(rows)) or made(rows, schema))
    export(run_folder, tmp_path / "many")
    assert max(held) == 4
    assert sum(held) == len(kept)
    first, second = (pq.read_table(tmp_path / name / "index.parquet") for name in ("one", "many"))
    assert first.equals(second)
    for path in (tmp_path / "one").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "many" / path.name).read_bytes()


def test_datasets_reads_parquet(finished, tmp_path):
    run_folder, kept = finished
    export(run_folder, tmp_path / "out", form="parquet", rows_per_file=6)
    files = sorted(str(path) for path in (tmp_path / "out").glob("*.parquet"))
    assert len(files) == -(-len(kept) // 6)
    read = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["sample_id"] for row in read] == [row["sample_id"] for row in kept]
    for row, expected in zip(read, kept, strict=True):
        assert isinstance(row["image"], Image.Image)
        assert (row["caption"], row["A"], row["license"]) == (expected["caption"], expected["A"], expected["license"])


def test_equal_runs_give_equal_tars_and_other_types_become_png(finished, tmp_path):
    run_folder, kept = finished
    export(run_folder, tmp_path / "first")
    export(run_folder, tmp_path / "second")
    names = sorted(path.name for path in (tmp_path / "first").glob("*.tar"))
    assert names == ["jpg-00000.tar", "png-00000.tar"]
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    animation = next(row for row in kept if row["key"] == "moving.gif")
    with (
        tarfile.open(tmp_path / "first" / "png-00000.tar") as tar,
        Image.open(tar.extractfile(f"{animation['sample_id']}.png")) as image,
    ):
        assert (image.format, image.size, getattr(image, "n_frames", 1)) == ("PNG", (96, 96), 1)


def test_rows_whose_files_went_away_are_counted(finished, tmp_path):
    run_folder, kept = finished
    (run_folder.parent / "pictures" / "005.png").rename(tmp_path / "away.png")
    done = export(run_folder, tmp_path / "out")
    (tmp_path / "away.png").rename(run_folder.parent / "pictures" / "005.png")
    assert (done.num_rows, done.num_lost) == (len(kept) - 1, 1)
    lost = json.loads((tmp_path / "out" / "export.json").read_text())["lost"]
    assert lost == [row["sample_id"] for row in kept if row["key"] == "005.png"]


def test_what_cannot_be_exported_is_refused(finished, tmp_path):
    run_folder, _ = finished
    with pytest.raises(InputError, match="no form 'lance'; there are parquet, webdataset"):
        export(run_folder, tmp_path / "out", form="lance")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="is not empty"):
        export(run_folder, tmp_path / "full")
    with pytest.raises(InputError, match="is no run folder"):
        export(tmp_path / "full", tmp_path / "out")
