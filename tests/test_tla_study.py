# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The study of linear attention, in small: towers lack what they say, and figures are what was measured."""

import argparse
import importlib
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from turingvit_hf import TuringViTConfig, TuringViTModel
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.evaluation.retrieval import retrieval_metrics
from turingvit_hf.kernels.linear_attention import turing_linear_attention
from turingvit_hf.training.data.stamps import PACKAGE, STAMPS_FOLDER


ROOT = Path(__file__).parents[1]
SIDES = (64, 512)
DRAWING = """<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" xmlns:cc="http://web.resource.org/cc/"
 xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><cc:Work><dc:title>Thing number {name}</dc:title></cc:Work>
</metadata><circle cx="20" cy="10" r="9" fill="#{color:06x}"/></svg>"""


@pytest.fixture(scope="module")
def study():
    """The study's modules by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        names = ("tla_study", "tla_study_measures", "tla_study_pictures", "tla_study_report")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, study):
    """Prepared data of 40 stamps and 160 drawings in two folders each, and the cache they come from."""
    root = tmp_path_factory.mktemp("prepared")
    stamps = root / "cache" / PACKAGE / STAMPS_FOLDER
    drawings = root / "cache" / "openclipart-svg/usr/share/openclipart/svg"
    for folder in (stamps / "animals", stamps / "food", drawings / "shapes", drawings / "unsorted"):
        folder.mkdir(parents=True)
    for number in range(160):
        name = f"{chr(97 + number % 26)}{number}x"
        text = DRAWING.format(name=name, color=number * 0x010203)
        (drawings / ("shapes" if number % 8 else "unsorted") / f"thing{number}.svg").write_text(text)
    for number in range(40):
        stamp = stamps / ("animals" if number % 2 else "food") / f"{number}.png"
        Image.new("RGB", (200, 100), (number * 6, 90, 200)).save(stamp)
        stamp.with_suffix(".txt").write_text(f"Stamp {chr(97 + number % 26)}{number}x.\n")
    script = runpy.run_path(str(ROOT / "examples" / "prepare_pretraining_data.py"))
    options = ["--no-text-encoder", "--num-clips", "0", "--cache", str(root / "cache")]
    script["main"](["--output", str(root / "data"), *options])
    return root


@pytest.fixture(scope="module")
def finished(prepared, study):
    """The arguments of a study of two towers that has been run."""
    settings = ["text.encoder=small", "text.frozen=false", "training.max_steps=2", "training.warmup_steps=1"]
    settings += ["data.tokens_per_pack=64", "training.bf16=false", "model.hidden_size=16"]
    arguments = ["--data", str(prepared / "data"), "--cache", str(prepared / "cache")]
    arguments += ["--out", str(prepared / "out"), "--seeds", "0", "--repeats", "1"]
    arguments += ["--towers", "base", "no_gate", "--sides", *map(str, SIDES)]
    arguments += [part for setting in settings for part in ("--set", setting)]
    threads = torch.get_num_threads()
    study.tla_study.main(arguments)
    torch.set_num_threads(threads)
    return arguments


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_figures_are_those_of_the_trained_towers(finished, prepared):
    out = prepared / "out"
    summary = json.loads((out / "study.json").read_text())
    rows = [json.loads(line) for line in (out / "pictures/test/metadata.jsonl").read_text().splitlines()]
    captions = [row["caption"] for row in rows]
    encoder = TransformersEncoder(str(out / "seed0/base/model"))
    pictures = importlib.import_module("tla_study_pictures").read_pictures(out / "pictures/test")
    images, texts = encoder.image_features(pictures.images), encoder.text_features(captions)
    expected = retrieval_metrics(images, texts, captions, ks=(1, 5))
    towers = summary["towers"]
    for name in ("image_to_text_R@1", "text_to_image_R@1", "image_to_text_R@5", "text_to_image_R@5"):
        assert towers["base"][name]["value"] == pytest.approx(expected[name])
    both = (towers["no_gate"][f"{way}_R@5"]["value"] for way in ("image_to_text", "text_to_image"))
    assert towers["no_gate"]["R@5"]["value"] == pytest.approx(sum(both) / 2)
    assert summary["chance"]["R@1"] == 1 / len(captions)
    assert towers["base"]["R@5"]["minus_base"] == {"value": 0, "low": 0, "high": 0}
    difference = towers["no_gate"]["R@5"]["value"] - towers["base"]["R@5"]["value"]
    assert towers["no_gate"]["R@5"]["minus_base"]["value"] == pytest.approx(difference)
    assert set(summary["at_sides"]) == {"base"}
    assert list(summary["at_sides"]["base"]) == [str(side) for side in SIDES]
    assert set(towers) == {"base", "base-1e-3", "no_gate"}
    for form in summary["milliseconds"].values():
        assert min(form["base"], form["no_gate"]) > 0
    for name in ("tla_study.png", "resolution.png"):
        assert size_of(out / name)[0] > 800


def test_large_drawings_are_seen_as_large_as_they_are(finished, prepared, study):
    pictures = study.tla_study_pictures.read_pictures(prepared / "out/pictures/drawings512")
    measures = study.tla_study_measures.TowerMeasures(prepared / "out/seed0/base/model", pictures)
    for side, grid in ((512, [1, 8, 16]), (64, [1, 1, 2])):
        measures(pictures, side=side)
        assert measures.encoder.prepare_images(pictures.images)["image_grid_thw"].unique(dim=0).tolist() == [grid]


def test_what_is_finished_is_not_done_again(finished, prepared, study, monkeypatch):
    before = (prepared / "out/study.json").read_bytes()
    monkeypatch.setattr(study.tla_study, "run_pretraining", None)
    monkeypatch.setattr(study.tla_study, "make_pictures", None)
    monkeypatch.setattr(study.tla_study, "time_towers", None)
    threads = torch.get_num_threads()
    study.tla_study.main(finished)
    torch.set_num_threads(threads)
    assert (prepared / "out/study.json").read_bytes() == before


def test_pictures_have_whole_patches_and_the_class_of_their_folder(finished, prepared):
    folder = prepared / "out/pictures"
    for split in ("train", "test"):
        rows = [json.loads(line) for line in (folder / split / "metadata.jsonl").read_text().splitlines()]
        sides = {size_of(folder / split / row["file_name"])[0] for row in rows}
        assert sides <= {128, 160, 192, 224, 256}
        # drawings that lie in "unsorted" have no class
        assert {row["class"] for row in rows if row["drawing"]} <= {"shapes", ""}
        assert {row["class"] for row in rows if not row["drawing"]} <= {"animals", "food"}
    for side in SIDES:
        rows = [json.loads(line) for line in (folder / f"drawings{side}/metadata.jsonl").read_text().splitlines()]
        assert rows
        assert all(row["class"] == "shapes" for row in rows)
        assert {size_of(folder / f"drawings{side}" / row["file_name"]) for row in rows} == {(side, side // 2)}


def test_pictures_of_other_collections_are_refused(prepared, study):
    origins = study.tla_study_pictures.Origins(prepared / "cache", seed=0)
    assert origins.find("stamps/0000_1.png")[1] == "animals"
    with pytest.raises(InputError, match="prepare the data again"):
        origins.find("stamps/0000_2.png")


@pytest.mark.parametrize("removed", [("gate",), ("norm",)])
def test_linear_attention_lacks_what_was_removed(removed, study):
    torch.manual_seed(0)
    with study.tla_study_measures.linear_attention_without(removed):
        tower = TuringViTModel(TuringViTConfig(hidden_size=16, num_attention_heads=2, intermediate_size=16))
    layer = tower.layers[0].attention
    x = torch.randn(1, 6, 16)
    gate = None if "gate" in removed else layer.output_gate(x)
    weight = None if "norm" in removed else layer.output_norm.weight
    q, k, v = (project(x).unflatten(-1, (2, 8)) for project in (layer.q_proj, layer.k_proj, layer.v_proj))
    cos, sin = torch.ones(1, 6, 4), torch.zeros(1, 6, 4)
    expected = turing_linear_attention(q, k, v, cos=cos, sin=sin, gate=gate, norm_weight=weight)
    torch.testing.assert_close(layer(x, None, (cos, sin)), expected)
    assert not any({"gate": "output_gate", "norm": "output_norm"}[removed[0]] in name for name in tower.state_dict())
    complete = TuringViTModel(TuringViTConfig(hidden_size=16, num_attention_heads=2, intermediate_size=16))
    assert "layers.0.attention.output_gate.weight" in complete.state_dict()


def test_patches_of_the_control_do_not_see_one_another(study):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 6}
    config = TuringViTConfig(**sizes, patch_size=4, layer_types=["linear_attention"] * 6)
    with study.tla_study_measures.linear_attention_without(("attention",)):
        tower = TuringViTModel(config)
    one, other = torch.randn(2, 1, 3, 8, 8)
    other[..., :4, :4] = one[..., :4, :4]
    seen = [tower(pixels).last_hidden_state[0] for pixels in (one, other)]
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][1], seen[1][1])
    assert not any("layers.0.attention." in name for name in tower.state_dict())


def test_all_towers_have_as_many_parameters(study):
    options = argparse.Namespace(out=Path("out"), data=Path("data"), overrides=[])
    counts = {
        name: study.tla_study_measures.count_parameters(
            study.tla_study.recipe_of(study.tla_study.Run(name, 0), options).model, variant
        )
        for name, variant in study.tla_study_measures.VARIANTS.items()
    }
    assert all(abs(count / counts["base"] - 1) < 0.005 for count in counts.values()), counts


def test_towers_that_saw_other_data_are_not_compared(study):
    measured = {"hits": {"image_to_text_R@1": [1.0], "k-NN": [1.0]}}
    result = {"seed": 0, "num_images": 5, "num_patches": 9, "num_steps": 1, "largest_class": 0.5, "measured": measured}
    common = study.tla_study_report.common
    assert common({"base": [result], "tla": [result]})["seen"] == {0: {"images": 5, "patches": 9}}
    with pytest.raises(ValueError, match="different numbers of images"):
        common({"base": [result], "tla": [{**result, "num_images": 6}]})


def test_the_page_has_the_tables_of_its_figures(study):
    summary = json.loads((ROOT / "docs/assets/tla_study.json").read_text())
    page = (ROOT / "docs/tla_study.md").read_text()
    report = study.tla_study_report
    for table in (
        report.as_table(summary),
        report.as_times(summary),
        report.as_sides(summary, "R@10"),
        report.as_sides(summary, "k-NN"),
    ):
        assert table in page


def test_a_training_that_was_stopped_draws_no_steps_of_its_own(study):
    def result(*steps):
        return {"history": [*({"step": step, "siglip": float(step)} for step in steps), {"step": steps[-1]}]}

    curve = study.tla_study_report.mean_curve([result(1, 10, 20), result(1, 10, 20, 13)])
    assert curve == ([1, 10, 20], [1.0, 10.0, 20.0])
