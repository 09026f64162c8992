# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""`turingvit evaluate` from end to end: every task, resumed, on two processes, with data of all layouts."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import turingvit_hf
from tests.curation import tiny_models
from tests.processes import launch, run_command
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation import features as features_module
from turingvit_hf.evaluation import report
from turingvit_hf.evaluation.classes import read_classes
from turingvit_hf.evaluation.command import evaluate
from turingvit_hf.evaluation.datasets import open_evaluation_data
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.evaluation.options import EvaluationOptions, describe
from turingvit_hf.evaluation.report import make_table
from turingvit_hf.evaluation.run import run_evaluation


ROOT = Path(__file__).parents[2]
CLASSES = ("blue kite", "green cat", "red dog")


def draw_pictures(folder: Path, num_images: int, seed: int) -> None:
    """Sub-folders of noise in a color of each class, 20 to 60 pixels a side."""
    draws = np.random.default_rng(seed)
    for index, name in enumerate(CLASSES):
        (folder / name.replace(" ", "_")).mkdir(parents=True)
        for number in range(num_images):
            pixels = draws.integers(0, 80, (*draws.integers(20, 60, 2), 3), dtype=np.uint8)
            pixels[..., 2 - index] += 120
            Image.fromarray(pixels).save(folder / name.replace(" ", "_") / f"{number:02}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    tiny_models.save_dual_encoder(folder / "model")
    tiny_models.save_clip(folder / "clip")
    draw_pictures(folder / "train", 8, seed=1)
    draw_pictures(folder / "test", 5, seed=2)
    files = sorted(path.relative_to(folder / "test") for path in (folder / "test").rglob("*.png"))
    captions = [f"a {file.parent.name.replace('_', ' ')}" for file in files]
    lines = [
        {"image": f"test/{file}", "caption": [caption, f"{caption} {' '.join(tiny_models.WORDS[n : n + 3])}"]}
        for n, (file, caption) in enumerate(zip(files, captions, strict=True))
    ]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    karpathy = [
        {
            "filepath": "test",
            "filename": str(file),
            "split": "test" if number else "train",
            "sentences": [{"raw": text} for text in line["caption"]],
        }
        for number, (file, line) in enumerate(zip(files, lines, strict=True))
    ]
    (folder / "dataset_coco.json").write_text(json.dumps({"images": karpathy}))
    coco = {
        "images": [{"id": 7 + number, "file_name": str(file)} for number, file in enumerate(files)],
        "annotations": [
            {"image_id": 7 + number, "caption": text} for number, line in enumerate(lines) for text in line["caption"]
        ],
    }
    (folder / "captions_val.json").write_text(json.dumps(coco))
    return folder


def options_of(folder: Path, out: Path, task: str, **others) -> EvaluationOptions:
    values = {"data": str(folder / ("captions.jsonl" if task == "retrieval" else "test")), "device": "cpu"}
    if task in ("knn", "linear-probe"):
        values["train_data"] = str(folder / "train")
    return EvaluationOptions(**{"model": str(folder / "model"), "task": task, "out": str(out), **values, **others})


def decoded(folder: Path) -> tuple[list[np.ndarray], list[int]]:
    files = sorted((folder / "test").rglob("*.png"))
    images = [np.array(Image.open(file)).transpose(2, 0, 1) for file in files]
    return images, [CLASSES.index(file.parent.name.replace("_", " ")) for file in files]


@pytest.mark.parametrize("model", ["model", "clip"])
def test_zero_shot_is_the_argmax_of_the_models_own_logits(folder, tmp_path, model):
    result = run_evaluation(
        options_of(folder, tmp_path, "zero-shot", model=str(folder / model), templates=("a {}.",), name="imagenet-v2")
    )
    encoder = TransformersEncoder(str(folder / model))
    images, labels = decoded(folder)
    prompts = [f"a {name}." for name in CLASSES]
    logits = encoder.logits(encoder.image_features(images), encoder.text_features(prompts))
    expected = np.mean([int(row.argmax()) == label for row, label in zip(logits, labels, strict=True)])
    assert result["figures"]["top1"]["value"] == expected
    assert (result["num_images"], result["num_classes"], result["left_out"]) == (15, 3, {})
    table = (tmp_path / "table.md").read_text()
    assert "| imagenet-v2 | zero-shot | a {}. | top1 | " in table
    assert "| 74.7 | 77.4 | 77.6 | 77.6 | 78.0 |" in table


def test_retrieval_is_that_of_the_models_own_logits(folder, tmp_path):
    result = run_evaluation(options_of(folder, tmp_path, "retrieval", max_captions=2))
    encoder = TransformersEncoder(str(folder / "model"))
    images, _ = decoded(folder)
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    texts = [text for line in lines for text in line["caption"]]
    scores = encoder.logits(encoder.image_features(images), encoder.text_features(texts)).numpy()
    assert result["num_texts"] == 30
    for k in (5, 10):
        hits = np.mean([j // 2 in np.argsort(-scores[:, j])[:k] for j in range(30)])
        assert result["figures"][f"text_to_image_R@{k}"]["value"] == pytest.approx(hits, abs=1e-12)


def test_equal_captions_are_embedded_once(folder, tmp_path, monkeypatch):
    seen, embed = [], TransformersEncoder.text_features
    monkeypatch.setattr(
        TransformersEncoder, "text_features", lambda self, texts: seen.extend(texts) or embed(self, texts)
    )
    result = run_evaluation(options_of(folder, tmp_path, "retrieval", max_captions=1))
    assert sorted(seen) == sorted(f"a {name}" for name in CLASSES)
    assert result["num_texts"] == 15
    encoder = TransformersEncoder(str(folder / "model"))
    images, labels = decoded(folder)
    scores = encoder.logits(encoder.image_features(images), encoder.text_features([f"a {name}" for name in CLASSES]))
    # a caption is that of five images, and the right one of its five places comes first as often as the others
    expected = (scores.argmax(1) == torch.tensor(labels)).double().mean().item() / 5
    assert result["figures"]["image_to_text_R@1"]["value"] == pytest.approx(expected, abs=1e-12)


def test_many_prompts_fit_the_name_of_a_file(folder, tmp_path):
    prompts = tuple(f"a long way to say that this picture, number {number}, shows a {{}}." for number in range(8))
    for templates in (prompts, prompts[::-1], (*prompts, "ein schönes Bild: {} 🙂")):
        run_evaluation(options_of(folder, tmp_path, "zero-shot", templates=templates))
    assert len(list((tmp_path / "results").glob("*.json"))) == 3
    assert (tmp_path / "table.md").read_text().count("| top1 |") == 3


def test_prompts_and_captions_come_in_their_canonical_form_where_asked(folder, tmp_path):
    """The tokenizer knows lower-case words alone."""
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    loud = [
        {"image": str(folder / line["image"]), "caption": [f"{text.upper()}!" for text in line["caption"]]}
        for line in lines
    ]
    (tmp_path / "loud.jsonl").write_text("\n".join(map(json.dumps, loud)))
    (tmp_path / "loud.json").write_text(json.dumps({name: name.upper() for name in CLASSES}))
    for task, changed in (
        ("retrieval", {"data": str(tmp_path / "loud.jsonl")}),
        ("zero-shot", {"classes": str(tmp_path / "loud.json")}),
    ):
        quiet = run_evaluation(options_of(folder, tmp_path / "out", task, canonicalize=True))
        canonical = run_evaluation(options_of(folder, tmp_path / "out", task, canonicalize=True, **changed))
        assert canonical["figures"] == quiet["figures"]
        plain = run_evaluation(options_of(folder, tmp_path / "out", task, **changed))
        assert plain["figures"] != quiet["figures"]


@pytest.mark.parametrize("task", ["knn", "linear-probe"])
@pytest.mark.parametrize("kind", ["pooled", "mean", "embedding"])
def test_colors_are_learnt_from_frozen_features(folder, tmp_path, task, kind):
    result = run_evaluation(options_of(folder, tmp_path, task, features=kind, neighbors=5))
    assert result["figures"]["top1"]["value"] >= 0.9
    assert result["num_training_images"] == 24
    few = run_evaluation(options_of(folder, tmp_path, task, features=kind, shots=2))
    assert few["num_training_images"] == 6
    assert len(list((tmp_path / "results").glob("*.json"))) == 2


def test_all_layouts_of_captions_give_the_same(folder, tmp_path):
    whole = run_evaluation(options_of(folder, tmp_path, "retrieval"))
    coco = run_evaluation(
        options_of(folder, tmp_path, "retrieval", data=str(folder / "captions_val.json"), images=str(folder / "test"))
    )
    assert coco["figures"] == whole["figures"]
    karpathy = run_evaluation(options_of(folder, tmp_path, "retrieval", data=str(folder / "dataset_coco.json")))
    assert (karpathy["num_images"], karpathy["num_texts"]) == (14, 28)
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    rows = [{"image": str(folder / line["image"]), "caption": text} for line in lines for text in line["caption"]]
    (tmp_path / "one_each.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"image": "broken off\n')
    joined = run_evaluation(options_of(folder, tmp_path, "retrieval", data=str(tmp_path / "one_each.jsonl")))
    assert joined["figures"] == whole["figures"]
    assert joined["left_out"] == {"row is no JSON object": 1} | whole["left_out"]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "one_each.parquet")
    table = open_evaluation_data(str(tmp_path / "one_each.parquet"), texts="caption")
    assert len(table) == len(lines)
    assert [table.captions(table.rows[n]) for n in range(len(lines))] == [line["caption"] for line in lines]
    (tmp_path / "dicts.jsonl").write_text(
        "\n".join(json.dumps({**row, "image": {"path": row["image"]}}) for row in rows)
    )
    apart = open_evaluation_data(str(tmp_path / "dicts.jsonl"), texts="caption")
    assert len(apart) == len(rows)
    np.testing.assert_array_equal(apart.image(apart.rows[0]), table.image(table.rows[0]))
    with pytest.raises(InputError, match="no images of the split 'val'"):
        open_evaluation_data(str(folder / "dataset_coco.json"), texts="caption", split="val")


def test_an_interrupted_run_goes_on(folder, tmp_path, monkeypatch):
    """Killed in the third of four shards; the others are not made again, and the figures are those of one go."""
    monkeypatch.setattr(features_module, "IMAGES_PER_SHARD", 4)
    expected = run_evaluation(options_of(folder, tmp_path / "whole", "zero-shot"))
    encode, calls = TransformersEncoder.image_features, []

    def fails_at_the_third(self, images, kind="embedding"):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, images, kind)

    monkeypatch.setattr(TransformersEncoder, "image_features", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(options_of(folder, tmp_path / "killed", "zero-shot"))
    assert not (tmp_path / "killed" / "results").exists()
    resumed = run_evaluation(options_of(folder, tmp_path / "killed", "zero-shot"))
    assert calls == [4, 4, 4, 4, 3]
    assert resumed["figures"] == expected["figures"]
    run_evaluation(options_of(folder, tmp_path / "killed", "zero-shot", templates="name"))
    assert len(calls) == 5
    assert not list((tmp_path / "killed").rglob(".*"))


def test_what_features_depend_on_makes_new_ones(folder, tmp_path):
    run_evaluation(options_of(folder, tmp_path, "zero-shot"))
    run_evaluation(options_of(folder, tmp_path, "zero-shot", image_size=16))
    specs = [json.loads(path.read_text()) for path in (tmp_path / "features").glob("*/spec.json")]
    sizes = [spec["image_options"].get("size") for spec in specs if "data" in spec]
    assert sorted(map(str, sizes)) == ["None", "{'height': 16, 'width': 16}"]
    assert {spec["turingvit_hf"] for spec in specs} == {turingvit_hf.__version__}


@pytest.mark.slow
def test_two_processes_are_one(folder, tmp_path):
    """Under torchrun over gloo, with data of more than one shard."""
    draw_pictures(tmp_path / "many", 100, seed=3)
    arguments = ["--model", str(folder / "model"), "--data", str(tmp_path / "many"), "--device", "cpu"]
    arguments += ["--task", "zero-shot", "--template", "clip-7"]
    for name in ("one", "two"):
        command = ["-m", "turingvit_hf.evaluation", *arguments, "--out", tmp_path / name]
        result = launch(command) if name == "two" else run_command([sys.executable, *command])
        assert result.returncode == 0, result.stderr[-3000:]
        assert result.stdout.count("next: look at") == 1
    one, two = (json.loads(next((tmp_path / name / "results").glob("*.json")).read_text()) for name in ("one", "two"))
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    assert one["figures"] == two["figures"]
    assert one["num_images"] == two["num_images"] == 300
    files = [sorted(path.name for path in (tmp_path / name / "features").rglob("*")) for name in ("one", "two")]
    assert files[0] == files[1]


def test_rows_that_cannot_be_used_are_counted(folder, tmp_path):
    rows = [{"image": str(folder / "test" / "red_dog" / "00.png"), "label": 2}, {"image": "missing.png", "label": 0}]
    rows += [{"image": rows[0]["image"], "label": "fish"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    options = options_of(folder, tmp_path / "out", "zero-shot", data=str(tmp_path / "rows.jsonl"))
    with pytest.raises(InputError, match="does not name its classes"):
        run_evaluation(options)
    result = run_evaluation(
        options_of(folder, tmp_path / "out", "zero-shot", data=options.data, classes=str(tmp_path / "names.txt"))
    )
    assert result["num_images"] == 1
    assert result["left_out"] == {"file is missing": 1, "label is none of the classes": 1}


def test_borders_are_cut_off(folder):
    plain, cut = (open_evaluation_data(str(folder / "test"), texts="label", crop_border=border) for border in (0, 2))
    np.testing.assert_array_equal(cut.image(cut.rows[0]), plain.image(plain.rows[0])[:, 2:-2, 2:-2])


def test_classes_are_read_from_files(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"n01": "tench", "n02": "goldfish"}))
    classes = read_classes(path)
    assert [classes.index_of(label) for label in ("n02", "tench", 1, "0")] == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="none of the classes"):
        classes.index_of("n03")
    path.write_text(json.dumps({"red_dog": "hound", "blue kite": "bird"}))
    classes = read_classes(path)  # folders are read with spaces, and may be written down with underscores
    assert [classes.index_of(label) for label in ("red dog", "red_dog", "blue kite", "blue_kite")] == [0, 0, 1, 1]
    path.write_text(json.dumps(["a", "a"]))
    with pytest.raises(InputError, match="'a' stands twice"):
        read_classes(path)
    with pytest.raises(InputError, match="cannot read the classes"):
        read_classes(tmp_path / "missing.txt")


def test_lists_of_imagenet_come_out_of_timm():
    pytest.importorskip("timm", reason="the lists are timm's, which CI does not install")
    whole, adversarial, renditions = (read_classes(f"imagenet-{name}") for name in ("1k", "a", "r"))
    assert (len(whole.keys), len(adversarial.keys), len(renditions.keys)) == (1000, 200, 200)
    assert whole.names[whole.index_of("n01440764")] == "tench"
    assert set(adversarial.keys) <= set(whole.keys)


def test_the_table_has_the_reports_figures_beside_ours_where_they_are_of_the_same():
    figure = {"value": 0.5, "interval": [0.4, 0.6], "chance": 0.1}
    results = [
        {"name": "coco", "task": task, "model": "m", "setting": "", "figures": {"text_to_image_R@1": figure}}
        for task in ("retrieval", "knn")
    ]
    rows = make_table(results).splitlines()
    assert rows[2].endswith("| 50.0 (40.0 … 60.0) | 51.6 | 55.3 | - | 58.6 | 59.4 |")
    assert rows[3].endswith("| 50.0 (40.0 … 60.0) | - | - | - | - | - |")


def test_the_averages_of_the_report_stand_where_a_model_has_all_figures():
    def result(name, value, figures=("top1",), task="zero-shot", setting="a | b"):
        values = {figure: {"value": value, "interval": [0.0, 1.0], "chance": 0.1} for figure in figures}
        return {"name": name, "task": task, "model": "m", "setting": setting, "figures": values}

    names = ("imagenet-1k", "imagenet-v2", "objectnet", "imagenet-a", "imagenet-r", "imagenet-sketch")
    results = [result(name, value) for name, value in zip(names, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True)]
    rows = make_table(results).splitlines()
    assert rows[2].startswith("| imagenet-1k | zero-shot | a \\| b | top1 |")
    assert rows[-1] == "| average of 6 | zero-shot |  |  | 35.0 | 77.1 | 83.4 | 82.5 | 82.7 | 83.6 |"
    assert "average" not in make_table(results[:-1])
    assert "average" not in make_table([*results, result("objectnet", 0.9, setting="other")])
    pairs = ("text_to_image_R@1", "image_to_text_R@1")
    both = [result("coco", 0.5, pairs, "retrieval"), result("flickr30k", 0.7, pairs, "retrieval")]
    assert make_table(both).splitlines()[-1].startswith("| average of 4 | retrieval |  |  | 60.0 | 72.5 | 76.7 | - |")


def test_results_of_other_names_splits_and_seeds_are_kept_apart(folder, tmp_path):
    options = options_of(folder, tmp_path, "zero-shot", templates="clip-7")
    assert describe(options) == "clip-7"
    changed = replace(options, classes="imagenet-a:clip", split="validation", seed=3)
    assert describe(changed) == "clip-7, CLIP's names, validation, seed 3"


def test_the_averages_that_the_report_prints_are_those_of_its_figures():
    for task, reported in report.REPORTED_AVERAGES.items():
        rows = [row for (data, _), row in report.REPORTED.items() if report.TASK_OF_REPORT[data.split("-")[0]] == task]
        for average, *values in zip(reported, *rows, strict=True):
            assert average is None or average == pytest.approx(np.mean(values), abs=0.051)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "knn"}, "needs train_data"),
        ({"train_data": "x"}, "has no use for train_data"),
        ({"task": "all"}, "allowed are zero-shot, retrieval, knn, linear-probe"),
        ({"features": "all"}, "features='all'"),
        ({"templates": "openai"}, "templates='openai'"),
        ({"data": "/nowhere"}, "there is no file or folder"),
        ({"dtype": "half"}, "dtype='half': allowed are float32, bfloat16, float16"),
        ({"device": "gpu9"}, "device='gpu9' cannot be used"),
        ({"image_size": 17}, "17 x 17 pixels does not divide into patches"),
    ],
)
def test_bad_options_are_errors_of_one_line(folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run_evaluation(EvaluationOptions(**({**vars(options_of(folder, tmp_path, "zero-shot"))} | changes)))


def test_the_command_says_figures_and_errors(folder, tmp_path):
    app = typer.Typer()
    app.command()(evaluate)
    arguments = ["--model", str(folder / "model"), "--task", "zero-shot", "--out", str(tmp_path), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--data", str(folder / "test")])
    assert result.exit_code == 0, result.output
    assert "top1: " in result.stdout
    assert f"next: look at {tmp_path / 'table.md'}" in result.stdout
    bad = CliRunner().invoke(app, [*arguments, "--data", "/nowhere"])
    assert bad.exit_code == 1
    assert bad.stderr.splitlines()[-1] == "error: there is no file or folder '/nowhere'"
    assert torch.is_grad_enabled()
