# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Clocks, turns, kinds of operations, rates of matrix products, and the files that figures are written to."""

import itertools
import os
import sys

import pytest
import torch

from tests.processes import run_command
from turingvit_hf.benchmarking import timing
from turingvit_hf.benchmarking.counting import ForwardCount
from turingvit_hf.benchmarking.matmul_rate import large_products, product_functions, product_rate
from turingvit_hf.benchmarking.operations import kind_of, operator_seconds, shares_by_kind
from turingvit_hf.benchmarking.options import split_names, split_numbers
from turingvit_hf.benchmarking.report import environment, markdown_table, read_figures, write_figures, write_text
from turingvit_hf.benchmarking.report_curve import reported_ratio
from turingvit_hf.benchmarking.timing import Timing, clock, time_interleaved
from turingvit_hf.errors import InputError


CPU = torch.device("cpu")


@pytest.fixture
def ticking(monkeypatch):
    """A clock that is one second later whenever it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(timing, "clock", lambda: float(next(ticks)))


@pytest.mark.usefixtures("ticking")
def test_forms_are_timed_in_turn():
    order, rounds = [], []
    forms = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = time_interleaved(forms, 2, warmup=2, on_round=rounds.append)
    assert order == ["a", "b"] * 4  # the first two of each warm up
    assert timings["a"] == timings["b"] == Timing((1.0, 1.0))
    assert rounds == [0, 1, 2]


def test_best_median_and_spread():
    times = Timing((4.0, 2.0, 3.0, 9.0))
    assert (times.best, times.median, times.spread) == (2.0, 3.5, 3.5)
    assert times.text == "2,000.0 / 3,500.0 / 9,000.0"


def test_one_thread_is_measured_in_processor_time(monkeypatch):
    monkeypatch.setattr(timing.time, "process_time", lambda: 1.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 2.0)
    for threads, expected, name in ((1, 1.0, "processor time"), (2, 2.0, "wall time")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert clock() == expected
        assert environment(CPU)["clock"] == name


@pytest.mark.parametrize(
    ("operator", "callers", "kind"),
    [
        ("mm", ["matmul", "linear"], "matrix products"),
        ("copy_", ["addmm", "linear"], "matrix products"),
        ("bmm", ["torch_linear_attention"], "linear attention"),
        ("silu", ["torch_linear_attention"], "linear attention"),
        ("bmm", ["_scaled_dot_product_attention_math", "scaled_dot_product_attention"], "softmax attention"),
        ("mul", ["rms_norm"], "norms"),
        ("silu", [], "elementwise"),
        ("index_select", ["embedding"], "other"),
    ],
)
def test_an_operation_is_of_the_kind_of_what_calls_it(operator, callers, kind):
    assert kind_of(operator, callers) == kind


def test_a_profile_finds_where_the_time_goes():
    x, weight = torch.randn(512, 512), torch.randn(512, 512)

    def run() -> None:
        for _ in range(30):  # so many that they take longer than a norm that other processes hold up
            torch.nn.functional.linear(x, weight)
        torch.nn.functional.rms_norm(x, (512,))

    seconds = operator_seconds(run)
    shares = shares_by_kind(seconds)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["matrix products"] > shares["norms"] > 0
    assert shares["softmax attention"] == shares["linear attention"] == 0


def test_the_profiler_does_not_speak_among_the_figures():
    code = """
import torch
from turingvit_hf.benchmarking.operations import operator_seconds
print(len(operator_seconds(lambda: torch.ones(3) + 1)) > 0)
"""
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    result = run_command([sys.executable, "-c", code], env=environment)
    assert result.stdout == "True\n"
    assert "profiler_start" not in result.stderr


def test_the_rate_is_that_of_all_products_of_a_tower_together():
    products = {(1000, 10, 100): 3, (1000, 100, 10): 1, (1, 10, 100): 1}
    count = ForwardCount(flops=10**8, products=products, parameters=0)
    assert set(large_products(count)) == {(1000, 10, 100), (1000, 100, 10)}
    seconds = {(1000, 10, 100): 0.1, (1000, 100, 10): 0.5}
    assert product_rate(count, seconds) == pytest.approx(4 * 2_000_000 / (3 * 0.1 + 0.5))


def test_products_are_those_of_a_linear_layer():
    functions = product_functions([(6, 4, 5), (2, 7, 3)], torch.float64, CPU)
    for (rows, _, columns), function in functions.items():
        out = function()
        assert out.shape == (rows, columns)
        assert out.abs().sum() > 0


def test_lists_with_commas_or_in_several_options():
    assert split_names(["a, b", "c", "a"]) == ("a", "b", "c")
    assert split_names(None) == ()
    assert split_numbers(["512,768", "1024"]) == (512, 768, 1024)
    for wrong in ("0", "-32", "1.5", "x"):
        with pytest.raises(InputError, match="no whole number above 0"):
            split_numbers([wrong])


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    file = tmp_path / "new" / "figures.json"
    assert read_figures(file) is None
    write_figures(file, {"a": [1, 2.5]})
    assert read_figures(file) == {"a": [1, 2.5]}

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(file), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_text(file, "half")
    assert read_figures(file) == {"a": [1, 2.5]}


def test_a_table_reads_as_text_too():
    assert markdown_table(("tower", "ms"), [("a", 1), ("longer", "2,000")]) == (
        "| tower  |    ms |\n| ------ | ----: |\n| a      |     1 |\n| longer | 2,000 |\n"
    )


def test_the_reports_ratios_are_known_at_its_sides_alone():
    assert reported_ratio("siglip2-l", "turingvit-18l", 1536) == pytest.approx(2.16, rel=0.02)
    assert reported_ratio("seed1.5-like", "turingvit-18l", 1536) == pytest.approx(3.04, rel=0.02)
    assert reported_ratio("siglip2-l", "turingvit-18l", 640) is None
    assert reported_ratio("qwen3-vl", "turingvit-18l", 1536) is None
