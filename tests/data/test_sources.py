# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Each form of data opens as the same rows, by index and as a stream; what is missing is named."""

import gzip
import json
import sys
import tarfile

import datasets
import huggingface_hub
import pytest

from tests.training.data_files import FORMS, NUM_PICTURES, add_to_tar, caption, encoded, picture, write
from turingvit_hf.data import rows
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.sources import open_source
from turingvit_hf.data.streams import Position, RowStream
from turingvit_hf.errors import InputError
from turingvit_hf.training.arguments import DataRecipe
from turingvit_hf.training.data.captions import iterate_captions
from turingvit_hf.training.data.samples import iterate_samples


def captions_of(recipe):
    return [sample.caption for sample in iterate_samples(recipe, DataRecipe(), patch_size=16, num_samples=1000)]


@pytest.mark.parametrize("streaming", [False, True], ids=["by index", "stream"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_all_pictures(form, streaming, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = write(form, tmp_path / "data")
    recipe = SourceRecipe(str(path), streaming=streaming)
    assert isinstance(open_source(recipe).rows, RowStream) == streaming
    expected = [caption(number) for number in range(NUM_PICTURES)]
    if form == "classes":
        expected = [f"class {number % 3}" for number in range(NUM_PICTURES)]
    assert sorted(captions_of(recipe)) == sorted(expected)
    assert len(captions_of(SourceRecipe(str(path), streaming=streaming, max_samples=7))) == 7


@pytest.mark.parametrize("pattern", ["*.tar", "[01].tar"])
def test_globs_name_files(pattern, tmp_path):
    path = write("webdataset", tmp_path / "data")
    expected = NUM_PICTURES if pattern == "*.tar" else NUM_PICTURES * 2 // 3
    assert len(captions_of(SourceRecipe(f"{path}/{pattern}"))) == expected


def test_compressed_tars_stream(tmp_path):
    path = write("webdataset", tmp_path / "data", num_shards=1) / "0.tar"
    packed = tmp_path / "data.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert len(captions_of(SourceRecipe(str(packed)))) == NUM_PICTURES
    with pytest.raises(InputError, match="a compressed tar needs streaming: true"):
        open_source(SourceRecipe(str(packed), streaming=False))


def test_a_stream_is_opened_by_its_first_sample_alone(tmp_path, monkeypatch):
    path = write("webdataset", tmp_path / "data")
    keys_read = []
    decode = rows.decode_tar_sample
    monkeypatch.setattr(rows, "decode_tar_sample", lambda *args: keys_read.append(args[0]) or decode(*args))
    open_source(SourceRecipe(str(path)))
    assert len(keys_read) == 1


def test_a_hub_dataset_is_opened_by_datasets(tmp_path):
    path = write("parquet", tmp_path / "data")
    assert len(captions_of(SourceRecipe(str(path), format="hub"))) == NUM_PICTURES


def test_columns_of_classes_give_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["red_fox", "owl"])})
    rows = {"image": [{"bytes": encoded(picture(0)), "path": None}] * 2, "label": [1, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data.parquet")
    assert captions_of(SourceRecipe(str(tmp_path / "data.parquet"))) == ["owl", "red fox"]


def test_shapes_are_the_same_every_time_and_differ_by_name():
    first, again = (captions_of(SourceRecipe("shapes", max_samples=5)) for _ in range(2))
    assert first == again
    assert not set(first) & set(captions_of(SourceRecipe("shapes:test", max_samples=5)))


def test_paths_of_a_list_start_at_the_list_and_may_leave_its_folder(tmp_path):
    (tmp_path / "lists").mkdir()
    picture(0).save(tmp_path / "a.png")
    rows = [{"path": "../a.png", "caption": "relative"}, {"path": str(tmp_path / "a.png"), "caption": "absolute"}]
    (tmp_path / "lists" / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert captions_of(SourceRecipe(str(tmp_path / "lists" / "all.jsonl"))) == ["relative", "absolute"]


def test_paths_of_a_folder_may_not(tmp_path, caplog):
    (tmp_path / "folder").mkdir()
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "folder" / "metadata.jsonl").write_text('{"file_name": "../a.png", "caption": "outside"}')
    assert captions_of(SourceRecipe(str(tmp_path / "folder"))) == []
    assert "1 rows" in caplog.text
    assert "file lies outside the folder of its source" in caplog.text


def test_two_shares_of_a_stream_are_all_of_it(tmp_path):
    for num_shards in (1, 5, 4):
        path = write("webdataset", tmp_path / str(num_shards), num_shards=num_shards)
        stream = open_source(SourceRecipe(str(path))).rows
        shares = [
            [row["__key__"] for row, _, _ in stream.iterate(Position(), index=index, num_shares=2, seed=0)]
            for index in range(2)
        ]
        assert len(shares[0]) + len(shares[1]) == len({*shares[0], *shares[1]}) == NUM_PICTURES


def test_captions_are_read_without_pictures(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps({"path": "none.png", "short": f"s{n}", "long": [f"l{n}", ""]}) for n in range(10))
    )
    source = SourceRecipe(str(tmp_path / "rows.jsonl"), caption_columns={"short": 0.5, "long": 0.5})
    assert sorted(iterate_captions([source], num_captions=100)) == sorted(f"{c}{n}" for c in "sl" for n in range(10))
    assert len(list(iterate_captions([source, SourceRecipe("shapes")], num_captions=8))) == 8


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("./nothing", {}, "there is no file or folder './nothing'"),
        ("nothing/*.parquet", {}, "no file matches 'nothing/\\*.parquet'"),
        ("some/deep/path", {}, "there is no file or folder 'some/deep/path'"),
        ("pictures/a.png", {}, "there is no file or folder 'pictures/a.png'"),
        ("nothing/", {}, "there is no file or folder 'nothing/'"),
        ("my pictures", {}, "there is no file or folder 'my pictures'"),
        ("{tmp}/empty", {}, "has no metadata.jsonl, no metadata.csv and no sub-folder with image files"),
        ("{tmp}/notes.txt", {}, "cannot tell the format of"),
        ("{tmp}/empty.jsonl", {}, "has no rows"),
        ("{tmp}/rows.jsonl", {}, r"has no image column: it has \['a', 'b'\], looked for"),
        ("{tmp}/rows.jsonl", {"media_column": "c"}, r"it has \['a', 'b'\], looked for \['c'\]"),
        ("{tmp}/rows.jsonl", {"media_column": "a"}, r"has no caption column: it has \['b'\]"),
        ("{tmp}/rows.jsonl", {"media_column": "a", "caption_columns": {"x": 1.0}}, r"looked for \['x'\]"),
        ("{tmp}/rows.jsonl", {"media_column": "a", "caption_columns": {"b": 0.0}}, "a probability above 0"),
        ("{tmp}/broken.parquet", {}, "cannot open .* as parquet"),
        ("{tmp}/broken.tar", {}, "none of 1 tars .* rest of a tar cannot be read: .*broken.tar"),
        ("{tmp}/empty.tar", {}, "has no rows"),
        ("{tmp}/empty.tar", {"streaming": False}, "has no rows"),
        ("{tmp}/none-*.tar", {}, "no file matches"),
    ],
)
def test_what_cannot_be_opened_is_named(path, options, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "rows.jsonl").write_text('{"a": "x.png", "b": "text"}\n')
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "broken.tar").write_bytes(b"no tar at all" * 100)
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(InputError, match=message):
        open_source(SourceRecipe(path.format(tmp=tmp_path), **options))


def test_a_misspelt_folder_beside_others_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no file or folder 'data/picturs'"):
        open_source(SourceRecipe("data/picturs"))


def test_a_hub_that_cannot_be_reached_is_told_once_and_at_once(monkeypatch, caplog):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("datasets would try for half a minute"))
    with pytest.raises(InputError, match=r"^cannot open .some/id. as hub: .* cannot be reached .*OFFLINE") as caught:
        open_source(SourceRecipe("some/id"))
    assert "\n" not in str(caught.value)
    assert not caplog.records


def test_a_dataset_that_the_hub_does_not_have_is_named(monkeypatch):
    def dataset_info(self, name, timeout):
        request = httpx_of_hub().Request("GET", "http://hub")
        response = httpx_of_hub().Response(404, request=request)
        raise huggingface_hub.errors.RepositoryNotFoundError("404", response=response)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    with pytest.raises(InputError, match="no such folder here, and no such dataset there"):
        open_source(SourceRecipe("some/id"))


def httpx_of_hub():
    """The library that huggingface_hub sends its requests by."""
    return sys.modules[huggingface_hub.errors.HTTPError.__module__.partition(".")[0]]


def test_a_tar_that_is_cut_off_gives_what_it_has(tmp_path, caplog):
    path = write("webdataset", tmp_path / "data", num_shards=3)
    whole = (path / "0.tar").read_bytes()
    (path / "0.tar").write_bytes(whole[: len(whole) // 2])
    (path / "1.tar").write_bytes(b"")
    captions = captions_of(SourceRecipe(str(path)))
    assert 25 < len(captions) == len(set(captions)) < 35
    assert "2 rows of" in caplog.text
    assert "rest of a tar cannot be read" in caplog.text
    stream = open_source(SourceRecipe(str(path / "0.tar"))).rows
    rows = list(stream.read_shard(0, 0))
    for start in range(len(rows) + 2):
        assert [str(row) for row in stream.read_shard(0, start)] == [str(row) for row in rows[start:]]


def test_a_damaged_parquet_file_is_named(tmp_path):
    path = write("parquet", tmp_path / "data", num_shards=2)
    damaged = bytearray((path / "1.parquet").read_bytes())
    damaged[200:-2000] = bytes(len(damaged) - 2200)
    (path / "1.parquet").write_bytes(damaged)
    with pytest.raises(InputError, match=r"cannot read shard 1 of 2 of .*data"):
        captions_of(SourceRecipe(str(path), streaming=True))


def test_samples_of_a_tar_may_be_of_several_formats(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_to_tar(tar, "._a.png", b"what macOS leaves behind")
        for number, ending in enumerate(("png", "JPG", "webp")):
            add_to_tar(tar, f"{number}.{ending}", encoded(picture(number), {"JPG": "JPEG"}.get(ending, ending)))
            add_to_tar(tar, f"{number}.txt", ending.encode())
    for streaming in (True, False):
        assert captions_of(SourceRecipe(str(tmp_path / "a.tar"), streaming=streaming)) == ["png", "JPG", "webp"]


def test_a_damaged_json_file_in_a_tar_costs_one_row(tmp_path, caplog):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(3):
            add_to_tar(tar, f"{number}.png", encoded(picture(number)))
            add_to_tar(tar, f"{number}.json", b"{" if number == 1 else b'{"caption": "a"}')
    for streaming in (True, False):
        assert captions_of(SourceRecipe(str(tmp_path / "a.tar"), streaming=streaming)) == ["a", "a"]
    assert "JSON of the sample cannot be read" in caplog.text
