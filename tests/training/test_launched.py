# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Two processes are one: DDP and FSDP2 over gloo, started by torchrun or forked here, which takes less time."""

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from tests.processes import PATIENCE, end, launch
from tests.training.tiny_run import FakeSteps, main
from turingvit_hf.training.distributed import rank
from turingvit_hf.training.pretraining import run_pretraining
from turingvit_hf.training.recipes import load_recipe


ROOT = Path(__file__).parents[2]
OPTIONS = {
    "eval_steps": 3,
    "save_strategy": "steps",
    "save_steps": 2,
    "recipe": {"ema_decay": 0.9, "tower": 0.5, "layer_decay": 0.8},
}
FSDP2 = {"fsdp": True, "fsdp_config": {"version": 2, "reshard_after_forward": True}}


STAGE = [
    "model={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 6, num_attention_heads: 2, patch_size: 16}",
    "data.tokens_per_pack=128",
    "data.packs_per_step=4",
    "data.num_readers=1",
    "evaluation={}",
    "training.max_steps=3",
    "training.warmup_steps=1",
    "training.logging_steps=1",
    "training.save_strategy=steps",
    "training.save_steps=1",
    "training.eval_strategy=no",
    "training.eval_on_start=false",
    "training.use_cpu=true",
]
RESOLUTIONS = {
    1: "{mode: bounded, min_side: 32, max_side: 64, crop_scale: [0.2, 1.0], flip: 0.5}",
    2: "{mode: bounded, min_side: 32, max_side: 64}",
    3: "{mode: native, max_patches: 16}",
    4: "{mode: native, max_patches: 16}",
}


def on_ranks(function: Callable[[], None], num_ranks: int = 2) -> None:
    """Calls a function in so many processes that know of each other."""
    with reserved_port() as port:
        _on_ranks(function, num_ranks, port)


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that the system gives to nobody else; who names it can listen there, as rank 0 does after its imports."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def _on_ranks(function: Callable[[], None], num_ranks: int, port: int) -> None:
    shared = {"WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks, "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": 1}
    children = []
    for number in range(num_ranks):
        child = os.fork()
        if not child:
            code = 1
            try:
                places = {} if num_ranks == 1 else shared | {"RANK": number, "LOCAL_RANK": number}
                os.environ.update({name: str(value) for name, value in places.items()})
                torch.set_num_threads(1)
                function()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    try:
        ended, _ = psutil.wait_procs([psutil.Process(child) for child in children], timeout=PATIENCE)
    finally:
        end(children)
    assert [process.returncode for process in ended] == [0] * num_ranks


def run(folder: Path, *, num_ranks: int = 1, **options) -> dict:
    """What a run on so many ranks reports."""
    folder.mkdir(exist_ok=True)
    on_ranks(lambda: main(folder, {**OPTIONS, **options}), num_ranks)
    return report(folder)


def report(folder: Path) -> dict:
    found = json.loads((folder / "report.json").read_text())
    found["weights"] = torch.load(folder / "weights.pt")
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"))


def assert_same(found: dict, expected: dict, *, first_step: int = 1) -> None:
    """The same logs from a step on, and the same averaged weights at the end, but for rounding."""
    compared = ("loss", "siglip", "grad_norm", "learning_rate", "images_seen", "tokens_seen", "padding_share")
    for ours, theirs in zip(found["history"], expected["history"], strict=True):
        if ours["step"] >= first_step:
            names = [name for name in theirs if name in compared or name.startswith(("eval_", "data_skipped"))]
            for name in names:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-5, nan_ok=True), (ours["step"], name)
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weight in found["weights"].items():
        torch.testing.assert_close(weight, expected["weights"][name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_torchrun_with_two_processes_is_one_process(tmp_path, alone):
    result = launch(["-m", "tests.training.tiny_run", tmp_path, json.dumps(OPTIONS)])
    assert result.returncode == 0, result.stderr[-3000:]
    found = report(tmp_path)
    assert found["world_size"] == 2
    assert "DistributedDataParallel" in found["wrapper"]
    assert_same(found, alone)
    files = {path.name for path in (tmp_path / "checkpoint-6").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth", "ema.safetensors", "data_state.json"} <= files


@pytest.mark.parametrize("kind", [{}, FSDP2], ids=["ddp", "fsdp2"])
def test_two_ranks_are_one_and_go_on_from_a_checkpoint(tmp_path, alone, kind):
    found = run(tmp_path, num_ranks=2, **kind)
    assert ("FSDPModule" if kind else "DistributedDataParallel") in found["wrapper"]
    assert_same(found, alone)
    resumed = run(tmp_path, num_ranks=2, resume=str(tmp_path / "checkpoint-4"), **kind)
    assert_same(resumed, found)
    assert json.loads((tmp_path / "checkpoint-4" / "data_state.json").read_text())["readers"] == {"0": 4, "1": 4}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_two_ranks_are_one_in_every_stage(tmp_path, clips, number):
    """With the recipes' random scaling of positions; two packs a rank, so that contrastive stages embed them twice."""
    sources = ["{path: shapes}"]
    changes = [*STAGE, f"data.resolution={RESOLUTIONS[number]}"]
    if number > 1:
        changes.append("text={encoder: small, projection_dim: 16}")
    if number == 4:
        sources.append(f"{{path: {clips}, kind: video}}")
        changes += ["data.num_frames=2", "data.video_share=0.7", "data.max_bad_share=0.5"]
    recipe = load_recipe(f"tiny/stage{number}", [*changes, f"data.sources=[{', '.join(sources)}]"])
    for num_ranks in (1, 2):
        on_ranks(lambda: run_pretraining(recipe, out=tmp_path / str(num_ranks)), num_ranks)  # noqa: B023
    reports = [json.loads((tmp_path / name / "report.json").read_text())["history"] for name in ("1", "2")]
    expected = {1: {"cosine"}, 4: {"siglip", "superclass", "video_siglip"}}.get(number, {"siglip", "superclass"})
    assert expected <= {name for logs in reports[0] for name in logs}
    names = {"loss", "cosine", "siglip", "superclass", "video_siglip", "grad_norm"}
    for one, two in zip(*reports, strict=True):
        logged = names & one.keys()
        assert {name: two[name] for name in logged} == pytest.approx({name: one[name] for name in logged}, rel=2e-5)
    assert len([logs for logs in reports[0] if "loss" in logs]) == 3
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("1", "2"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path, alone):
    run(tmp_path, num_ranks=2, max_steps=6)
    assert_same(run(tmp_path, resume=str(tmp_path / "checkpoint-4")), alone, first_step=5)


def test_two_ranks_in_bfloat16_with_activation_checkpointing(tmp_path, alone):
    config = {"version": 2, "activation_checkpointing": True}
    found = run(tmp_path, num_ranks=2, bf16=True, fsdp=True, fsdp_config=config)
    losses = [[entry["loss"] for entry in one["history"] if "loss" in entry] for one in (found, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert found["weights"].keys() == alone["weights"].keys()


def test_a_signal_to_one_rank_stops_all_at_the_same_step(tmp_path, monkeypatch):
    plain = FakeSteps.__next__

    def next_step(self):
        if self.step == 2 and rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self)

    monkeypatch.setattr(FakeSteps, "__next__", next_step)
    found = run(tmp_path, num_ranks=2, save_steps=100)
    assert found["stopped_by"] == "a signal to another rank"
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert not (tmp_path / ".checkpoint-partial").exists()


@pytest.mark.parametrize("kind", [{}, FSDP2], ids=["ddp", "fsdp2"])
def test_a_loss_that_is_not_finite_on_one_rank_is_skipped_on_all(tmp_path, monkeypatch, kind):
    plain = FakeSteps.__init__
    monkeypatch.setattr(FakeSteps, "__init__", lambda self: plain(self, spoil=(2,)))
    expected = run(tmp_path / "one")
    assert_same(run(tmp_path / "two", num_ranks=2, **kind), expected)
    assert [entry["skipped_steps"] for entry in expected["history"] if "skipped_steps" in entry] == [1, 1, 1, 1]


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "accelerate").glob("*.yaml")), ids=lambda path: path.name)
def test_launch_files_are_read_by_accelerate_and_hold_no_hyper_parameters(path):
    config = load_config_from_file(str(path))
    assert config.distributed_type.value == ("FSDP" if path.name == "fsdp2.yaml" else "MULTI_GPU")
    assert config.num_processes == 8 * config.num_machines
    words = ("mixed_precision", "gradient_accumulation_steps", "gradient_clipping", "dynamo_config", "learning_rate")
    assert not set(words) & set(yaml.safe_load(path.read_text()))
