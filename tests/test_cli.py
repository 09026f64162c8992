# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The command line: a whole quickstart in seconds, help with examples, one-line errors, exit codes."""

import json
import logging
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel
from typer.testing import CliRunner

from turingvit_hf.cli import app
from turingvit_hf.training.demo import demonstration


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The result of the smallest quickstart, and its folder."""
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    return CliRunner().invoke(app, ["quickstart", "--minutes", "0.02", "--out", str(folder)]), folder


def test_quickstart_ends_well_and_says_what_it_did(quickstart):
    result, folder = quickstart
    assert result.exception is None
    assert result.exit_code == 0
    for part in (
        "shapes: 134 pairs to train on, 26 held out",
        "retrieval on 26 held-out pairs",
        "image to text R@1",
        "text to image R@5",
        "times chance",
        "weights and outputs are equal bit by bit",
        "which color?",
        "which shape?",
        "which background?",
        "its language model is untrained",
        "next: look at",
        str(folder / "quickstart.png"),
    ):
        assert part in result.output, part


def test_quickstart_leaves_what_it_promises(quickstart):
    _, folder = quickstart
    names = {"model", "vision_tower", "quickstart.json", "quickstart.png", "retrieval.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    with Image.open(folder / "quickstart.png") as report:
        assert report.width > 900
    retrieval = json.loads((folder / "retrieval.json").read_text())
    assert retrieval["num_pairs"] == 26
    assert retrieval["after"]["image_to_text_chance@1"] == pytest.approx(1 / 26)
    record = json.loads((folder / "quickstart.json").read_text())
    assert record["settings"] == {"data": "shapes", "minutes": 0.02, "seed": 0, "batch_size": 32}
    assert record["environment"]["torch"] == torch.__version__
    assert record["training"]["num_steps"] >= 2
    assert len(record["answers"]) == 3


def test_the_tower_it_leaves_is_ready_for_use(quickstart):
    _, folder = quickstart
    tower = AutoModel.from_pretrained(folder / "vision_tower")
    processor = AutoImageProcessor.from_pretrained(folder / "vision_tower")
    outputs = tower(**processor(Image.new("RGB", (80, 48), "red"), return_tensors="pt"))
    assert outputs.last_hidden_state.shape == (1, 5 * 3, 192)
    assert outputs.pooler_output.shape == (1, 192)


def test_quickstart_on_pictures_of_ones_own(invoke, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number in range(20):
        Image.new("RGB", (8 + number, 300 - number), (number, 90, 10 * number)).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "caption": f"picture number {number}"}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    result = invoke("quickstart", "--data", folder, "--minutes", 0.01, "--seed", 7)
    assert result.exit_code == 0, result.output
    assert "17 pairs to train on, 3 held out" in result.output
    assert "which of these 3 captions?" in result.output
    assert (tmp_path / "turingvit-quickstart" / "quickstart.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "./nowhere"], "error: there is no file or folder './nowhere'"),
        (["--minutes", "0"], "error: minutes must be more than 0, not 0.0"),
        (["--minutes", "nan"], "error: minutes must be more than 0, not nan"),
        (["--out", "taken"], "error: taken is not empty"),
        (["--out", "taken", "--overwrite"], "error: taken has no quickstart.json"),
    ],
    ids=["data", "no minutes", "minutes nan", "out", "overwrite"],
)
def test_bad_input_is_one_line_and_exit_code_1(invoke, tmp_path, arguments, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").touch()
    result = invoke("quickstart", *arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_bad_options_are_exit_code_2(invoke):
    assert invoke("quickstart", "--seed", "-1").exit_code == 2
    assert invoke("quickstart", "--nonsense").exit_code == 2
    assert invoke("nonsense").exit_code == 2


def test_a_fault_of_the_program_is_no_success_and_leaves_nothing(invoke, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(demonstration.AutoModel, "from_pretrained", fail)
    result = invoke("quickstart", "--minutes", 0.01)
    assert result.exit_code != 0
    assert isinstance(result.exception, RuntimeError)
    assert not list(tmp_path.iterdir())


def test_settings_of_other_libraries_come_back(quickstart):
    assert not logging.getLogger("turingvit_hf").handlers


COMMANDS = (
    "quickstart",
    "pretrain",
    "plan",
    "curate",
    "swap",
    "chat",
    "evaluate",
    "benchmark",
    "export",
    "serve",
    "info",
)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("curate", "benchmark", "serve")])
def test_help_has_an_example(invoke, command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Example: turingvit {command}" in " ".join(result.output.split())


def test_help_lists_the_commands(invoke):
    assert set(COMMANDS) <= set(invoke("--help").output.split())


def test_info_names_versions_devices_and_backends(invoke):
    result = invoke("info")
    assert result.exit_code == 0
    for part in (
        f"torch {torch.__version__}",
        "\ncpu: ",
        "backends of linear attention: reference, torch",
        "runs on torch:",
    ):
        assert part in result.output


def test_info_says_what_the_kernels_run_with(invoke, monkeypatch, tmp_path):
    output = invoke("info").output
    assert "\n  triton 3." in output or "\n  no triton: the package is not installed" in output
    assert "self-test of its kernels on their first use: on\n" in output
    assert "launches of its kernels: the table of this package\n" in output
    launch = {"tokens": 64, "num_warps": 4, "num_stages": 2}
    file = tmp_path / "launches.json"
    file.write_text(json.dumps({"launches": {"sm_90": {"16": {"64": {"forward_state": launch}}}}}))
    monkeypatch.setenv("TURINGVIT_LAUNCH_TABLE", str(file))
    monkeypatch.setenv("TURINGVIT_SELF_TEST", "0")
    output = invoke("info").output
    assert "first use: off, as TURINGVIT_SELF_TEST says" in output
    assert f"launches of its kernels: 1 of {file}, as TURINGVIT_LAUNCH_TABLE says" in output
    monkeypatch.setenv("TURINGVIT_LAUNCH_TABLE", "nowhere.json")
    result = invoke("info")
    assert result.exit_code == 0
    assert "a file that cannot be used: [Errno 2]" in result.output


@pytest.fixture
def fresh_families():
    """What was found out about made-up GPUs is forgotten."""
    pytest.importorskip("triton")
    from turingvit_hf.kernels.linear_attention import triton_backend

    triton_backend.launch_family.cache_clear()
    yield
    triton_backend.launch_family.cache_clear()


@pytest.mark.usefixtures("fresh_families")
def test_info_says_why_a_gpu_does_not_run_triton_kernels(invoke, monkeypatch):
    properties = SimpleNamespace(name="Tesla T4", total_memory=15 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    output = invoke("info").output
    assert "\ncuda:0: Tesla T4, 15 GiB\n" in output
    assert "runs on torch: the kernels are for NVIDIA GPUs of compute capability 8.0 and newer" in output


def test_info_says_that_triton_is_not_there(invoke, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "no triton: " in invoke("info").output
