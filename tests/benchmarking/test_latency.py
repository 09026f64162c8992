# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A latency run: what its files hold, that a later run goes on, ratios and floors, modes, and what is refused."""

import dataclasses
import functools
import json

import pytest
import torch
from PIL import Image
from torch._dynamo.testing import CompileCounter
from typer.testing import CliRunner

from tests.benchmarking.tiny import fake_figures, script, tiny_options, tiny_towers
from turingvit_hf.benchmarking import forwards, latency, latency_side
from turingvit_hf.benchmarking.latency import run_latency
from turingvit_hf.benchmarking.latency_tables import compare, describe_comparisons, latency_page, table_of_sides
from turingvit_hf.benchmarking.operations import KINDS
from turingvit_hf.cli import app
from turingvit_hf.errors import InputError


def read(folder):
    return json.loads((folder / "latency.json").read_text())


def test_a_run_leaves_figures_a_page_and_a_picture(tmp_path):
    threads = torch.get_num_threads()
    options = tiny_options(out=tmp_path / "new" / "folder", operations=True, matmul_rate=True, dtype="bf16")
    figures = run_latency(options, tiny_towers())
    assert {path.name for path in options.out.iterdir()} == {"latency.json", "latency.md", "latency.png"}
    assert read(options.out) == json.loads(json.dumps(figures))
    assert figures["settings"]["dtype"] == "bfloat16"
    assert figures["settings"]["clock"] == "processor time"
    assert list(figures["sides"]) == ["64", "96"]
    for side, record in figures["sides"].items():
        assert record["patches"] == (int(side) // 16) ** 2
        assert set(record["towers"]) == {"turingvit-18l", "siglip2-l"}
        assert record["products"]
        for tower in record["towers"].values():
            assert len(tower["seconds"]) == 2
            assert tower["best"] == min(tower["seconds"])
            assert tower["flops"] > tower["linear_layer_flops"] > 0
            assert tower["floor_share"] == pytest.approx(tower["flops"] / tower["matmul_rate"] / tower["best"])
            assert tower["floor_share"] > 0  # of times that noise decides: these towers are tiny
            assert sum(tower["operations"].values()) == pytest.approx(1)
            assert set(tower["operations"]) == set(KINDS)
    ours, theirs = (figures["sides"]["96"]["towers"][name] for name in ("turingvit-18l", "siglip2-l"))
    assert ours["operations"]["linear attention"] > 0
    assert theirs["operations"]["linear attention"] == 0
    assert theirs["operations"]["softmax attention"] > 0
    page = (options.out / "latency.md").read_text()
    for part in ("| 96 x 96, siglip2-l", "## Share of time of each kind of operation", "bfloat16", "M parameters"):
        assert part in page
    with Image.open(options.out / "latency.png") as picture:
        assert picture.width > 1000
    assert torch.get_num_threads() == threads


def test_times_become_ratios_to_the_first_tower(monkeypatch, tmp_path):
    script(monkeypatch, [2.0, 3.0, 2.5, 5.0, 4.0, 12.0, 4.0, 16.0])  # two towers in turn, two rounds, two sides
    figures = run_latency(tiny_options(out=tmp_path), tiny_towers())
    assert figures["sides"]["64"]["towers"]["turingvit-18l"]["seconds"] == (2.0, 2.5)
    assert figures["comparisons"]["ratios"]["64"]["siglip2-l"] == {
        "best": 1.5,
        "median": pytest.approx(4.0 / 2.25),
        "report": None,
    }
    assert figures["comparisons"]["ratios"]["96"]["siglip2-l"]["best"] == 3.0
    # 16 patches, then 36
    assert figures["comparisons"]["growth"]["turingvit-18l"]["96"]["best"] == pytest.approx((4 / 36) / (2 / 16))
    assert figures["comparisons"]["growth"]["turingvit-18l"]["64"]["best"] == 1.0


def test_the_comparisons_that_the_report_makes_are_printed_beside_its_own():
    times = {"turingvit-18l": {512: 1.0, 1536: 10.0}, "siglip2-l": {1536: 25.0}, "seed1.5-like": {1536: 31.0}}
    figures = fake_figures(times, baseline="turingvit-18l")
    figures["comparisons"] = compare(figures)
    figures["sides"]["1536"]["towers"]["turingvit-18l"] |= {"floor_share": 0.83, "matmul_rate": 5e11, "flops": 1e13}
    lines = describe_comparisons(figures)
    assert (
        "1536 x 1536: siglip2-l takes 2.50 times as long as turingvit-18l (medians 2.50; 2.18 in the report)" in lines
    )
    assert any("seed1.5-like takes 3.10 times" in line and "3.05 in the report" in line for line in lines)
    assert "turingvit-18l: time per patch at 9,216 patches is 1.11 times that at 1,024" in lines
    assert any(
        line.startswith("turingvit-18l: the floor is 83 % of its best run at 1536 x 1536: 10 TFLOP at 500 GFLOP/s")
        for line in lines
    )
    assert not any("siglip2-l: time per patch" in line for line in lines)  # it has one side alone
    assert "| 1536 x 1536, siglip2-l" in table_of_sides(figures)
    figures["sides"]["1536"]["failed"]["qwen3-vl"] = "OutOfMemoryError: too large"
    assert "- 1536 x 1536, qwen3-vl: OutOfMemoryError: too large" in latency_page(figures)


def test_a_run_goes_on_where_one_was_killed(monkeypatch, tmp_path):
    measure, measured = latency_side.measure_side, []

    def killed_at_96(towers, side, options, weights):
        if side == 96 and not killed:
            killed.append(side)
            raise KeyboardInterrupt
        measured.append((side, [tower.name for tower in towers]))
        return measure(towers, side, options, weights)

    killed = []
    monkeypatch.setattr(latency, "measure_side", killed_at_96)
    options = tiny_options(out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_latency(options, tiny_towers())
    before = read(tmp_path)["sides"]
    assert list(before) == ["64"]
    run_latency(options, tiny_towers())
    assert [side for side, _ in measured] == [64, 96]
    assert read(tmp_path)["sides"]["64"] == before["64"]
    # another tower: the side is measured anew with those it had, so that all of them were run in turn
    run_latency(dataclasses.replace(options, towers=("turingvit-18l", "dinov3-l"), sides=(64,)), tiny_towers())
    assert measured[-1] == (64, ["turingvit-18l", "dinov3-l", "siglip2-l"])
    assert list(read(tmp_path)["sides"]) == ["64", "96"]
    # more runs of each: again
    run_latency(dataclasses.replace(options, repeats=3, sides=(96,)), tiny_towers())
    assert measured[-1][0] == 96
    assert len(read(tmp_path)["sides"]["96"]["towers"]["siglip2-l"]["seconds"]) == 3
    run_latency(dataclasses.replace(options, sides=(64, 96)), tiny_towers())
    assert len(measured) == 4


def test_a_later_run_measures_what_it_asks_for_beside_the_times(monkeypatch, tmp_path):
    asked = []

    def peak(tower, side, *rest):
        asked.append(tower.name)
        return {"weights_gib": 1.0, "peak_gib": 2.0, "of": "a process"}

    monkeypatch.setattr(latency_side, "process_peak", peak)
    options = tiny_options(out=tmp_path, sides=(64,), repeats=1)
    run_latency(options, tiny_towers())
    assert asked == []
    run_latency(dataclasses.replace(options, memory=True), tiny_towers())
    assert asked == ["turingvit-18l", "siglip2-l"]
    assert "## Peak memory" in (tmp_path / "latency.md").read_text()
    run_latency(dataclasses.replace(options, memory=True), tiny_towers())
    assert len(asked) == 2
    # measured anew without it, the towers keep what they had
    figures = run_latency(dataclasses.replace(options, matmul_rate=True, operations=True), tiny_towers())
    tower = figures["sides"]["64"]["towers"]["siglip2-l"]
    assert {"memory", "floor_share", "operations"} <= tower.keys()
    assert len(asked) == 2
    before = read(tmp_path)
    run_latency(dataclasses.replace(options, memory=True, matmul_rate=True, operations=True), tiny_towers())
    assert read(tmp_path) == before


def test_tables_say_what_their_columns_are(caplog):
    times = {"turingvit-18l": {32: 0.5}, "siglip2-l": {32: 0.25}}
    figures = fake_figures(times, baseline="turingvit-18l")
    figures["comparisons"] = compare(figures)
    figures["sides"]["32"]["towers"]["siglip2-l"]["flops"] = 2_500_000_000
    (row,) = [line for line in table_of_sides(figures).splitlines() if "siglip2-l" in line]
    assert [cell.strip() for cell in row.strip("|").split("|")][-2] == "0.0025"
    with caplog.at_level("INFO", "turingvit_hf"):
        run_latency(tiny_options(sides=(64,), repeats=1), tiny_towers())
    for text in (caplog.text, latency_page(figures)):
        assert "Spread: how much longer the longest run took" in text
        assert "Ratio: best runs, as multiples of turingvit-18l" in text


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {"batch": 2}, {"threads": 2}])
def test_figures_of_another_setting_are_not_mixed(tmp_path, changes):
    run_latency(tiny_options(out=tmp_path, sides=(64,), repeats=1), tiny_towers())
    with pytest.raises(InputError, match=f"has figures with {next(iter(changes))}=.*choose another folder"):
        run_latency(tiny_options(out=tmp_path, sides=(64,), repeats=1, **changes), tiny_towers())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"towers": ("vit",)}, "there is no tower 'vit'"),
        ({"sides": (500,)}, "side=500: it is a multiple of 32"),
        ({"sides": ()}, "no sides"),
        ({"dtype": "int8"}, "dtype='int8': allowed are float32, bfloat16, float16, fp32, bf16, fp16"),
        ({"mode": "jit"}, "mode='jit': allowed are eager, compiled, onnxruntime"),
        ({"repeats": 0}, "repeats=0"),
        ({"warmup": 0}, "warmup=0"),
        ({"batch": 0}, "batch=0"),
        ({"threads": 0}, "threads=0"),
        ({"device": "gpu"}, "device='gpu'"),
        ({"device": "meta"}, "device='meta': allowed are cpu and cuda"),
        ({"device": "cuda:77"}, "device='cuda:77': torch sees"),
        ({"mode": "compiled", "memory": True}, "memory is not measured with mode='compiled' on cpu"),
        ({"mode": "onnxruntime", "memory": True}, "memory is not measured with mode='onnxruntime' on cpu"),
        ({"mode": "onnxruntime", "dtype": "bf16"}, "runs in float32 or float16, not in bfloat16"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_built(monkeypatch, changes, message):
    monkeypatch.setattr(latency, "measure_side", lambda *args: pytest.fail("something was built"))
    with pytest.raises(InputError) as error:
        run_latency(tiny_options(**changes), tiny_towers())
    assert message in str(error.value)


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "latency.json").write_text("[]")
    with pytest.raises(InputError, match="holds no figures"):
        run_latency(tiny_options(out=tmp_path), tiny_towers())
    (tmp_path / "latency.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        run_latency(tiny_options(out=tmp_path), tiny_towers())
    with pytest.raises(InputError, match="is a file"):
        run_latency(tiny_options(out=tmp_path / "latency.json"), tiny_towers())
    with pytest.raises(InputError, match="cannot be made: Not a directory"):
        run_latency(tiny_options(out=tmp_path / "latency.json" / "new"), tiny_towers())


def test_a_tower_without_its_package_is_left_out_and_alone_refused(caplog):
    towers = tiny_towers()
    towers["naflexvit-l"] = dataclasses.replace(towers["naflexvit-l"], package="no_such_package")
    names = ("turingvit-18l", "naflexvit-l")
    with caplog.at_level("INFO", "turingvit_hf"):
        figures = run_latency(tiny_options(towers=names, sides=(64,), repeats=1), towers)
    assert set(figures["sides"]["64"]["towers"]) == {"turingvit-18l"}
    assert "naflexvit-l is left out: no_such_package is not installed" in caplog.text
    with pytest.raises(InputError, match="naflexvit-l: no_such_package is not installed"):
        run_latency(tiny_options(towers=names[1:]), towers)


def test_a_tower_that_runs_out_of_memory_leaves_the_others(monkeypatch, tmp_path):
    prepare = forwards.prepare

    def too_large(model, inputs, **kwargs):
        if type(model).__name__ == "SiglipVisionModel":
            raise torch.OutOfMemoryError("tried to allocate\n 2 GiB")
        return prepare(model, inputs, **kwargs)

    monkeypatch.setattr(latency_side, "prepare", too_large)
    options = tiny_options(out=tmp_path, sides=(64,), repeats=1)
    figures = run_latency(options, tiny_towers())
    assert figures["sides"]["64"]["failed"] == {"siglip2-l": "OutOfMemoryError: tried to allocate 2 GiB"}
    assert set(figures["sides"]["64"]["towers"]) == {"turingvit-18l"}
    monkeypatch.setattr(latency, "measure_side", lambda *args: pytest.fail("measured again"))
    run_latency(options, tiny_towers())


def test_a_fault_of_an_eager_tower_is_no_figure(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(latency_side, "prepare", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run_latency(tiny_options(), tiny_towers())


@pytest.mark.slow
def test_peak_memory_is_that_of_a_process_with_one_tower(tmp_path):
    figures = run_latency(tiny_options(towers=("siglip2-l",), sides=(64,), repeats=1, memory=True), tiny_towers())
    memory = figures["sides"]["64"]["towers"]["siglip2-l"]["memory"]
    assert 0.05 < memory["weights_gib"] <= memory["peak_gib"] < 3
    assert "## Peak memory" in latency_page(figures)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own code
def test_compiled_towers_are_timed_apart_from_their_compilation():
    options = tiny_options(sides=(64,), repeats=1, mode="compiled")
    figures = run_latency(options, tiny_towers())
    record = figures["sides"]["64"]
    assert record["failed"] == {}
    assert all(tower["prepare_seconds"] > 0 for tower in record["towers"].values())
    assert "## Compiling or exporting" in latency_page(figures)


def test_no_timed_run_compiles(monkeypatch):
    counter, timed = CompileCounter(), latency_side._time
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    num_graphs = []
    monkeypatch.setattr(
        latency_side, "_time", lambda *arguments: num_graphs.append(counter.frame_count) or timed(*arguments)
    )
    figures = run_latency(tiny_options(mode="compiled"), tiny_towers())
    assert all(not record["failed"] for record in figures["sides"].values())
    # of each tower one for each side, all of them before anything is timed
    assert num_graphs == [2, 4]
    assert counter.frame_count == 4


@pytest.mark.slow
def test_towers_run_in_onnx_runtime(tmp_path):
    options = tiny_options(sides=(64,), repeats=1, mode="onnxruntime", out=tmp_path)
    record = run_latency(options, tiny_towers())["sides"]["64"]
    assert record["failed"] == {}
    for tower in record["towers"].values():
        assert min(tower["prepare_seconds"], tower["best"]) > 0
    assert {path.name for path in tmp_path.iterdir()} == {"latency.json", "latency.md", "latency.png"}


def test_a_peer_that_cannot_be_exported_says_why(monkeypatch, tmp_path):
    def refuse(*args):
        raise torch.onnx.errors.OnnxExporterError("no such operator")

    monkeypatch.setattr(forwards, "_export_peer", refuse)
    options = tiny_options(towers=("qwen3-vl",), sides=(64,), repeats=1, mode="onnxruntime", out=tmp_path)
    figures = run_latency(options, tiny_towers())
    assert figures["sides"]["64"]["failed"] == {"qwen3-vl": "OnnxExporterError: no such operator"}
    assert "64 x 64, qwen3-vl: OnnxExporterError: no such operator" in (tmp_path / "latency.md").read_text()


def test_the_command_passes_its_options_on(monkeypatch):
    seen = []
    monkeypatch.setattr(latency, "run_latency", seen.append)
    arguments = ["--towers", "turingvit-18l,siglip2-l", "--tower", "dinov3-l", "--side", "512,768", "--side", "1536"]
    arguments += ["--dtype", "bf16", "--threads", "1", "--no-operations", "--memory", "--batch", "4"]
    result = CliRunner().invoke(app, ["benchmark", "latency", *arguments])
    assert result.exit_code == 0, result.output
    (options,) = seen
    assert options.towers == ("turingvit-18l", "siglip2-l", "dinov3-l")
    assert options.sides == (512, 768, 1536)
    assert (options.dtype, options.threads, options.batch, options.repeats) == ("bf16", 1, 4, 5)
    assert (options.memory, options.operations, options.matmul_rate, options.out) == (True, False, True, None)
    monkeypatch.undo()
    result = CliRunner().invoke(app, ["benchmark", "latency", "--sides", "512,x"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: 'x' is no whole number above 0"


@pytest.mark.parametrize("command", ["latency", "preprocessing", "training"])
def test_help_has_an_example(command):
    result = CliRunner().invoke(app, ["benchmark", command, "--help"])
    assert result.exit_code == 0
    assert f"Example: turingvit benchmark {command}" in " ".join(result.output.split())
