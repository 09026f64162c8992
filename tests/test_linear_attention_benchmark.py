# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of linear attention times nothing that is wrong, and calls other projects' kernels as they ask."""

import dataclasses
import importlib
import json
import os
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from tests.processes import run_command


BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPT = BENCHMARKS / "linear_attention.py"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def benchmark():
    return importlib.import_module("linear_attention")


def run(benchmark, folder, *arguments):
    """What a smoke run on the CPU writes down."""
    benchmark.main(["--smoke", "--device", "cpu", "--dtypes", "float32", "--out", str(folder), *arguments])
    return json.loads((folder / "linear_attention.json").read_text())


def test_a_cpu_times_the_forms_it_runs(benchmark, tmp_path, capsys):
    found = run(benchmark, tmp_path)
    rows = {(row["form"], row["pack"], row["pass"]) for row in found["times"]}
    forms, packs, passes = (sorted({row[i] for row in rows}) for i in range(3))
    assert forms == ["eager", "reference", "sdpa", "torch"]
    assert packs == ["1 x 40", "3 ragged"]
    assert passes == ["forward", "forward + backward"]
    assert len(rows) == len(found["times"]) == 16
    assert all(len(row["seconds"]) == 2 and row["median_ms"] > 0 for row in found["times"])
    assert found["checks"]["float32"]["faults"]["flash-attn"] == "flash_attn is not installed"
    printed = capsys.readouterr().out
    assert printed.index("errors by norm against float64") < printed.index("forward + backward")
    with Image.open(tmp_path / "linear_attention.png") as picture:
        assert picture.width > 400


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (lambda y: y * 1.001, r"wrong: \w+ is off by 1\.0e-03, allowed is 1\.0e-04"),
        (lambda y: y * torch.nan, r"wrong: output is off by nan"),
        (lambda y: y[:, :1], r"fails: ValueError: the output is \(60, 1\), not \(60, 64\)"),
        (lambda y: y + 1e-3 * (y - y.detach()), r"wrong: (q|k|v|gate|norm_weight) is off by 1\.0e-03"),
    ],
    ids=["value", "nan", "shape", "gradient"],
)
def test_a_wrong_form_gets_no_time(benchmark, tmp_path, monkeypatch, wrong, fault):
    form = benchmark.FORMS["torch"]
    broken = dataclasses.replace(form, run=lambda pack: wrong(form.run(pack)))
    monkeypatch.setitem(benchmark.FORMS, "torch", broken)
    found = run(benchmark, tmp_path, "--forms", "torch", "reference")
    faults = found["checks"]["float32"]["faults"]
    assert faults["reference"] is None
    assert re.match(fault, faults["torch"])
    assert {row["form"] for row in found["times"]} == {"reference"}


def by_image(core):
    """A kernel for packs like those of other projects, by its formula: head first inside."""

    def run(q, k, v, bounds):
        images = []
        for start, stop in pairwise(bounds.tolist()):
            images.append(core(*(x[start:stop].transpose(0, 1) for x in (q, k, v))).transpose(0, 1))
        return torch.cat(images)

    return run


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max())
    return by_image(torch.nn.functional.scaled_dot_product_attention)(q, k, v, cu_seqlens_q)


def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k):
    return flash_attn_varlen_func(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)


def chunk_linear_attn(
    q, k, v, scale=None, initial_state=None, output_final_state=False, normalize=True, cu_seqlens=None
):
    assert not normalize
    assert cu_seqlens.dtype == torch.int64
    assert q.shape[0] == 1

    def core(q, k, v):
        return torch.tril(q @ k.mT) @ v / q.shape[2] ** 0.5

    return by_image(core)(q[0], k[0], v[0], cu_seqlens)[None], None


def varlen_linear_attention(q, k, v, cu_seqlens, max_seqlen, scale=None, eps=1e-6):
    assert max_seqlen == int(cu_seqlens.diff().max())

    def core(q, k, v):
        return q @ (k.mT @ v) / k.shape[1] / ((q * k.mean(1, keepdim=True)).sum(-1, keepdim=True) + eps)

    return by_image(core)(q, k, v, cu_seqlens)


STANDS_FOR = {
    "flash-attn": ("flash_attn", flash_attn_varlen_func),
    "torch varlen": ("torch.nn.attention.varlen", varlen_attn),
    "fla, causal": ("fla.ops.linear_attn", chunk_linear_attn),
    "flash_bla, with denominator": ("flash_bla.ops.linear_attn.varlen", varlen_linear_attention),
}


@pytest.mark.parametrize("form", STANDS_FOR)
def test_kernels_of_other_projects_are_called_as_they_ask(benchmark, monkeypatch, form):
    # functions with their signatures stand for the kernels, which need a GPU
    name, function = STANDS_FOR[form]
    module = ModuleType(name)
    setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, name, module)
    parent = name.rpartition(".")[0]
    while parent and not parent.startswith("torch"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        parent = parent.rpartition(".")[0]
    pack = benchmark.make_pack((1, 17, 40), 2, 16, dtype=torch.float32, device=torch.device("cpu"))
    errors = benchmark.check(benchmark.FORMS[form], pack)
    assert max(errors.values()) < 1e-5, errors


# importing inductor runs decorators of torch.utils.mkldnn that torch itself has deprecated (torch 2.13)
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiled_form_is_right(benchmark):
    forms = importlib.import_module("linear_attention_forms")
    # the eager compiler: whether the form is right does not depend on what generates its code
    with torch.compiler.set_stance("force_eager"):
        pack = benchmark.make_pack((1, 17, 40), 2, 16, dtype=torch.float32, device=torch.device("cpu"))
        assert max(benchmark.check(forms.FORMS["compiled"], pack).values()) < 1e-5


def test_times_are_taken_in_turn_and_end_with_their_budget(benchmark):
    order = []

    def clock(call):
        return call()

    clock.device = torch.device("cpu")
    calls = {"long": lambda: order.append("long") or 5.0, "short": lambda: order.append("short") or 1.0}
    timings = benchmark.time_interleaved(calls, clock, seconds=3.5, repeats=10)
    assert order == ["long", "short", "long", "short", "short", "short", "short"]
    assert timings["long"].seconds == (5.0,)
    assert timings["short"].seconds == (1.0,) * 4


def test_bytes_are_those_of_the_kernels(benchmark):
    one = benchmark.moved_bytes((4096,), 20, 64, itemsize=2)
    two = benchmark.moved_bytes((4096, 4096), 20, 64, itemsize=2)
    assert {name: 2 * value for name, value in one.items()} == two
    # KERNELS: about 16 to 18 KB a token forward and 28 to 31 KB backward
    assert 16e3 < one["forward"] / 4096 < 19e3
    assert 44e3 < one["forward + backward"] / 4096 < 52e3


@pytest.mark.slow
def test_triton_kernels_are_checked_and_timed_in_the_interpreter(tmp_path):
    pytest.importorskip("triton", reason="Triton is not installed")
    command = [sys.executable, str(SCRIPT), "--smoke", "--device", "cpu", "--dtypes", "float16", "--forms", "triton"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = run_command([*command, "--out", str(tmp_path)], env=environment)
    assert result.returncode == 0, result.stderr
    assert "their times mean nothing" in result.stdout
    found = json.loads((tmp_path / "linear_attention.json").read_text())
    assert len(found["times"]) == 4
    assert all(row["bytes_per_second"] > 0 for row in found["times"])
