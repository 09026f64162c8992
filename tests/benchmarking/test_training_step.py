# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A run of training steps: forms that see the same images, what its files hold, ratios, and what is refused."""

import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.benchmarking.tiny import script
from turingvit_hf.benchmarking import training_step
from turingvit_hf.benchmarking.options import TrainingStepOptions
from turingvit_hf.benchmarking.towers import TowerSize
from turingvit_hf.benchmarking.training_step import (
    FORMS,
    FRAME,
    LONGEST,
    PACKED,
    describe_steps,
    layer_types,
    make_inputs,
    make_step,
    ragged_grid,
    run_training_step,
    table_of_steps,
    tokens_of,
)
from turingvit_hf.cli import app
from turingvit_hf.errors import InputError


CPU = torch.device("cpu")
TINY = TowerSize(layers=2, width=64, heads=1, mlp_width=128)


def options(**changes):
    fields = {"layers": 2, "width": 64, "images": 3, "tokens": 60, "threads": 1, "repeats": 2}
    return TrainingStepOptions(**{**fields, **changes})


@pytest.fixture
def no_processes(monkeypatch):
    """Peaks without a process for each."""
    peaks = {PACKED: 1.0, FRAME: 1.5, LONGEST: 2.0}
    monkeypatch.setattr(
        training_step, "process_peak", lambda form, *rest: {"peak_gib": peaks[form], "of": "a process"}
    )


def test_a_run_leaves_figures_a_page_and_a_picture_and_a_later_one_adds_to_them(no_processes, tmp_path):
    figures = run_training_step(options(out=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {f"training.{ending}" for ending in ("json", "md", "png")}
    assert json.loads((tmp_path / "training.json").read_text()) == figures
    ((name, run),) = figures["runs"].items()
    assert name == "2 layers x 64, 3 images, 60 tokens, float32"
    for form in FORMS:
        entry = run["forms"][form]
        assert len(entry["seconds"]) == 2
        assert entry["of"] == "a process"
        assert f"{name}: {form}" in (tmp_path / "training.md").read_text()
    assert training_step.LEGEND in (tmp_path / "training.md").read_text()
    with Image.open(tmp_path / "training.png") as picture:
        assert picture.width > 500


def test_times_tokens_and_memory_become_ratios(monkeypatch, no_processes, tmp_path):
    script(monkeypatch, [2.0, 2.2, 5.0])
    figures = run_training_step(options(repeats=1, out=tmp_path))
    (run,) = figures["runs"].values()
    grid = ragged_grid(3, 60)
    tokens, longest = int(grid.prod(-1).sum()), 3 * int(grid.prod(-1).max())
    assert [run["forms"][form]["tokens"] for form in FORMS] == [tokens, tokens, longest]
    with_sizes, without = describe_steps(figures)
    assert "packed gives 1.10 times the images/s of padded, with image_sizes" in with_sizes
    assert "packed gives 2.50 times the images/s of padded to the longest" in without
    assert f"{tokens} tokens against {longest} and takes 1.00 GiB against 2.00" in without
    (row,) = [line for line in table_of_steps(figures).splitlines() if f": {PACKED}" in line]
    assert [cell.strip() for cell in row.strip("|").split("|")][1:3] == [str(tokens), "2.000"]
    # the same again is there, another dtype is added
    script(monkeypatch, [1.0] * 3)
    run_training_step(options(repeats=1, out=tmp_path))
    figures = run_training_step(options(repeats=1, out=tmp_path, dtype="bf16"))
    assert [name.rpartition(" ")[2] for name in figures["runs"]] == ["float32", "bfloat16"]
    assert [run["forms"][PACKED]["best"] for run in figures["runs"].values()] == [2.0, 1.0]


def test_forms_hold_the_same_images():
    grid = ragged_grid(5, 100)
    assert abs(int(grid.prod(-1).sum()) - 100) <= 15
    packed, frame, longest = (make_inputs(form, grid, CPU) for form in FORMS)
    assert packed["pixel_values"].shape == (int(grid.prod(-1).sum()), 768)
    assert torch.equal(frame["image_sizes"], 16 * grid[:, 1:])
    assert list(frame["pixel_values"].shape[2:]) == (16 * grid[:, 1:].amax(0)).tolist()
    assert longest["pixel_values"][0].numel() == 768 * int(grid.prod(-1).max())
    assert tokens_of(LONGEST, grid) == 5 * int(grid.prod(-1).max())
    assert tokens_of(PACKED, grid) == tokens_of(FRAME, grid) == int(grid.prod(-1).sum())


def test_a_step_trains():
    inputs = make_inputs(PACKED, ragged_grid(2, 20), CPU)
    step = make_step(TINY, "float32", CPU)
    losses = [step(inputs) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert make_step(TINY, "float32", CPU)(inputs) == losses[0]  # whoever measures memory trains the same tower
    assert make_step(TINY, "bfloat16", CPU)(inputs) == pytest.approx(losses[0], rel=0.1)


def test_memory_is_that_of_a_process_of_its_own():
    peak = training_step.process_peak(PACKED, ragged_grid(2, 20), TINY, "float32")
    assert 0.1 < peak["peak_gib"] < 8


def test_towers_of_few_layers_have_both_kinds():
    assert layer_types(18) == (["linear_attention"] * 5 + ["full_attention"]) * 3
    assert layer_types(2) == ["linear_attention", "full_attention"]
    assert layer_types(1) == ["full_attention"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "layers=0"),
        ({"width": 100}, "width=100"),
        ({"tokens": 5}, "tokens=5: 3 images"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"warmup": -1}, "warmup=-1"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        run_training_step(options(**changes))


def test_the_command(tmp_path, no_processes):
    command = ["benchmark", "training", "--layers", "1", "--width", "64", "--images", "2", "--tokens", "20"]
    result = CliRunner().invoke(app, [*command, "--threads", "1", "--repeats", "1", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "training.md").exists()
