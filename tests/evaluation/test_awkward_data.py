# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Data that do not come as a command expects, and results that must not be taken for each other."""

import importlib.util
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from turingvit_hf import TuringViTConfig, TuringViTImageProcessor, TuringViTModel
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.classes import Classes, numbers_of
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.evaluation.options import EvaluationOptions
from turingvit_hf.evaluation.report import make_table
from turingvit_hf.evaluation.run import run_evaluation


NAMES = ("blue kite", "green cat", "red dog")
COLORS = {"red": 0, "green": 1, "blue": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tower, and pictures of three colors in a sub-folder a class."""
    folder = tmp_path_factory.mktemp("awkward")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    TuringViTModel(TuringViTConfig(**sizes, full_attention_interval=2)).save_pretrained(folder / "tower")
    TuringViTImageProcessor().save_pretrained(folder / "tower")
    draws = np.random.default_rng(0)
    for name in NAMES:
        place = folder / "pictures" / name.replace(" ", "_")
        place.mkdir(parents=True)
        for number in range(4):
            pixels = draws.integers(0, 60, (32, 48, 3), dtype=np.uint8)
            pixels[..., COLORS[name.split()[0]]] += 150
            Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def evaluate(folder: Path, out: Path, **options):
    pictures = str(folder / "pictures")
    values = {"model": str(folder / "tower"), "task": "knn", "train_data": pictures, "data": pictures}
    values |= {"features": "mean", "neighbors": 1, "device": "cpu"}
    return run_evaluation(EvaluationOptions(**values | {"out": out} | options))


def write_parquet(path: Path, folder: Path, names: tuple[str, ...], images_of: tuple[str, ...]) -> str:
    """A table as `datasets` writes it: pictures, and numbers of classes that it names itself."""
    files = [file for name in images_of for file in (folder / "pictures" / name.replace(" ", "_")).iterdir()]
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "label": [names.index(file.parent.name.replace("_", " ")) for file in files],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return str(path)


def test_numbers_of_classes_go_by_the_names_that_their_data_give_them(folder, tmp_path):
    """Each image has itself for its nearest neighbor, whatever number its class has in one table or the other."""
    part = write_parquet(tmp_path / "part.parquet", folder, NAMES[1:], NAMES[1:])
    turned = write_parquet(tmp_path / "turned.parquet", folder, NAMES[::-1], NAMES)
    more = write_parquet(tmp_path / "more.parquet", folder, ("another", *NAMES), NAMES)
    for train_data, data, num_images in (
        (str(folder / "pictures"), part, 8),
        (str(folder / "pictures"), turned, 12),
        (turned, str(folder / "pictures"), 12),
        (more, turned, 12),
        (turned, more, 12),
    ):
        result = evaluate(folder, tmp_path / "out", train_data=train_data, data=data)
        assert (result["figures"]["top1"]["value"], result["num_images"]) == (1.0, num_images)
    few = evaluate(folder, tmp_path / "out", train_data=part, data=turned)
    assert few["figures"]["top1"]["value"] == 1.0
    assert few["left_out"] == {"label is none of the classes": 4}


def test_numbers_stay_what_they_are_where_names_are_written_differently():
    classes = Classes(("n01", "n02", "n03"), ("tench", "goldfish", "2"))
    assert numbers_of(("tench, Tinca tinca", "goldfish", "shark"), classes) is None
    assert numbers_of(("kite", "1", "0", "cat"), classes) is None
    assert numbers_of(("n03", "n02", "n01"), classes) == [2, 1, 0]
    assert numbers_of(("n02", "kite"), classes) == [1, None]
    assert [classes.index_of(label, [1, None]) for label in (0, "n01", 2)] == [1, 0, 2]
    with pytest.raises(ValueError, match="none of the classes"):
        classes.index_of(1, [1, None])


def test_rows_without_a_label_are_left_out(folder, tmp_path):
    files = sorted((folder / "pictures").rglob("*.png"))
    for number, file in enumerate(files):
        shutil.copy(file, tmp_path / f"{number}.png")
    rows = [f"{number}.png,{file.parent.name}" for number, file in enumerate(files)]
    # one row is empty behind the comma, one ends before it
    rows[0], rows[1] = "0.png,", "1.png"
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    result = evaluate(folder, tmp_path / "out", train_data=str(tmp_path), data=str(tmp_path))
    assert result["left_out"] == {"row has no label": 2}
    assert (result["num_classes"], result["num_images"], result["figures"]["top1"]["value"]) == (3, 10, 1.0)


def test_what_is_too_little_is_said_in_one_line(folder, tmp_path):
    single = tmp_path / "single" / "red_dog"
    single.mkdir(parents=True)
    shutil.copy(folder / "pictures" / "red_dog" / "0.png", single)
    for probe in ("lbfgs", "sgd"):
        with pytest.raises(InputError, match=r"1 images|there are 1 in all"):
            evaluate(folder, tmp_path / "out", task="linear-probe", train_data=str(single.parent), probe=probe)
    with pytest.raises(InputError, match="shots=5: class 'blue kite' has 4 training images"):
        evaluate(folder, tmp_path / "out", shots=5)
    with pytest.raises(InputError, match="max_samples=0"):
        evaluate(folder, tmp_path / "out", max_samples=0)


def test_models_that_cannot_be_loaded_are_errors_of_one_line(folder, tmp_path):
    for name in ("cut", "foreign"):
        shutil.copytree(folder / "tower", tmp_path / name)
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    # what transformers has in a package that is not installed: its message has many lines
    (tmp_path / "foreign" / "config.json").write_text('{"model_type": "timm_wrapper", "architecture": "resnet18"}')
    reasons = {"cut": "deserializing header"}
    if importlib.util.find_spec("timm") is None:
        reasons["foreign"] = "requires the timm library"
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=reason) as error:
            evaluate(folder, tmp_path / "out", model=str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_numbers_that_are_none_are_said_in_one_line(folder, tmp_path, monkeypatch):
    options = {"task": "attentive-probe", "features": "pooled", "epochs": 1}
    for rates in ((1e-3, float("nan")), (float("inf"),), ()):
        with pytest.raises(InputError, match=r"learning_rates=.*above 0 and finite"):
            evaluate(folder, tmp_path / "out", learning_rates=rates, **options)
    with pytest.raises(InputError, match="diverged"):
        evaluate(folder, tmp_path / "out", learning_rates=(1e30,), **options)
    encode = TransformersEncoder.image_features
    # what float16 makes of a tower that is too large for it
    monkeypatch.setattr(
        TransformersEncoder, "image_features", lambda self, images, kind: encode(self, images, kind) * 1e39
    )
    with pytest.raises(InputError, match="not finite in float32: take another dtype"):
        evaluate(folder, tmp_path / "out")


def test_other_files_beside_results_are_left_out_of_the_table(folder, tmp_path, caplog):
    (tmp_path / "results").mkdir()
    for number, text in enumerate(('{"a": 1}', "[]", '{"a":')):
        (tmp_path / "results" / f"{number}.json").write_text(text)
    evaluate(folder, tmp_path)
    assert caplog.text.count("is no result of an evaluation") == 3
    assert (tmp_path / "table.md").read_text().count("| top1 |") == 1


def test_an_output_inside_of_model_or_data_makes_no_other_model_or_data_of_them(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "copy")
    encode, calls = TransformersEncoder.image_features, []
    monkeypatch.setattr(
        TransformersEncoder,
        "image_features",
        lambda self, images, kind: calls.append(len(images)) or encode(self, images, kind),
    )
    for place in ("tower/eval", "tower", "pictures/eval/of/mine"):
        for shots in (None, 2):
            evaluate(tmp_path / "copy", tmp_path / "copy" / place, shots=shots)
        # once as images to learn from, once as those of the test
        assert calls == [12, 12], place
        calls.clear()
    with (tmp_path / "copy" / "tower" / "config.json").open("a") as file:
        file.write("\n")
    evaluate(tmp_path / "copy", tmp_path / "copy" / "tower" / "eval")
    assert calls == [12, 12]


def test_files_of_a_pattern_are_told_from_earlier_ones(folder, tmp_path, monkeypatch):
    encode, calls = TransformersEncoder.image_features, []
    monkeypatch.setattr(
        TransformersEncoder,
        "image_features",
        lambda self, images, kind: calls.append(len(images)) or encode(self, images, kind),
    )
    for name in NAMES[:2]:  # as many pictures, others
        write_parquet(tmp_path / "one.parquet", folder, NAMES, (name,))
        for _ in range(2):
            evaluate(folder, tmp_path / "out", data=str(tmp_path / "*.parquet"))
    assert calls == [12, 4, 4]


def test_results_that_differ_in_any_option_are_all_kept(folder, tmp_path):
    """Two folders called `test`, and options that no short name of a setting tells."""
    other = tmp_path / "other" / "pictures"
    shutil.copytree(folder / "pictures", other)
    shutil.rmtree(other / "red_dog")
    first = evaluate(folder, tmp_path / "out")
    evaluate(folder, tmp_path / "out", data=str(other))
    evaluate(folder, tmp_path / "out", crop_border=3)
    evaluate(folder, tmp_path / "out", tokens_per_batch=5)  # replaces the first one: it changes no figure
    files = sorted((tmp_path / "out" / "results").iterdir())
    assert len(files) == 3
    rows = [row for row in (tmp_path / "out" / "table.md").read_text().splitlines() if "| top1 |" in row]
    here = f"mean, 1 neighbors, data={folder / 'pictures'}"
    assert {row.split(" | ")[2] for row in rows} == {
        f"{here}, crop_border=0",
        f"{here}, crop_border=3",
        f"mean, 1 neighbors, data={other}, crop_border=0",
    }
    results = [json.loads(file.read_text()) for file in files]
    assert sorted(result["num_images"] for result in results) == [8, 12, 12]
    # rows of one model each stay short and stand in one row
    another = {**first, "model": "another", "options": {**first["options"], "data": "elsewhere"}}
    assert "| knn | mean, 1 neighbors | top1 |" in make_table([first, another])
    revised = {**first, "options": {**first["options"], "revision": "abc"}}
    assert f"| {first['model']} (ours) | {first['model']}@abc (ours) |" in make_table([first, revised])
