# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The CPU benchmarks run, and measure what they say; how fast anything is decides nothing here."""

import importlib
import itertools
import json
from pathlib import Path

import pytest
import torch

from turingvit_hf.benchmarking import timing


BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("benchmark_*.py"))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def harness():
    return importlib.import_module("harness")


@pytest.fixture
def ticking(monkeypatch):
    """A clock that is one second later whenever it is read."""
    ticks = itertools.count()

    def tick() -> float:
        return float(next(ticks))

    monkeypatch.setattr(timing, "clock", tick)
    return tick


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_smoke_run_prints_and_writes_its_figures(script, tmp_path, capsys):
    threads = torch.get_num_threads()
    importlib.import_module(script).main(["--smoke", "--json", str(tmp_path / "figures.json")])
    content = json.loads((tmp_path / "figures.json").read_text())
    assert content["tables"]
    assert all(content["tables"].values())
    printed = capsys.readouterr().out
    for name in (content["title"], *content["tables"], *content["goals"]):
        assert name in printed
    assert torch.get_num_threads() == threads


def test_parts_of_a_forward_add_up_to_all_of_it(ticking, monkeypatch):
    forward = importlib.import_module("benchmark_forward_cpu")
    monkeypatch.setattr(forward, "clock", ticking)
    model = forward.TuringViTModel(
        forward.TuringViTConfig(hidden_size=32, num_attention_heads=2, intermediate_size=32, num_hidden_layers=6)
    )
    timer = forward.PartTimer(model)
    before = ticking()
    model(torch.zeros(1, 3, 32, 32))
    assert timer.seconds.total() == ticking() - before - 2  # what lies before the tower begins and after it ends
    assert set(timer.seconds) == set(forward.PARTS.values())


def test_pictures_have_the_sides_that_were_asked_for(harness):
    sizes = harness.photo_sizes(200, 256, 512)
    assert all(256 <= max(size) <= 512 for size in sizes)
    assert max(max(size) / min(size) for size in sizes) < 1.8
    grid = harness.photo_grid(200, 256, 512)
    assert grid.shape == (200, 3)
    assert grid[:, 1:].amax(1).min() >= 16
    assert grid[:, 1:].max() <= 32
