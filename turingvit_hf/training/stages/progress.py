# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a person sees while a stage trains: a bar on a terminal, and a plain line for each log."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


# what a line shows after the losses, with how it is written
RATES = {
    "learning_rate": "rate {:.2e}",
    "images_per_second": "{:.1f} images/s",
    "tokens_per_second": "{:,.0f} tokens/s",
}

logger = logging.getLogger(__name__)


class StepProgress(TrainerCallback):
    """Shows steps, losses and speed, on the first rank only.

    Args:
        losses: names of the losses to show, in order; those that a log lacks are left out.
    """

    def __init__(self, losses: tuple[str, ...]):
        self.losses = ("loss", *losses)
        self._bar: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Opens the bar if there is a terminal to draw it on."""
        if state.is_world_process_zero and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.add_task("training", total=state.max_steps, completed=state.global_step)
            self._bar.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes a line with the losses, or with what was measured."""
        logs = logs or {}
        parts = [f"{name} {logs[name]:.4f}" for name in self.losses if name in logs]
        parts += [form.format(logs[key]) for key, form in RATES.items() if key in logs]
        parts += describe_measurements(logs)
        if parts and state.is_world_process_zero:
            logger.info("step %d of %d: %s", state.global_step, state.max_steps, ", ".join(parts))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=state.global_step)

    def close(self) -> None:
        """Closes the bar, whether training ended or failed."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def describe_measurements(logs: Mapping[str, float]) -> list[str]:
    """What an evaluation found, a phrase for each recall at 1, accuracy and held-out loss; recalls beside chance."""
    phrases = []
    for key, value in logs.items():
        name = key.removeprefix("eval_").replace("_", " ")
        chance = logs.get(key.replace("_R@1", "_chance@1").replace("_top1", "_chance1"))
        if key.startswith("eval_") and key.endswith(("_R@1", "_top1")) and chance:
            phrases.append(f"{name} {value:.1%} ({value / chance:.0f} times chance)")
        elif key.startswith("eval_held_out_"):
            phrases.append(f"{name} {value:.4f}")
    return phrases
