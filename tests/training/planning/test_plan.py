# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Plans of stages and chains: exact parameters, steps, days, cost, the report's hours, what fits, and bad input."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from turingvit_hf.errors import InputError
from turingvit_hf.training.arguments import TeacherRecipe, TextRecipe
from turingvit_hf.training.loop.flops import PEAK_BFLOAT16
from turingvit_hf.training.planning.command import plan
from turingvit_hf.training.planning.gpus import MEMORY_GB, Gpu, find_gpu
from turingvit_hf.training.planning.known_models import teacher_size_of, text_config_of
from turingvit_hf.training.planning.memory import parameters_by_part
from turingvit_hf.training.planning.plan import TrainingPlan, plan_training
from turingvit_hf.training.planning.workload import plan_model
from turingvit_hf.training.recipes import load_recipe


@pytest.fixture(scope="module")
def chain() -> TrainingPlan:
    return plan_training("18l/all", num_gpus=64, gpu="H100", mfu=0.4, price=2.0)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tiny/stage1", []),
        ("tiny/stage2", []),
        ("tiny/stage2", ["objective.superclass=0", "text.encoder=small", "text.frozen=false"]),
    ],
)
def test_parameters_are_those_of_the_model(name, changes):
    recipe = load_recipe(name, changes)
    (stage,) = plan_training(recipe, num_gpus=1, gpu="L4").stages
    planned = plan_model(recipe).model
    model = type(planned)(planned.config)
    if recipe.text is not None and recipe.text.frozen:
        model.text_model.requires_grad_(False)
    assert stage.parameters == parameters_by_part(model)
    assert stage.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert stage.num_trained == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_the_tower_of_the_report(chain):
    parts = chain.stages[1].parameters
    assert sum(number for name, number in parts.items() if name.startswith("tower")) == 497_488_640
    assert parts["superclass head"] == 1280 * 49408 + 49408
    assert parts["text encoder"] == 352_984_064


def test_days_and_cost_by_hand(chain):
    stage = chain.stages[0]
    assert (stage.images_per_step, stage.max_steps) == (55_296, 39_800)
    hours = stage.model_flops / (989.4e12 * 0.4) / 3600
    assert stage.gpu_hours == pytest.approx(hours)
    assert stage.days == pytest.approx(hours / 64 / 24)
    assert stage.cost == pytest.approx(2 * hours)
    assert chain.cost == pytest.approx(2 * sum(stage.gpu_hours for stage in chain.stages))


def test_what_the_reports_hours_mean_by_hand(chain):
    """Stage 1: 2.2 B images, each 0.73 TFLOP of the student and 2.26 of the teacher, in 9,984 hours."""
    stage = chain.stages[0]
    image = stage.step.useful / 55_296
    assert image == pytest.approx(0.73e12 + 2.26e12, rel=0.01)
    assert stage.report_mfu == pytest.approx(image * 55_296 * 39_800 / (9_984 * 3600 * 989.4e12))
    assert stage.report_epochs == pytest.approx(9_984 * 3600 * 989.4e12 * 0.4 / (image * 55e6))
    assert [round(stage.report_epochs) for stage in chain.stages[:3]] == [86, 36, 3]
    assert [stage.reported.hours for stage in chain.stages] == [9_984, 30_720, 12_288, 460]


def test_clips_alone_are_what_the_reports_last_stage_counts(chain):
    stage = chain.stages[3]
    clips = 0.5 * 128 * 65536 / (8 * 27 * 37)
    # a pack is scaled from whole clips to its budget
    assert stage.report_epochs == pytest.approx(
        460 * 3600 * 989.4e12 * 0.4 * clips / (stage.step.useful * 2e6), rel=0.01
    )


def test_images_and_epochs_give_the_steps():
    (stage,) = plan_training("18l/stage1", num_gpus=64, gpu="h800", images=[55e6], epochs=[2]).stages
    assert stage.max_steps == round(110e6 / 55_296)
    half = plan_training("tiny/all", num_gpus=1, gpu="L4", images=[4307], epochs=[10, 20, 1, 1])
    assert half.stages[1].num_images == pytest.approx(2 * half.stages[0].num_images, rel=0.02)
    assert half.stages[0].reported is None


def test_what_fits(chain):
    ways = {(fit.sharding, fit.checkpointing): fit for fit in chain.stages[2].fits}
    assert not ways["ddp", False].fits
    assert ways["ddp", True].fits
    assert ways["fsdp2", True].total_bytes < ways["ddp", True].total_bytes
    assert all(fit.fits == (fit.most_tokens >= 65536) for fit in ways.values())
    assert chain.stages[2].sharding == "ddp"
    assert chain.stages[2].memory.total == ways["ddp", True].total_bytes
    small = plan_training("24l/stage2", num_gpus=64, gpu="L4").stages[0]
    assert small.sharding == "fsdp2"
    assert "DDP, checkpointing on" in plan_training("24l/stage2", num_gpus=64, gpu="L4").describe()


def test_sharding_that_the_recipe_asks_for():
    def planned(*overrides, num_gpus=8):
        return plan_training("tiny/stage2", num_gpus=num_gpus, gpu="H100", overrides=overrides).stages[0]

    plain, sharded, alone = planned(), planned("training.fsdp=true"), planned("training.fsdp=true", num_gpus=1)
    assert (plain.sharding, sharded.sharding, alone.sharding) == ("ddp", "fsdp2", "none")
    ways = {(fit.sharding, fit.checkpointing): fit.total_bytes for fit in sharded.fits}
    assert sharded.memory.total == ways["fsdp2", False] != plain.memory.total
    settings = "training.fsdp_config={activation_checkpointing: true}"
    again = planned("training.fsdp=true", settings)
    assert again.memory.total == ways["fsdp2", True]
    assert again.step.recomputation == planned("training.activation_checkpointing=true").step.recomputation > 0
    assert planned(settings).step.recomputation == 0  # without FSDP nobody reads it


def test_the_text_says_it_all(chain):
    text = chain.describe()
    for words in (
        "tower layers 471,924,480",
        "4,350,556,928 parameters, frozen",
        "stage 1 took 9,984 H800 hours",
        "DDP, checkpointing off",
        "assumed:",
        "53,452 H800 hours",
        "warning: MFU 40% means",
    ):
        assert words in text
    assert "warning" not in plan_training("18l/all", num_gpus=64, gpu="H100").describe()
    odd = plan_training("18l/stage1", num_gpus=50, gpu="H100").describe()
    assert "NOT a whole number a process: 11.52 on 50 GPUs" in odd
    assert "those that divide packs_per_step=576" in odd
    assert json.loads(json.dumps(chain.to_dict()))["stages"][0]["max_steps"] == 39_800


def test_small_numbers_are_not_rounded_to_nothing():
    """200 steps of 9.3e10 operations at 0.3 of 121e12 a second take half of one."""
    text = plan_training("tiny/all", num_gpus=1, gpu="L4", price=2.0).describe()
    stage = text[text.index("tiny/stage1") :]
    assert "time:         0.00014 GPU hours, 0.51 seconds, cost 0.00029; 30% of the peak" in stage
    assert "in all: 0.0007" in text
    minutes = plan_training("tiny/stage1", num_gpus=1, gpu="L4", overrides=["training.max_steps=50000"]).describe()
    assert "0.036 GPU hours, 2.1 minutes; 30%" in minutes


def test_where_no_pack_fits_and_where_parts_are_not_there_at_once():
    text = plan_training("24l/stage2", num_gpus=8, gpu="L4").describe()
    assert "DDP, checkpointing on: 28.23 of 20.23 GiB, does NOT fit; no pack does" in text
    (line,) = [line for line in text.splitlines() if line.startswith("memory:")]
    parts = [float(part.split()[-1]) for part in line.partition("a GPU: ")[2].split(",")]
    assert sum(parts) == pytest.approx(8.60, abs=0.04)
    assert "gradients come as activations go" not in line
    (line,) = [
        line
        for line in plan_training("tiny/stage2", num_gpus=1, gpu="L4").describe().splitlines()
        if line.startswith("memory:")
    ]
    assert line.endswith("; gradients come as activations go")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_gpus": 0}, "num_gpus=0 must be at least 1"),
        ({"gpu": "H9000"}, "no GPU is known as 'H9000'; known are B200"),
        ({"mfu": 0.0}, r"mfu=0.0 must be above 0 and at most 1"),
        ({"price": -1.0}, "price=-1.0 must be a number and not negative"),
        ({"price": float("nan")}, "price=nan must be a number"),
        ({"images": [float("inf")]}, r"images=\[inf\] must be numbers above 0"),
        ({"epochs": [2]}, r"epochs=\[2\] of how many images"),
        ({"images": [1, 2]}, r"images=\[1, 2\]: give one number, or one for each of the 4 stages"),
        ({"images": [1e300], "epochs": [1e300]}, r"images times epochs is inf: .* fewer than 1e\+12 steps"),
        ({"overrides": ["stage2.data.tokens_per_pack=9"]}, "an image may have 144 patches .*tokens_per_pack=9"),
        ({"images": [0.0]}, r"images=\[0.0\] must be numbers above 0"),
        ({"overrides": ["stage2.text.encoder=nobody/knows"]}, "text.encoder='nobody/knows' is not on this machine"),
        ({"overrides": ["stage1.teacher.model=nobody/knows"]}, "teacher.model='nobody/knows' is not on this machine"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        plan_training("tiny/all", **{"num_gpus": 1, "gpu": "H100"} | arguments)


def test_every_gpu_with_a_peak_has_a_memory():
    assert MEMORY_GB.keys() == PEAK_BFLOAT16.keys()
    assert find_gpu("rtx 4090").name == "NVIDIA GeForce RTX 4090"
    assert find_gpu("NVIDIA L4").memory_bytes == 24e9


def test_a_gpu_in_numbers():
    assert find_gpu("H20: 148:96") == Gpu("H20", 148e12, 96_000_000_000)
    named, numbers = (plan_training("tiny/stage2", num_gpus=1, gpu=gpu) for gpu in ("L4", "x:121:24"))
    assert named.stages == numbers.stages
    for wrong in ("H20:148", "H20:148:96:1", ":148:96", "H20:0:96", "H20:148:inf", "H20:many:96"):
        with pytest.raises(InputError, match="is not NAME:TFLOPS:GB"):
            find_gpu(wrong)


def test_sizes_of_models_on_this_machine(tmp_path):
    config, source = text_config_of(TextRecipe())
    assert (config.vocab_size, "assumed" in source) == (2048, True)
    config.save_pretrained(tmp_path)
    config, source = text_config_of(TextRecipe(encoder=str(tmp_path)))
    assert (config.dim, source) == (192, "its own config.json")
    assert teacher_size_of(TeacherRecipe("hog"), num_channels=3).hidden_size == 132


def test_the_command():
    app = typer.Typer()
    app.command()(plan)
    result = CliRunner().invoke(
        app, ["--recipe", "18l/stage1", "--gpus", "8", "--price", "2", "--set", "training.max_steps=10"]
    )
    assert result.exit_code == 0, result.output
    assert "steps:        10" in result.output
    result = CliRunner().invoke(app, ["--recipe", "tiny/all", "--gpus", "1", "--json"])
    assert json.loads(result.output)["num_gpus"] == 1
    result = CliRunner().invoke(app, ["--recipe", "tiny/nothing", "--gpus", "1"])
    assert result.exit_code == 1


def test_the_page_shows_what_the_command_prints():
    page = (Path(__file__).parents[3] / "docs/planning.md").read_text(encoding="utf-8")
    shown = plan_training("18l/all", num_gpus=64, gpu="H100", mfu=0.3, price=2.5).describe()
    assert f"```text\n{shown}\n```" in page
