# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What TensorBoard and Trackio get from a stage, read with their own readers; nothing is served or sent anywhere.

As a program, `python -m tests.training.test_trackers FOLDER TRACKER`, it is the stage that is tracked.
"""

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.processes import run_command
from turingvit_hf.errors import InputError
from turingvit_hf.training.loop import trackers
from turingvit_hf.training.loop.trackers import tracker_faults
from turingvit_hf.training.pretraining import run_pretraining
from turingvit_hf.training.recipes import load_recipe


ROOT = Path(__file__).parents[2]
CHANGES = [
    "model={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 6, num_attention_heads: 2, patch_size: 16}",
    "text={encoder: small, projection_dim: 16}",
    "evaluation={retrieval: {path: 'shapes:test'}, num_samples: 12}",
    "data.sources=[{path: shapes}]",
    "data.tokens_per_pack=128",
    "data.resolution={mode: native, max_patches: 16}",
    "training.max_steps=2",
    "training.warmup_steps=1",
    "training.logging_steps=1",
    "training.save_strategy=no",
    "training.eval_steps=2",
    "training.use_cpu=true",
    "training.project=towers",
    "training.run_name=tiny",
]
# of both: what every step has, and what an evaluation has
STEP = (
    *("loss", "siglip", "superclass", "grad_norm", "learning_rate", "images_per_second", "tokens_per_second"),
    *("padding_share", "data_wait_share", "tflops", "images_seen", "tokens_seen"),
)
EVALUATION = ("retrieval_image_to_text_R@1", "retrieval_text_to_image_chance@1")


def recipe_with(tracker: str):
    return load_recipe("tiny/stage2", [*CHANGES, f"training.report_to={tracker}"])


def main(folder: Path, tracker: str) -> None:
    """Runs the stage in a process that can neither listen nor connect."""

    def refuse(*args):
        raise AssertionError(f"a tracker uses the network: {args}")

    for name in ("bind", "listen", "connect", "connect_ex"):
        setattr(socket.socket, name, refuse)
    run_pretraining(recipe_with(tracker), out=folder)


def run(tmp_path, tracker, **environment) -> list[dict]:
    """The logs of the stage, which ran in a process of its own: trackers read the environment when imported."""
    result = run_command(
        [sys.executable, "-m", "tests.training.test_trackers", str(tmp_path / "stage"), tracker],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads((tmp_path / "stage" / "report.json").read_text())["history"]


def assert_same(found: dict[str, list[tuple[int, float]]], history: list[dict]) -> None:
    """What a tracker has, (step, value) by name, is what the stage has logged."""
    for prefix, of_logs, names in (("train", "", STEP), ("eval", "eval_", EVALUATION)):
        for name in names:
            logged = [(entry["step"], entry[of_logs + name]) for entry in history if of_logs + name in entry]
            assert logged
            assert [step for step, _ in found[f"{prefix}/{name}"]] == [step for step, _ in logged], name
            values = [value for _, value in found[f"{prefix}/{name}"]]
            assert values == pytest.approx([value for _, value in logged], rel=1e-6), name


def test_tensorboard_gets_every_measurement(tmp_path):
    history = run(tmp_path, "tensorboard", TENSORBOARD_LOGGING_DIR=str(tmp_path / "events"))
    (events,) = (tmp_path / "events").rglob("events.out.tfevents.*")
    board = EventAccumulator(str(events.parent)).Reload()
    tags = board.Tags()["scalars"]
    assert_same({tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in tags}, history)
    assert "args/text_summary" in board.Tags()["tensors"]


def test_trackio_gets_every_measurement_into_its_local_database(tmp_path):
    pytest.importorskip("trackio", reason="trackio is not installed: pip install 'turingvit_hf[tracking]'")
    history = run(tmp_path, "trackio", TRACKIO_DIR=str(tmp_path / "trackio"))
    (database,) = (tmp_path / "trackio").glob("*.db")
    assert database.name == "towers.db"
    code = (
        "import json, sys; from trackio.sqlite_storage import SQLiteStorage as S; r = S.get_runs('towers'); "
        "json.dump({'runs': r, 'logs': S.get_logs('towers', 'tiny'), 'config': S.get_run_config('towers', 'tiny')}, "
        "sys.stdout)"
    )
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    read = run_command([sys.executable, "-c", code], env=environment)
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout)
    assert found["runs"] == ["tiny"]
    assert found["config"]["max_steps"] == 2
    by_name: dict[str, list[tuple[int, float]]] = {}
    for entry in found["logs"]:
        for name, value in entry.items():
            # "step" counts what was logged, which an evaluation is as well
            by_name.setdefault(name, []).append((entry["train/global_step"], value))
    assert_same(by_name, history)


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio", "wandb"])
def test_a_missing_package_is_told_before_anything_is_loaded(tmp_path, monkeypatch, tracker):
    monkeypatch.setattr(trackers, "get_available_reporting_integrations", list)
    told = rf"training\.report_to={tracker}: its package is not installed"
    if tracker != "wandb":
        told += r": pip install 'turingvit_hf\[tracking\]'"
    with pytest.raises(InputError, match=told):
        run_pretraining(recipe_with(tracker), out=tmp_path / "stage")
    assert not (tmp_path / "stage").exists()


def test_names_are_those_of_transformers():
    assert tracker_faults(None) == tracker_faults("none") == tracker_faults("all") == tracker_faults([]) == []
    assert tracker_faults(["tensorboard"]) == []
    assert tracker_faults(["tensorbord"]) == [
        "training.report_to=tensorbord: transformers knows no such tracker; did you mean tensorboard?"
    ]
    assert "there are azure_ml, comet_ml" in tracker_faults("X")[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
