# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Training for a given time instead of a given number of steps, on a machine whose speed is not known."""

import math
import time
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TimeBudget:
    """A stretch of wall-clock time that begins when it is made.

    Args:
        seconds: its length, more than 0.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the budget began."""
        return time.monotonic() - self._start

    def left(self) -> float:
        """Seconds until it is used up, at least 0."""
        return max(0.0, self.seconds - self.elapsed())

    def fraction(self) -> float:
        """The share that is used up, in [0, 1]."""
        return min(1.0, self.elapsed() / self.seconds)


class TimeBudgetCallback(TrainerCallback):
    """Ends training at the first step that finishes after the budget is used up, but not before two steps are done."""

    def __init__(self, budget: TimeBudget):
        self.budget = budget

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Asks for a last log and the end where time is up."""
        if self.budget.fraction() >= 1 and state.global_step >= 2:
            control.should_log = True
            control.should_training_stop = True


def time_based_schedule(optimizer: Optimizer, budget: TimeBudget, *, warmup: float = 0.08) -> LambdaLR:
    """A learning-rate schedule over elapsed time: linear warm-up, then a cosine to 0 at the end of the budget.

    It fits whatever number of steps the machine manages, so two runs are alike in shape but not step by step.

    Args:
        optimizer: its learning rates are the peaks.
        budget: the time that training has.
        warmup: share of the budget until the peak.
    """

    def factor(_: int) -> float:
        progress = budget.fraction()
        return min(1.0, (progress + 0.01) / warmup) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
