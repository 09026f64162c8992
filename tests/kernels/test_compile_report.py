# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the Triton kernels need on GPUs that are not here: compiled ahead of time, read from their machine code."""

import json

import pytest

from turingvit_hf.kernels import compile_report
from turingvit_hf.kernels.linear_attention.roofline import CARDS


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def assert_within_limits(kernels):
    for entry in kernels:
        where = (entry["target"], entry["dtype"], entry["head_dim"], entry["kernel"])
        assert not entry["faults"], (*where, entry["faults"])
        products = {"forward_state": 1, "forward_squares": 1, "forward_output": 1}
        products |= {"backward_query": 6, "backward_key_value": 2, "reduce_state": 0, "backward_rows": 0}
        # a compiler may unroll a product, never lose one
        assert entry["products"] >= products[entry["kernel"]], where
        if entry["target"].startswith("cuda") and products[entry["kernel"]]:
            assert set(entry["tensor_core"]) <= {"HMMA", "HGMMA", "UTCHMMA"}, where


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("target", ["cuda:80", "cuda:86", "cuda:90"])
def test_heads_of_64_neither_spill_nor_miss_tensor_cores(target):
    assert_within_limits(compile_report.compile_all([target], ["bf16", "fp16"], [64], jobs=1))


@pytest.mark.usefixtures("own_cache")
def test_amd_compiles():
    assert_within_limits(compile_report.compile_all(["hip:gfx942"], ["bf16"], [64], jobs=1))


@pytest.mark.usefixtures("own_cache")
@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:80", "cuda:86", "cuda:90", "hip:gfx942"])
def test_other_heads_and_16_bit_dtypes(target):
    assert_within_limits(compile_report.compile_all([target], ["bf16"], [32, 128], jobs=1))


@pytest.mark.parametrize("num_tokens", [256, *compile_report.NUM_TOKENS])
def test_bytes_are_close_to_the_minimum_and_far_from_eager(num_tokens):
    counts = compile_report.byte_counts(num_tokens)
    assert counts["forward"] <= 1.15 * counts["forward minimum"]
    assert counts["backward"] <= 1.15 * counts["backward minimum"]
    if num_tokens >= 1024:
        assert counts["eager forward"] > 2.5 * counts["forward"]
        assert counts["eager backward"] > 2.5 * counts["backward"]


@pytest.mark.parametrize("target", CARDS)
def test_predictions_grow_with_the_image_and_beat_eager(target):
    times = [compile_report.predictions(target, num_tokens) for num_tokens in compile_report.NUM_TOKENS]
    for name in times[0]:
        assert [time[name] for time in times] == sorted(time[name] for time in times)
    assert all(time["forward"] < time["eager forward"] for time in times)


@pytest.mark.usefixtures("own_cache")
def test_the_command_writes_what_it_shows(tmp_path, capsys):
    file = tmp_path / "report.json"
    options = ["--target", "cuda:90", "--dtype", "bf16", "--head-dim", "32", "--jobs", "2", "--json", str(file)]
    assert compile_report.main(options) == 0
    printed = capsys.readouterr().out
    report = json.loads(file.read_text())
    assert {entry["kernel"] for entry in report["kernels"]} == {
        *("forward_state", "forward_squares", "forward_output", "reduce_state"),
        *("backward_rows", "backward_query", "backward_key_value"),
    }
    assert "HMMA" in printed
    assert "H100" in printed


def test_a_process_that_interprets_is_told_so(monkeypatch, capsys):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(SystemExit):
        compile_report.main([])
    assert "cannot compile" in capsys.readouterr().err
