# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The study of linear attention, in small: towers lack what they say, and figures are what was measured."""

import importlib
import json
import runpy
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from turingvit_hf import TuringViTConfig, TuringViTModel
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.evaluation.retrieval import retrieval_metrics
from turingvit_hf.kernels.linear_attention import turing_linear_attention
from turingvit_hf.training.collators import tokenize
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
        parts = ("", "_figures", "_measures", "_pictures", "_report", "_scenes", "_tasks", "_towers")
        names = [f"tla_study{part}" for part in parts]
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
    make_text_encoder(root / "data" / "text_encoder")
    return root


def make_text_encoder(folder: Path) -> None:
    """A BERT whose words are letters."""
    folder.mkdir()
    letters = [prefix + chr(97 + number) for prefix in ("", "##") for number in range(26)]
    numbers = [prefix + str(number) for prefix in ("", "##") for number in range(10)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *numbers]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)


@pytest.fixture(scope="module")
def finished(prepared, study):
    """The arguments of a study of two towers and both tasks that has been run."""
    settings = ["training.max_steps=2", "training.warmup_steps=1", "training.bf16=false", "model.hidden_size=16"]
    settings += ["data.tokens_per_pack=256"]
    arguments = ["--data", str(prepared / "data"), "--cache", str(prepared / "cache")]
    arguments += ["--out", str(prepared / "out"), "--seeds", "0", "--repeats", "1"]
    arguments += ["--towers", "base", "none", "--sides", *map(str, SIDES), "--groups", "3", "--measured-pairs", "5"]
    arguments += [part for setting in settings for part in ("--set", setting)]
    threads = torch.get_num_threads()
    study.tla_study.main(arguments)
    torch.set_num_threads(threads)
    return arguments


def read_lines(folder: Path) -> list[str]:
    return (folder / "metadata.jsonl").read_text().splitlines()


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_figures_are_those_of_the_trained_towers(finished, prepared, study):
    out = prepared / "out"
    summary = json.loads((out / "study.json").read_text())["tasks"]["pictures"]
    pictures = study.tla_study_pictures.read_pictures(out / "data/pictures/test")
    encoder = TransformersEncoder(str(out / "pictures/seed0/base/model"))
    images, texts = encoder.image_features(pictures.images), encoder.text_features(pictures.captions)
    expected = retrieval_metrics(images, texts, pictures.captions, ks=(1, 5))
    towers = summary["towers"]
    for name in ("image_to_text_R@1", "text_to_image_R@1", "image_to_text_R@5", "text_to_image_R@5"):
        assert towers["base"][name]["value"] == pytest.approx(expected[name])
    both = (towers["none"][f"{way}_R@5"]["value"] for way in ("image_to_text", "text_to_image"))
    assert towers["none"]["R@5"]["value"] == pytest.approx(sum(both) / 2)
    assert summary["chance"]["R@1"] == 1 / len(pictures.captions)
    assert towers["base"]["R@5"]["minus_base"] == {"value": 0, "low": 0, "high": 0}
    difference = towers["none"]["R@5"]["value"] - towers["base"]["R@5"]["value"]
    assert towers["none"]["R@5"]["minus_base"]["value"] == pytest.approx(difference)
    assert set(towers) == {"base", "none"}


def test_all_of_the_study_is_in_its_files(finished, prepared):
    out = prepared / "out"
    summary = json.loads((out / "study.json").read_text())
    assert set(summary["tasks"]) == {"pictures", "scenes"}
    for found in summary["tasks"].values():
        assert set(found["at_sides"]) == {"base"}
        assert list(found["at_sides"]["base"]) == [str(side) for side in SIDES]
    for form in summary["milliseconds"].values():
        assert set(form) == {"base"}
        assert form["base"] > 0
    for name in ("tla_study.png", "resolution.png"):
        assert size_of(out / name)[0] > 800


def test_order_is_how_often_a_scene_is_nearer_to_its_own_text(finished, prepared, study):
    out = prepared / "out"
    result = json.loads((out / "scenes/seed0/base.json").read_text())
    towers = json.loads((out / "study.json").read_text())["tasks"]["scenes"]["towers"]
    for folder, measured, name in (("test", "measured", "order"), ("seen", "measured_seen", "order, seen")):
        scenes = study.tla_study_scenes.read_scenes(out / "data/scenes" / folder)
        encoder = TransformersEncoder(str(out / "scenes/seed0/base/model"))
        images, texts = encoder.image_features(scenes.images), encoder.text_features(scenes.captions)
        right = []
        for number, image in enumerate(images):
            own, other = (torch.cosine_similarity(image, texts[place], 0) for place in (number, number ^ 1))
            right.append(float(own > other))
        assert result[measured]["hits"]["order"] == right
        assert towers["base"][name]["seeds"] == [sum(right) / len(right)]


def test_without_attention_the_order_of_a_scene_is_a_coin(finished, prepared):
    towers = json.loads((prepared / "out/study.json").read_text())["tasks"]["scenes"]["towers"]
    assert towers["none"]["order"]["seeds"] == [0.5]
    assert towers["none"]["order, seen"]["seeds"] == [0.5]


def test_large_drawings_are_seen_as_large_as_they_are(finished, prepared, study):
    data, runs = prepared / "out/data", prepared / "out"
    for task, read in (
        ("pictures", study.tla_study_pictures.read_pictures),
        ("scenes", study.tla_study_scenes.read_scenes),
    ):
        measures = study.tla_study_measures.TowerMeasures(runs / task / "seed0/base/model", None)
        for side, grid in ((512, [1, 8, 16]), (64, [1, 1, 2])):
            pictures = read(data / task / f"drawings{side}")
            measures(pictures, side=side)
            grids = measures.encoder.prepare_images(pictures.images)["image_grid_thw"]
            assert grids.unique(dim=0).tolist() == [grid]


def test_what_is_finished_is_not_done_again(finished, prepared, study, monkeypatch):
    before = (prepared / "out/study.json").read_bytes()
    monkeypatch.setattr(study.tla_study, "run_pretraining", None)
    monkeypatch.setattr(study.tla_study, "make_pictures", None)
    monkeypatch.setattr(study.tla_study, "make_scenes", None)
    monkeypatch.setattr(study.tla_study, "time_towers", None)
    threads = torch.get_num_threads()
    study.tla_study.main(finished)
    torch.set_num_threads(threads)
    assert (prepared / "out/study.json").read_bytes() == before


def test_results_of_two_settings_are_not_mixed(finished, prepared, study):
    before = (prepared / "out/study.json").read_bytes()
    threads = torch.get_num_threads()
    with pytest.raises(
        SystemExit, match=r"out has results of other settings: groups was 3, is 4; choose another --out"
    ):
        study.tla_study.main([*finished, "--groups", "4"])
    with pytest.raises(SystemExit, match=r"overrides was .*; choose another --out"):
        study.tla_study.main([*finished, "--set", "training.max_steps=3"])
    torch.set_num_threads(threads)
    assert (prepared / "out/study.json").read_bytes() == before


def test_pictures_have_whole_patches_and_the_class_of_their_folder(finished, prepared):
    folder = prepared / "out/data/pictures"
    for split in ("train", "test"):
        rows = [json.loads(line) for line in (folder / split / "metadata.jsonl").read_text().splitlines()]
        sides = {size_of(folder / split / row["file_name"])[0] for row in rows}
        assert sides <= {*range(128, 513, 32)}
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
    with study.tla_study_towers.linear_attention_without(removed):
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
    with study.tla_study_towers.linear_attention_without(("attention",)):
        tower = TuringViTModel(config)
    one, other = torch.randn(2, 1, 3, 8, 8)
    other[..., :4, :4] = one[..., :4, :4]
    seen = [tower(pixels).last_hidden_state[0] for pixels in (one, other)]
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][1], seen[1][1])
    assert not any("layers.0.attention." in name for name in tower.state_dict())


def test_all_towers_have_as_many_parameters(study):
    counts = {
        name: study.tla_study_towers.count_parameters(
            study.tla_study_tasks.recipe_of(
                study.tla_study_tasks.Run(study.tla_study_tasks.PICTURES, name, 0), Path("out")
            ).model,
            variant,
        )
        for name, variant in study.tla_study_towers.VARIANTS.items()
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
    tables = [report.as_times(summary)]
    for name, found in summary["tasks"].items():
        measures = study.tla_study_tasks.TASKS[name].measures[1:]
        tables += [report.as_table(name, found), *(report.as_sides(found, measure) for measure in measures)]
    assert len(tables) == 7
    for table in tables:
        assert table in page


def test_a_training_that_was_stopped_draws_no_steps_of_its_own(study):
    def result(*steps):
        return {"history": [*({"step": step, "siglip": float(step)} for step in steps), {"step": steps[-1]}]}

    curve = study.tla_study_report.mean_curve([result(1, 10, 20), result(1, 10, 20, 13)])
    assert curve == ([1, 10, 20], [1.0, 10.0, 20.0])


def test_scenes_of_each_split_are_of_its_own_pictures(finished, prepared):
    data = prepared / "out/data"
    captions = {
        split: {json.loads(line)["caption"] for line in read_lines(data / f"pictures/{split}")}
        for split in ("train", "test")
    }
    assert not captions["train"] & captions["test"]
    trained = set()
    for path in sorted((data / "scenes/train").glob("*.tar")):
        with tarfile.open(path) as tar:
            texts = [tar.extractfile(name).read().decode() for name in tar.getnames() if name.endswith(".txt")]
        # the other order comes next
        assert [" [SEP] ".join(reversed(text.split(" [SEP] "))) for text in texts[::2]] == texts[1::2]
        trained |= {tuple(text.split(" [SEP] ")) for text in texts}
    assert {caption for pair in trained for caption in pair} <= captions["train"]
    for folder, split in (("test", "test"), ("seen", "train"), ("drawings64", "test")):
        rows = [json.loads(line) for line in read_lines(data / "scenes" / folder)]
        pairs = {tuple(row["captions"]) for row in rows}
        assert len(pairs) == len(rows) > 1
        assert {caption for pair in pairs for caption in pair} <= captions[split]
        assert all(first != second for first, second in pairs)


def test_scenes_of_pictures_that_were_seen_are_new_ones(study, tmp_path):
    for split, number in (("train", 17), ("test", 4)):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        rows = [{"file_name": f"{place}.bmp", "caption": f"{split}{place}"} for place in range(number)]
        rows = [{**row, "class": "", "drawing": ""} for row in rows]
        for row in rows:
            Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / split / row["file_name"])
        study.tla_study_pictures.write_metadata(tmp_path / "pictures" / split, rows)
    study.tla_study_scenes.make_scenes(
        tmp_path / "pictures",
        tmp_path / "scenes",
        bounds=(16, 32),
        sides=(),
        num_groups=3,
        num_measured=100,
        patch_size=8,
    )
    trained = set()
    for path in (tmp_path / "scenes/train").glob("*.tar"):
        with tarfile.open(path) as tar:
            texts = [tar.extractfile(name).read().decode() for name in tar.getnames() if name.endswith(".txt")]
        trained |= {frozenset(text.split(" [SEP] ")) for text in texts}
    seen = [frozenset(json.loads(line)["captions"]) for line in read_lines(tmp_path / "scenes/seen")]
    assert len(trained) > 50
    assert len(seen) > 20
    assert not trained & set(seen)


def test_pictures_of_scenes_lie_alike_in_both_halves(study):
    scenes = study.tla_study_scenes
    pixels = np.random.default_rng(0).integers(0, 200, (3, 40, 90), dtype=np.uint8)
    square = scenes.on_square(pixels, 64)
    assert square.shape == (3, 64, 64)
    assert (square[:, :16] == 255).all()
    assert (square[:, 18:46] < 255).all()
    other = np.zeros_like(square)
    assert np.array_equal(scenes.compose(square, other)[:, :, :64], scenes.compose(other, square)[:, :, 64:])


def test_texts_become_both_mean_vectors_in_order(finished, prepared):
    folder = prepared / "out/ordered_word_vectors"
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = ["abc d [SEP] e", "e [SEP] abc d", "abc d"]
    with torch.no_grad():
        found = model(**tokenize(tokenizer, texts)).pooler_output
        words = model.words.weight
    first = torch.stack([words[tokenizer.convert_tokens_to_ids(piece)] for piece in ("a", "##b", "##c", "d")]).mean(0)
    second = words[tokenizer.convert_tokens_to_ids("e")]
    expected = [torch.cat(pair) for pair in ((first, second), (second, first), (first, torch.zeros(8)))]
    torch.testing.assert_close(found, torch.stack(expected))


def test_vectors_of_captions_are_spread_around_zero(finished, prepared):
    folder = prepared / "out/ordered_word_vectors"
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = (prepared / "out/data/pictures/train/metadata.jsonl").read_text().splitlines()
    with torch.no_grad():
        found = model(**tokenize(tokenizer, [json.loads(row)["caption"] for row in rows])).pooler_output[:, :8]
    torch.testing.assert_close(found.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    assert float(found.std()) == pytest.approx(1, rel=1e-3)


def test_pairs_differ_and_use_all_numbers_before_one_comes_again(study):
    captions = ["a", "a", *(chr(98 + number) for number in range(10))]
    pairs = study.tla_study_scenes.draw_pairs(captions, 12, key="x", but=[(2, 3)])
    assert len({frozenset(pair) for pair in pairs}) == 12
    assert not {frozenset((0, 1)), frozenset((2, 3))} & {frozenset(pair) for pair in pairs}
    assert len({number for pair in pairs[:5] for number in pair}) == 10
    groups = study.tla_study_scenes.draw_groups([str(number) for number in range(500)], 100)
    assert all(len(set(group)) == 16 for group in groups)
    assert len({number for group in groups[::2] for number in group}) == 32
    assert len({number for group in groups[1::2] for number in group}) == 500
    pairs = study.tla_study_scenes.pairs_of(groups[0])
    assert len({frozenset(pair) for pair in pairs}) == 32


def test_a_tie_is_half_an_order(study):
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.6, 0.8]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert study.tla_study_measures.order_hits(images, texts, [1, 0, 3, 2]) == [1, 1, 1, 0]
    assert study.tla_study_measures.order_hits(images[:2], texts[:1].repeat(2, 1), [1, 0]) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "changes", "tells"),
    [
        ("base", {}, True),
        ("softmax", {}, True),
        ("tla", {}, True),
        ("no_rope", {}, True),
        # of two reasons to know no order: no attention, and no positions
        ("none", {}, False),
        ("tla", {"tla_rope": "none"}, False),
    ],
)
def test_orders_are_told_apart_by_attention_with_positions_alone(name, changes, tells, study):
    towers, scenes = study.tla_study_towers, study.tla_study_scenes
    run = study.tla_study_tasks.Run(study.tla_study_tasks.SCENES, name, 0)
    model = {**study.tla_study_tasks.recipe_of(run, Path("out")).model, **changes}
    torch.manual_seed(0)
    with towers.linear_attention_without(towers.VARIANTS[name].removed):
        tower = TuringViTModel(TuringViTConfig(**model)).eval()
    squares = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        found = [
            tower(torch.from_numpy(scenes.compose(*pair))[None]).pooler_output for pair in (squares, squares[::-1])
        ]
    difference = float((found[0] - found[1]).norm() / found[0].norm())
    assert (difference > 1e-2) if tells else (difference < 1e-5), difference
