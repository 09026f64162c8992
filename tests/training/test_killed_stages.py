# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Every stage, killed at random moments and resumed, ends as if it had run through: streams, two loader workers."""

import io
import json
import os
import random
import signal
import time
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file

from turingvit_hf.data.shapes import generate_shapes
from turingvit_hf.training.loop.checkpoints import find_last_checkpoint
from turingvit_hf.training.pretraining import run_pretraining
from turingvit_hf.training.recipes import load_recipe


CHANGES = [
    "model={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 6, num_attention_heads: 2, patch_size: 16}",
    "data.tokens_per_pack=128",
    "data.packs_per_step=2",
    "data.num_readers=2",
    "data.num_workers=2",
    "data.shuffle_window=8",
    "data.max_bad_share=0.5",
    "data.resolution={mode: bounded, min_side: 32, max_side: 64, crop_scale: [0.5, 1.0], flip: 0.5}",
    "evaluation={}",
    "optimizer={ema_decay: 0.9, layer_decay: 0.8}",
    "training.eval_strategy=no",
    "training.eval_on_start=false",
    "training.max_steps=8",
    "training.warmup_steps=1",
    "training.logging_steps=1",
    "training.save_steps=2",
    "training.use_cpu=true",
]
NUM_KILLS = 2


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """Two parquet files of rendered pictures, of which one cannot be read."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for image, caption in generate_shapes(40, seed=3):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "caption": caption})
    rows[5]["image"]["bytes"] = rows[5]["image"]["bytes"][:60]
    for number in range(2):
        part = datasets.Dataset.from_list(rows[number::2]).cast_column("image", datasets.Image(decode=False))
        part.to_parquet(str(folder / f"{number}.parquet"))
    return folder


def recipe_of(number, parquet, clips):
    sources = [f"{{path: '{parquet}/*.parquet', streaming: true}}"]
    changes = list(CHANGES)
    if number > 1:
        changes.append("text={encoder: small, projection_dim: 16}")
    if number == 4:
        sources.append(f"{{path: {clips}, kind: video}}")
        changes += ["data.num_frames=2", "data.video_share=0.5"]
    return load_recipe(f"tiny/stage{number}", [*changes, f"data.sources=[{', '.join(sources)}]"])


def start(recipe, folder):
    """The number of a process that runs a stage in a folder, from where it is."""
    child = os.fork()
    if child:
        return child
    try:
        run_pretraining(recipe, out=folder, resume=folder.exists())
        os._exit(0)
    finally:
        os._exit(1)


def run_to_the_end(recipe, folder):
    """Seconds that a stage takes in a process of its own."""
    began = time.monotonic()
    _, status = os.waitpid(start(recipe, folder), 0)
    assert status == 0, f"the stage failed with status {status}"
    return time.monotonic() - began


def run_and_kill(recipe, folder, seconds):
    """Whether a stage was still running when it was killed after so many seconds."""
    child = start(recipe, folder)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def losses_of(folder: Path):
    names = ("step", "loss", "cosine", "siglip", "superclass", "video_siglip", "grad_norm", "learning_rate")
    history = json.loads((folder / "report.json").read_text())["history"]
    return [{name: logs[name] for name in names if name in logs} for logs in history]


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_stage_that_is_killed_at_random_ends_as_if_it_had_run_through(number, parquet, clips, tmp_path):
    recipe = recipe_of(number, parquet, clips)
    seconds = run_to_the_end(recipe, tmp_path / "through")
    folder = tmp_path / "killed"
    moments = random.Random(time.time_ns())
    survived = []
    for _ in range(NUM_KILLS):
        # past the start, where there is nothing to lose; a run that ends earlier is not a failure
        if not run_and_kill(recipe, folder, moments.uniform(0.3, 0.95) * seconds):
            break
        checkpoint = find_last_checkpoint(folder)
        survived.append(None if checkpoint is None else checkpoint.name)
    run_to_the_end(recipe, folder)
    note = f"killed with these checkpoints: {survived}"
    assert losses_of(folder) == losses_of(tmp_path / "through"), note
    expected, found = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("through", "killed"))
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), f"{name}; {note}"
