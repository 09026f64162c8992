# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs that are killed or stopped, and go on as if nothing had happened."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.training.tiny_run import FakeSteps, history, make_model, make_trainer, retrieval
from turingvit_hf.errors import InputError
from turingvit_hf.training.arguments import DataRecipe, OptimizerRecipe, StageRecipe, TextRecipe
from turingvit_hf.training.loop import ema
from turingvit_hf.training.loop.checkpoints import PARTIAL, find_last_checkpoint, recipe_fingerprint


KILLED_AT = {
    "step": (FakeSteps, "__next__"),
    "save": (torch, "save"),
    "averages": (ema, "save_file"),
    "fsync": (os, "fsync"),
    "rename": (Path, "rename"),
    "delete": (os, "rmdir"),
}
RECIPE = OptimizerRecipe(ema_decay=0.9, layer_decay=0.8, text=0.5)
SAVING = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}


def make(folder, **options):
    """A run whose positions are scaled at random in each forward, so that random numbers matter."""
    return make_trainer(folder, model=make_model(rescale=2.0), recipe=RECIPE, **SAVING | options)


def run(folder, resume=None, **options):
    """A trainer after its training."""
    trainer = make(folder, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run(tmp_path_factory.mktemp("uninterrupted"))


def assert_same_end(trainer, other):
    for ours, theirs in ((trainer.model.state_dict(), other.model.state_dict()), (averages(trainer), averages(other))):
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), name
    assert trainer.state.global_step == other.state.global_step
    assert trainer.state.epoch == other.state.epoch
    for key in ("loss", "siglip", "grad_norm", "learning_rate", "epoch", "images_seen", "tokens_seen"):
        assert history(trainer, key) == history(other, key), key


def averages(trainer):
    return trainer.average.complete()


def run_and_die(folder: Path, at: int, what: str) -> None:
    """Trains in a process that is killed the `at`-th time that it is about to do something."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"the run ended by itself: {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        return
    try:
        left = [at]
        owner, name = KILLED_AT[what]
        original = getattr(owner, name)

        def count(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, count)
        run(folder)
    finally:
        os._exit(3)


@pytest.mark.parametrize(
    ("what", "at", "survives"),
    [
        ("step", 2, None),  # before there is any checkpoint
        ("step", 4, 2),
        ("save", 2, None),  # in the middle of the first checkpoint
        ("save", 7, 2),  # in the middle of the second one
        ("averages", 2, 2),
        ("fsync", 20, 2),  # all written, not yet renamed
        ("rename", 2, 2),
        ("delete", 1, 2),  # renamed, and the folder around it not yet gone
        ("delete", 3, 4),  # while the older one is removed
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, uninterrupted, what, at, survives):
    run_and_die(tmp_path, at, what)
    last = find_last_checkpoint(tmp_path)
    assert last == (None if survives is None else tmp_path / f"checkpoint-{survives}")
    resumed = run(tmp_path, resume=None if last is None else True)
    assert_same_end(resumed, uninterrupted)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-6"}


def test_a_finished_run_has_nothing_left_to_do(tmp_path, uninterrupted):
    folder = uninterrupted.args.output_dir
    steps = FakeSteps()
    trainer = make(folder, steps=steps)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 6
    assert steps.step == 6
    assert_same_end(trainer, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_ends_the_run(tmp_path, uninterrupted, number):
    before = signal.getsignal(number)

    class Interrupted(FakeSteps):
        def __next__(self):
            if self.step == 2:
                os.kill(os.getpid(), number)
            return super().__next__()

    trainer = run(tmp_path, steps=Interrupted(), save_steps=100)
    assert trainer.stopped_by == number.name
    assert signal.getsignal(number) == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    resumed = run(tmp_path, resume=True)
    assert resumed.stopped_by is None
    assert_same_end(resumed, uninterrupted)


def test_the_second_signal_acts_as_always(tmp_path):
    # what Python has by itself; a shell lets what it runs in the background ignore the signal
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Impatient(FakeSteps):
        def __next__(self):
            os.kill(os.getpid(), signal.SIGINT)
            # another thread may take a signal, and two that wait at the same time are one
            while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
            return super().__next__()

    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, steps=Impatient(), save_steps=100)
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_what_a_checkpoint_holds(uninterrupted):
    folder = find_last_checkpoint(uninterrupted.args.output_dir)
    assert json.loads((folder / "data_state.json").read_text()) == {"step": 6, "readers": {"0": 6}}
    counts = json.loads((folder / "counts.json").read_text())
    assert counts["guard"]["num_skipped"] == 0
    assert counts["throughput"]["num_images"] == sum(3 + number % 3 for number in range(12))
    assert set(safetensors.torch.load_file(folder / "ema.safetensors")) == set(averages(uninterrupted))


def stage_recipe(**changes) -> StageRecipe:
    values = {"stage": "image_text", "data": DataRecipe(), "text": TextRecipe(), "training": {"learning_rate": 1e-3}}
    return StageRecipe(**values | changes)


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"stage": "image_video", "data": DataRecipe(video_share=0.5)}, ["stage was 'image_text', is 'image_video'"]),
        ({"data": DataRecipe(tokens_per_pack=8)}, ["data.tokens_per_pack was 16384, is 8"]),
        ({"model": {"hidden_size": 64}}, ["model.hidden_size was 'nothing', is 64"]),
        ({"training": {"learning_rate": 2e-3}}, ["training.learning_rate was 0.001, is 0.002"]),
        ({"optimizer": OptimizerRecipe(ema_decay=0.9)}, ["optimizer.ema_decay was None, is 0.9"]),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused(tmp_path, changes, keys):
    run(tmp_path, fingerprint=recipe_fingerprint(stage_recipe()), max_steps=2)
    other = make(tmp_path, fingerprint=recipe_fingerprint(stage_recipe(**changes)))
    with pytest.raises(InputError, match="was made by another recipe") as error:
        other.train(resume_from_checkpoint=True)
    assert all(key in str(error.value) for key in keys)


def test_what_changes_no_result_may_change():
    other = stage_recipe(
        data=DataRecipe(num_workers=4, max_bad_share=0.5), training={"learning_rate": 1e-3, "max_steps": 7}
    )
    assert recipe_fingerprint(other) == recipe_fingerprint(stage_recipe())


def test_folders_without_a_complete_checkpoint_are_refused(tmp_path):
    assert find_last_checkpoint(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / PARTIAL / "checkpoint-9").mkdir(parents=True)
    assert find_last_checkpoint(tmp_path) is None
    trainer = make(tmp_path)
    with pytest.raises(InputError, match="has no complete checkpoint to resume from"):
        trainer.train(resume_from_checkpoint=True)
    with pytest.raises(InputError, match="checkpoint-7 is no complete checkpoint"):
        trainer.train(resume_from_checkpoint=tmp_path / "checkpoint-7")


def test_averages_need_a_checkpoint_that_has_them(tmp_path):
    make_trainer(tmp_path, max_steps=2, **SAVING).train()
    trainer = make_trainer(tmp_path, recipe=OptimizerRecipe(ema_decay=0.9))
    with pytest.raises(InputError, match="was made without"):
        trainer.train(resume_from_checkpoint=True)


def test_the_best_checkpoint_is_named_where_it_is(tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "retrieval_text_to_image_R@5"}
    trainer = make(tmp_path, evaluations=[retrieval()], load_best_model_at_end=True, **options)
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.parent == tmp_path
    assert best.is_dir()
    last = find_last_checkpoint(tmp_path)
    assert json.loads((last / "trainer_state.json").read_text())["best_model_checkpoint"] == str(best)
