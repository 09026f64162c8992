# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a person sees while a time-boxed training runs: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from turingvit_hf.training.demo.timebox import TimeBudget


SECONDS_BETWEEN_LINES = 15.0

logger = logging.getLogger(__name__)


class TimeBudgetProgress(TrainerCallback):
    """Shows the step, the loss and the time left of a budget.

    Args:
        budget: the time that training has.
    """

    def __init__(self, budget: TimeBudget):
        self.budget = budget
        self._loss = float("nan")
        self._next_line = 0.0
        self._bar: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Opens the bar if there is a terminal to draw it on."""
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.add_task("training", total=self.budget.seconds)
            self._bar.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remembers the last loss."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Moves the bar, or writes a line if the last one is long enough ago."""
        text = f"step {state.global_step}, loss {self._loss:.3f}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.budget.elapsed(), description=text)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            logger.info("  %s, %.0f s left", text, self.budget.left())

    def close(self) -> None:
        """Closes the bar, whether training ended or failed."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
