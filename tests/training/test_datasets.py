# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pairs from each kind of source, what is left out, and a split that nothing leaks into."""

import io
import json
import logging
import random

import datasets
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from PIL import Image

from turingvit_hf.errors import InputError
from turingvit_hf.training.datasets import FEATURES, load_pairs, split_pairs


def picture(number, size=(20, 12), mode="RGB"):
    return Image.new("RGB", size, ((37 * number) % 256, (91 * number) % 256, number % 256)).convert(mode)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pairs_of(numbers, captions):
    images = [{"bytes": png(picture(number)), "path": None} for number in numbers]
    return datasets.Dataset.from_dict({"image": images, "caption": captions}, features=FEATURES)


def load(source, **options):
    return load_pairs(str(source), **{"num_examples": 100, "max_pixels": 192 * 192, "seed": 0} | options)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Whatever datasets caches stays in the test's folder; it need not sleep 5 s after each parquet stream."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def folder_of_pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = []
    for number in range(10):
        picture(number).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": f"  picture\nnumber {number} "})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_shapes_are_the_same_for_the_same_seed():
    one, same, other = (load("shapes", num_examples=12, seed=seed) for seed in (3, 3, 4))
    assert one["caption"][:] == same["caption"][:] != other["caption"][:]
    assert [image.tobytes() for image in one["image"]] == [image.tobytes() for image in same["image"]]
    assert len(set(one["caption"])) == 12


def test_a_folder_with_metadata(folder_of_pictures):
    pairs = load(folder_of_pictures)
    assert sorted(pairs["caption"]) == [f"picture number {number}" for number in range(10)]
    for image, caption in zip(pairs["image"], pairs["caption"], strict=True):
        assert image.tobytes() == picture(int(caption.split()[-1])).tobytes()


# datasets leaves metadata.csv to the garbage collector
@pytest.mark.filterwarnings("ignore:.*metadata.csv:pytest.PytestUnraisableExceptionWarning")
def test_a_folder_with_a_table_of_captions(folder_of_pictures):
    (folder_of_pictures / "metadata.jsonl").unlink()
    rows = [f"{number}.png,number {number}\n" for number in range(10)]
    (folder_of_pictures / "metadata.csv").write_text("".join(["file_name,caption\n", *rows]))
    assert sorted(load(folder_of_pictures)["caption"]) == [f"number {number}" for number in range(10)]


def test_a_folder_with_a_folder_for_each_class(tmp_path):
    for number in range(10):
        folder = tmp_path / "pictures" / ("gray_wolf" if number % 2 else "cat")
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number}.png")
    assert sorted(load(tmp_path / "pictures")["caption"]) == ["cat"] * 5 + ["gray wolf"] * 5


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_parquet(tmp_path, kind):
    folder = tmp_path / "tables"
    folder.mkdir()
    images = [{"bytes": png(picture(number)), "path": None} for number in range(9)]
    captions = [[f"first {number}", "second"] for number in range(9)]
    datasets.Dataset.from_dict({"png": images, "captions": captions}).to_parquet(str(folder / "pairs.parquet"))
    pairs = load(folder / "pairs.parquet" if kind == "file" else folder)
    assert sorted(pairs["caption"]) == [f"first {number}" for number in range(9)]
    assert {image.size for image in pairs["image"]} == {(20, 12)}


def test_what_cannot_be_used_is_counted_and_named(folder_of_pictures, caplog):
    with (folder_of_pictures / "metadata.jsonl").open("a") as file:
        for name, text in (("cut.png", "cut off"), ("text.png", "no picture"), ("blank.png", " ")):
            file.write(json.dumps({"file_name": name, "text": text}) + "\n")
    (folder_of_pictures / "cut.png").write_bytes(png(picture(1, (64, 64)))[:60])
    (folder_of_pictures / "text.png").write_text("not a picture")
    picture(2).save(folder_of_pictures / "blank.png")
    with caplog.at_level(logging.WARNING, "turingvit_hf"):
        pairs = load(folder_of_pictures)
    assert len(pairs) == 10
    assert sorted(caplog.messages) == [
        "1 of 13 pairs left out: caption is empty or no text",
        "2 of 13 pairs left out: picture cannot be read",
    ]


def test_large_pictures_are_shrunk_and_transparent_ones_laid_on_white(folder_of_pictures):
    picture(0, (900, 300)).save(folder_of_pictures / "0.png")
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(folder_of_pictures / "1.png")
    by_caption = {row["caption"]: row["image"] for row in load(folder_of_pictures, max_pixels=64 * 64)}
    large = by_caption["picture number 0"]
    assert large.width * large.height <= 64 * 64
    assert large.width / large.height == pytest.approx(3, rel=0.05)
    assert by_caption["picture number 1"].getpixel((3, 3)) == (255, 255, 255)


def test_sources_that_cannot_be_used(tmp_path, folder_of_pictures):
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "empty").mkdir()
    datasets.Dataset.from_dict({"image": [b""], "score": [1.0]}).to_parquet(str(tmp_path / "no_caption.parquet"))
    for source, message in (
        (tmp_path / "nowhere", "there is no file or folder"),
        (tmp_path / "table.csv", "a file must be .parquet"),
        (tmp_path / "empty", "cannot open"),
        (tmp_path / "no_caption.parquet", r"has no caption column: it has \['image', 'score'\]"),
        ("no-such-dataset", "cannot open 'no-such-dataset' as shapes, stamps, a folder"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            load(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="has 5 usable pairs of picture and caption; at least 8 are needed"):
        load(folder_of_pictures, num_examples=5)


@settings(max_examples=40)
@given(data=st.data(), seed=st.integers(0, 5))
def test_no_caption_and_no_picture_is_on_both_sides(data, seed):
    num_pairs = data.draw(st.integers(8, 24))
    numbers = data.draw(st.lists(st.integers(0, 12), min_size=num_pairs, max_size=num_pairs))
    words = st.sampled_from(["A cat", "a  CAT", *"bcdefghijk"])
    captions = data.draw(st.lists(words, min_size=num_pairs, max_size=num_pairs))
    try:
        parts = split_pairs(pairs_of(numbers, captions), num_held_out=num_pairs // 2, seed=seed)
    except InputError:
        reject()  # one family has nearly all of them
    assert 2 <= len(parts["test"]) <= num_pairs // 2
    assert len(parts["train"]) + len(parts["test"]) == num_pairs
    for key in (lambda row: " ".join(row["caption"].lower().split()), lambda row: row["image"].tobytes()):
        assert not {key(row) for row in parts["train"]} & {key(row) for row in parts["test"]}


def test_the_split_follows_the_seed_and_holds_out_as_many_as_asked():
    pairs = pairs_of(range(40), [f"caption {number}" for number in range(40)])
    one, same, other = (split_pairs(pairs, num_held_out=12, seed=seed)["test"]["caption"][:] for seed in (0, 0, 1))
    assert one == same
    assert len(one) == 12
    assert one != other


def test_few_families_cannot_be_split():
    pairs = pairs_of(range(20), ["cat", "dog"] * 10)
    with pytest.raises(InputError, match="20 pairs have only 2 captions or pictures that differ"):
        split_pairs(pairs, num_held_out=8, seed=0)


def test_families_join_over_captions_and_pictures():
    # pairs 0-1 share a picture, 1-2 a caption: 0 and 2 must not part
    numbers, captions = [0, 0, *range(2, 12)], ["a", "b", "b", *(f"c{number}" for number in range(9))]
    for seed in range(20):
        parts = split_pairs(pairs_of(numbers, captions), num_held_out=5, seed=seed)
        held_out = set(parts["test"]["caption"]) & {"a", "b"}
        assert held_out in (set(), {"a", "b"})


def test_random_captions_of_shapes_never_repeat_between_the_parts():
    pairs = load("shapes", num_examples=300, seed=random.Random(0).randrange(100))
    parts = split_pairs(pairs, num_held_out=50, seed=0)
    assert not set(parts["train"]["caption"]) & set(parts["test"]["caption"])
