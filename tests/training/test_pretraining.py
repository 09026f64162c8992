# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A chain of all four stages in small: it ends, is resumed bit by bit, and each bad start is refused with a reason."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, TrainerCallback, pipeline
from typer.testing import CliRunner

from tests.processes import launch
from turingvit_hf.cli import app
from turingvit_hf.errors import InputError
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.training import pretraining
from turingvit_hf.training.pretraining import run_chain, run_pretraining
from turingvit_hf.training.recipes import load_chain, load_recipe
from turingvit_hf.training.stages.folder import is_finished
from turingvit_hf.training.stages.plan import describe_plan


SMALL = [
    "model={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 6, num_attention_heads: 2, patch_size: 16}",
    "data.tokens_per_pack=128",
    "data.packs_per_step=2",
    "data.resolution={mode: native, max_patches: 16}",
    "training.max_steps=4",
    "training.warmup_steps=1",
    "training.logging_steps=1",
    "training.save_steps=2",
    "training.eval_steps=4",
    "training.use_cpu=true",
]
PICTURES = ["data.sources=[{path: shapes}]"]
WITH_TEXT = [
    "text={encoder: small, projection_dim: 16}",
    "evaluation={retrieval: {path: 'shapes:test'}, num_samples: 12}",
]


@pytest.fixture(scope="module")
def overrides(clips):
    """What makes `tiny/all` small enough for a test, and gives it data."""
    of_clips = f"[{{path: shapes}}, {{path: {clips}, kind: video}}]"
    return [
        *SMALL,
        *PICTURES,
        *(f"stage{number}.{override}" for number in (2, 3, 4) for override in WITH_TEXT),
        "stage1.evaluation={retrieval: {path: 'shapes:test'}, num_samples: 12}",
        f"stage4.data.sources={of_clips}",
        "stage4.data.num_frames=2",
        "stage4.data.video_share=0.8",
        "stage4.data.max_bad_share=0.5",
        f"stage4.evaluation.video_retrieval={{path: {clips}, kind: video}}",
    ]


@pytest.fixture(scope="module")
def chain(overrides, tmp_path_factory):
    """The folder of a chain that ran through."""
    root = tmp_path_factory.mktemp("chain") / "out"
    assert run_chain(load_chain("tiny/all", overrides), out=root) == root / "stage4"
    return root


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def history_of(folder):
    """The losses that were logged, without what depends on the clock."""
    names = ("step", "loss", "cosine", "siglip", "superclass", "video_siglip", "learning_rate", "grad_norm")
    return [{name: logs[name] for name in names if name in logs} for logs in report_of(folder)["history"]]


def weights_of(folder):
    return load_file(folder / "model" / "model.safetensors")


def test_every_stage_leaves_what_it_promises(chain):
    stages = ["stage1", "stage2", "stage3", "stage4"]
    assert [path.name for path in sorted(chain.iterdir())] == ["chain.json", *stages]
    assert [stage["folder"] for stage in json.loads((chain / "chain.json").read_text())["stages"]] == stages
    common = {"README.md", "curves.png", "environment.json", "model", "recipe.yaml", "report.json", "vision_tower"}
    for number in (1, 2, 3, 4):
        names = {path.name for path in (chain / f"stage{number}").iterdir()}
        own = {"tokenizer"} if number == 2 else set()
        assert names == common | own | {"checkpoint-2", "checkpoint-4"}
        run = json.loads((chain / f"stage{number}" / "environment.json").read_text())["runs"][0]
        assert run["versions"]["torch"] == torch.__version__
        assert run["world_size"] == 1
        with Image.open(chain / f"stage{number}" / "curves.png") as curves:
            assert curves.width > 900


def test_every_stage_measures_its_losses(chain):
    wanted = {1: {"cosine"}, 2: {"siglip", "superclass"}, 3: {"siglip", "superclass"}}
    for number, losses in wanted.items():
        steps = [logs for logs in report_of(chain / f"stage{number}")["history"] if "loss" in logs]
        assert [logs["step"] for logs in steps] == [1, 2, 3, 4]
        assert all(losses <= logs.keys() and logs["images_per_second"] > 0 for logs in steps)
    fourth = report_of(chain / "stage4")
    assert {"video_siglip"} <= {name for logs in fourth["history"] for name in logs}
    assert {"eval_retrieval_image_to_text_R@1", "eval_video_retrieval_text_to_image_R@1"} <= fourth["metrics"].keys()
    assert report_of(chain / "stage1")["metrics"].keys() >= {"eval_held_out_cosine"}
    assert any("video cannot be read" in name for logs in fourth["history"] for name in logs)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_tower_of_a_stage_is_ready_for_use(chain, number):
    folder = chain / f"stage{number}" / "vision_tower"
    tower, processor = AutoModel.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    outputs = tower(**processor(Image.new("RGB", (48, 32), "red"), return_tensors="pt"))
    assert outputs.last_hidden_state.shape == (1, 6, 32)
    whole = weights_of(chain / f"stage{number}")
    for name, weight in tower.state_dict().items():
        assert torch.equal(weight, whole[f"turingvit.{name}"])


def test_each_stage_starts_from_the_one_before(chain):
    """Four small steps away from there; of two towers with random weights some values would be 0.05 apart."""
    for number in (2, 3, 4):
        before, now = weights_of(chain / f"stage{number - 1}"), weights_of(chain / f"stage{number}")
        shared = [name for name in now if name in before]
        assert any(name.startswith("text_model.") for name in shared) == (number > 2)
        distances = [(now[name] - before[name]).abs().max() for name in shared if name.endswith("proj.weight")]
        assert 0 < max(distances) < 0.02


def test_the_dual_encoder_answers_zero_shot(chain):
    classify = pipeline("zero-shot-image-classification", str(chain / "stage4" / "model"))
    labels = ["a red picture", "a blue picture"]
    answers = classify(Image.new("RGB", (64, 64), "red"), candidate_labels=labels)
    assert {answer["label"] for answer in answers} == set(labels)
    assert all(0 <= answer["score"] <= 1 for answer in answers)


def test_the_model_card_has_the_numbers(chain):
    card = (chain / "stage4" / "README.md").read_text()
    for part in ("# TuringViT after tiny/stage4", "curves.png", "chance", "stage3", "| 4 |", "vision_tower"):
        assert part in card


def test_a_finished_chain_is_left_as_it_is(chain, overrides):
    before = {path: path.stat().st_mtime_ns for path in chain.rglob("*")}
    run_chain(load_chain("tiny/all", overrides), out=chain, resume=True)
    assert {path: path.stat().st_mtime_ns for path in chain.rglob("*")} == before


def test_a_finished_chain_is_found_under_another_spelling_of_its_folder(chain, overrides, monkeypatch):
    monkeypatch.chdir(chain.parent)
    folder = run_chain(load_chain("tiny/all", overrides), out=f"../{chain.parent.name}/{chain.name}", resume=True)
    assert folder == chain / "stage4"


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_resumed_stage_equals_one_that_ran_through(chain, overrides, number, tmp_path):
    """From a copy of its checkpoint after step 2, as a killed run leaves it: same losses, same weights, bit by bit."""
    whole = chain / f"stage{number}"
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut, ignore=shutil.ignore_patterns("checkpoint-4", "model", "vision_tower", "report.json"))
    (cut / ".checkpoint-partial").mkdir()
    recipe = dict(load_chain("tiny/all", overrides).in_folder(chain))[whole]
    run_pretraining(recipe, out=cut, resume=True)
    assert history_of(cut) == history_of(whole)
    one, other = weights_of(cut), weights_of(whole)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    runs = json.loads((cut / "environment.json").read_text())["runs"]
    assert [run["resumed_from"] for run in runs] == [None, "checkpoint-2"]


def test_sigterm_saves_and_the_stage_goes_on_later(chain, overrides, tmp_path, monkeypatch):
    class Terminate(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    class Interrupted(pretraining.TuringViTTrainer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.add_callback(Terminate())

    recipe = load_chain("tiny/all", overrides).stages[0]
    with monkeypatch.context() as patched:
        patched.setattr(pretraining, "TuringViTTrainer", Interrupted)
        folder = run_pretraining(recipe, out=tmp_path / "stage1")
    assert not is_finished(folder)
    assert (folder / "checkpoint-3").is_dir()
    run_pretraining(recipe, out=folder, resume=True)
    assert is_finished(folder)
    one, other = weights_of(folder), weights_of(chain / "stage1")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_that_is_not_free_is_refused(chain, overrides, tmp_path):
    first, second, *_ = load_chain("tiny/all", overrides).stages
    with pytest.raises(InputError, match="is not empty; choose another folder, or go on with what it holds"):
        run_pretraining(first, out=chain / "stage1")
    with pytest.raises(InputError, match=r"made by another recipe.*stage was 'mim', is 'image_text'"):
        run_pretraining(second, out=chain / "stage1", resume=True)
    changed = load_recipe("tiny/stage1", [*SMALL, *PICTURES, "training.learning_rate=3e-3"])
    with pytest.raises(InputError, match=r"learning_rate was 0\.002, is 0\.003"):
        run_pretraining(changed, out=chain / "stage1", resume=True)
    # the optimizer's state has it, so a change would be without effect
    changed = load_recipe("tiny/stage1", [*SMALL, *PICTURES, "training.adam_beta2=0.9"])
    with pytest.raises(InputError, match=r"adam_beta2 was 0\.98, is 0\.9"):
        run_pretraining(changed, out=chain / "stage1", resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds no recipe\.yaml"):
        run_pretraining(first, out=tmp_path, resume=True)
    with pytest.raises(InputError, match="is a file"):
        run_pretraining(first, out=tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("18l/stage2", [], r"data\.sources is empty"),
        ("tiny/stage1", [*PICTURES, "training.max_steps=0"], r"training\.max_steps=0"),
        ("tiny/stage1", [*PICTURES, "training.lr_scheduler_type=cosin"], "cosin"),
        ("tiny/stage1", [*PICTURES, "training.learning_rate=-1"], r"learning_rate=-1: it must be at least 0"),
        ("tiny/stage1", [*PICTURES, "training.adam_beta2=1"], r"adam_beta2=1: it must be at least 0 and at most"),
        ("tiny/stage2", [*PICTURES, "objective={siglip: 0, superclass: 0}"], "siglip and superclass are both 0"),
        ("tiny/stage2", [*PICTURES, "init_from=./nowhere"], "there is no such folder"),
        ("tiny/stage1", [*PICTURES, "teacher.model=./nowhere"], "nowhere"),
        ("tiny/stage2", [*PICTURES, "text.encoder=./nowhere"], r"text\.encoder='\./nowhere': there is no such folder"),
        ("tiny/stage2", ["text.encoder=small", "data.sources=[{path: ./nowhere}]"], "nowhere"),
        ("tiny/stage1", [*PICTURES, "data.num_workers=3"], "num_workers"),
    ],
)
def test_a_bad_start_says_why(name, changes, told, tmp_path):
    with pytest.raises(InputError, match=told):
        run_pretraining(load_recipe(name, ["training.use_cpu=true", *changes]), out=tmp_path / "out")


def test_an_earlier_stage_must_fit(chain, tmp_path):
    changes = [*PICTURES, *WITH_TEXT, f"init_from={chain / 'stage2'}", "training.use_cpu=true"]
    with pytest.raises(InputError, match=r"another tower than the recipe says: hidden_size is 32 there"):
        run_pretraining(load_recipe("tiny/stage3", changes), out=tmp_path / "one")
    wider = load_recipe("tiny/stage3", [*SMALL, *changes, "text.projection_dim=32"])
    with pytest.raises(InputError, match=r"has projection_dim=16, the recipe wants 32"):
        run_pretraining(wider, out=tmp_path / "two")
    (tmp_path / "empty").mkdir()
    empty = load_recipe("tiny/stage3", [*SMALL, *changes, f"init_from={tmp_path / 'empty'}"])
    with pytest.raises(InputError, match="gets them when its stage is finished"):
        run_pretraining(empty, out=tmp_path / "three")


def test_a_tower_alone_begins_with_a_new_text_encoder(chain, tmp_path):
    start = f"init_from={chain / 'stage2' / 'vision_tower'}"
    recipe = load_recipe("tiny/stage3", [*SMALL, *PICTURES, *WITH_TEXT, start, "training.max_steps=1"])
    folder = run_pretraining(recipe, out=tmp_path / "out")
    model = TuringViTDualEncoderModel.from_pretrained(folder / "model")
    assert model.config.projection_dim == 16


def test_dry_run_says_what_would_happen_and_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["pretrain", "--recipe", "18l/stage2", "--dry-run", "--out", "stage2"])
    assert result.exit_code == 1  # it could not start: there are no data yet
    for part in (
        "max_steps: 146500",
        "497,488,640 parameters; weights, gradients and AdamW take 7.41 GiB",
        "error: data.sources is empty: name your data",
        "448 packs of 32,768 patches",
        "stage2/checkpoint-N every 500 steps",
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        "which is free",
    ):
        assert part in result.output, part
    assert not list(tmp_path.iterdir())
    plan = describe_plan(load_recipe("18l/stage1"), out=tmp_path, num_ranks=5)
    assert "NOT a whole number of packs: 576 / 5" in plan
    assert "55,296 images" in plan
    # frames of at most 4,096 patches, images of at most 9,216
    assert "at least 910 images or 256 clips" in describe_plan(load_recipe("18l/stage4"), out=tmp_path, num_ranks=1)
    assert "init_from: OUT/stage1" in CliRunner().invoke(app, ["pretrain", "--recipe", "tiny/all", "--dry-run"]).output


def test_the_command_line_lists_and_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    invoke = CliRunner().invoke
    listed = invoke(app, ["pretrain", "--list"])
    assert listed.exit_code == 0
    assert "18l/stage4    Stage 4 of TuringViT-18L" in listed.output
    assert invoke(app, ["pretrain"]).exit_code == 2
    assert invoke(app, ["pretrain", "--recipe", "tiny/stage1"]).exit_code == 2
    misspelt = invoke(app, ["pretrain", "--recipe", "tiny/stage1", "--set", "data.open_pack=1", "--out", "out"])
    assert misspelt.exit_code == 1
    assert "did you mean open_packs?" in misspelt.output
    assert "Example: turingvit pretrain" in invoke(app, ["pretrain", "--help"]).output


def test_two_processes_under_a_launcher_are_one(tmp_path):
    """The module under torchrun, with two packs a step: each process has one, the losses are those of one process."""
    values = [*SMALL, *PICTURES, *WITH_TEXT, "training.max_steps=2", "training.save_strategy=no"]
    options = [part for value in values for part in ("--set", value)]
    command = ["-m", "turingvit_hf.training", "--recipe", "tiny/stage2", *options, "--out"]
    launched = launch([*command, tmp_path / "two"])
    assert launched.returncode == 0, launched.stderr[-3000:]
    assert launched.stdout.count("2 steps") == 1
    run_pretraining(load_recipe("tiny/stage2", values), out=tmp_path / "one")
    for one, two in zip(history_of(tmp_path / "one"), history_of(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    environment = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert environment["runs"][0]["world_size"] == 2


# the compiler looks at .grad of tensors inside a graph: https://github.com/pytorch/pytorch/pull/30531
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_stage_learns_the_same(tmp_path):
    values = [*SMALL, *PICTURES, "evaluation=null", "training.max_steps=2", "training.save_strategy=no"]
    compiled = ["training.torch_compile=true", "training.torch_compile_backend=aot_eager"]
    for name, changes in (("plain", []), ("compiled", compiled)):
        run_pretraining(load_recipe("tiny/stage1", [*values, *changes]), out=tmp_path / name)
    for plain, other in zip(history_of(tmp_path / "plain"), history_of(tmp_path / "compiled"), strict=True):
        assert plain == pytest.approx(other, rel=1e-4)


def test_a_stage_that_was_stopped_ends_with_its_own_exit_code(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "run_pretraining", lambda recipe, *, out, resume: tmp_path)
    result = CliRunner().invoke(app, ["pretrain", "--recipe", "tiny/stage1", "--out", "out"])
    assert result.exit_code == 75


@pytest.mark.parametrize("number", [1, 2, 4])
def test_the_large_recipes_run_when_they_are_shrunk(clips, number, tmp_path):
    """With all that they set beside sizes: bf16, activation checkpointing, schedule, layer decay, loader workers."""
    text = ["text={encoder: small, projection_dim: 16}"] if number > 1 else ["teacher={model: hog}"]
    sources = [f"data.sources=[{{path: shapes}}, {{path: {clips}, kind: video}}]", "data.max_bad_share=0.5"]
    resolution = "data.resolution={mode: fixed, size: 64, crop_scale: [0.2, 1.0], flip: 0.5}"
    if number > 1:
        resolution = "data.resolution={mode: bounded, min_side: 32, max_side: 64}"
    values = [
        SMALL[0],
        *text,
        *(sources if number == 4 else PICTURES),
        resolution,
        "data.tokens_per_pack=128",
        "data.packs_per_step=2",
        "data.num_workers=2",
        "training.max_steps=2",
        "training.warmup_steps=1",
        "training.save_strategy=no",
        "training.logging_steps=1",
    ]
    folder = run_pretraining(load_recipe(f"18l/stage{number}", values), out=tmp_path / "out")
    losses = [logs["loss"] for logs in report_of(folder)["history"] if "loss" in logs]
    assert len(losses) == 2
    assert all(np.isfinite(losses))
