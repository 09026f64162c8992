# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What is shown of a stage: a line for each log, a bar on a terminal, and nothing from other ranks."""

import io
import logging
import sys

import pytest
from transformers import TrainerControl, TrainerState

from turingvit_hf.training.stages.progress import StepProgress, describe_measurements


@pytest.fixture
def state():
    """Step 3 of 10 on the first rank."""
    return TrainerState(global_step=3, max_steps=10, is_world_process_zero=True)


def test_a_log_becomes_a_line(state, caplog):
    progress = StepProgress(("siglip", "cosine"))
    with caplog.at_level(logging.INFO, "turingvit_hf"):
        logs = {"loss": 1.5, "siglip": 1.25, "learning_rate": 1e-4, "images_per_second": 12.34, "grad_norm": 2.0}
        progress.on_log(None, state, TrainerControl(), logs=logs)
        progress.on_log(None, state, TrainerControl(), logs={"train_runtime": 3.0})
        state.is_world_process_zero = False
        progress.on_log(None, state, TrainerControl(), logs=logs)
    assert caplog.messages == ["step 3 of 10: loss 1.5000, siglip 1.2500, rate 1.00e-04, 12.3 images/s"]


def test_measurements_stand_beside_chance():
    logs = {
        "eval_retrieval_image_to_text_R@1": 0.25,
        "eval_retrieval_image_to_text_chance@1": 0.01,
        "eval_retrieval_image_to_text_R@5": 0.5,
        "eval_classification_top1": 0.5,
        "eval_classification_chance1": 0.1,
        "eval_held_out_cosine": 0.125,
        "eval_loss": 0.125,
        "loss": 3.0,
    }
    assert describe_measurements(logs) == [
        "retrieval image to text R@1 25.0% (25 times chance)",
        "classification top1 50.0% (5 times chance)",
        "held out cosine 0.1250",
    ]


def test_a_terminal_gets_a_bar(state, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = StepProgress(())
    progress.on_train_begin(None, state, TrainerControl())
    progress.on_step_end(None, state, TrainerControl())
    progress.close()
    progress.close()
    assert "3/10" in terminal.getvalue()
