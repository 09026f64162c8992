# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What is added to Trainer's logs: named losses, throughput, and what was skipped."""

from collections.abc import Mapping

from torch import Tensor

from turingvit_hf.training.loop.guard import StepGuard
from turingvit_hf.training.loop.meter import TOTAL, NamedLosses, Throughput
from turingvit_hf.training.loop.step_source import StepSource, padding_share, skipped_rows


class StepLogs:
    """Collects what the logs say of the steps since the last log.

    Args:
        step_loader: asked for what it left out and how full its packs are; None leaves these out.
        guard: counts skipped steps.
        throughput: measures rates.
    """

    def __init__(self, *, step_loader: StepSource | None, guard: StepGuard, throughput: Throughput):
        self._step_loader = step_loader
        self._guard = guard
        self._throughput = throughput
        self._training, self._evaluation = NamedLosses(), NamedLosses()
        self._of_step: dict[str, Tensor] = {}
        self._logged_skips: dict[str, int] = {}

    def add(self, losses: Mapping[str, Tensor], total: Tensor, *, share: int) -> None:
        """Takes the losses of a step, or of one of `share` batches that a step accumulates."""
        for name, loss in {**losses, TOTAL: total}.items():
            self._of_step[name] = self._of_step.get(name, 0.0) + loss.detach().float() / share

    def end_step(self, *, was_skipped: bool) -> None:
        """Takes the step's losses into the means that are logged, unless it was skipped."""
        if not was_skipped:
            self._training.add(self._of_step)
        self._of_step = {}

    def add_evaluation(self, losses: Mapping[str, Tensor], *, weight: float) -> None:
        """Takes the losses of a batch of an evaluation with its number of images as weight."""
        self._evaluation.add(losses, weight=weight)

    def complete(self, logs: dict[str, float]) -> None:
        """Adds what is known to the logs of training or of an evaluation. Collective."""
        if "learning_rate" in logs:
            self._add_training(logs)
        if "eval_loss" in logs:
            logs |= {f"eval_{name}": mean for name, mean in self._evaluation.read().items()}
        if self._step_loader is not None:
            # Trainer multiplies batch size and steps, and a step loader has no batch size
            logs.pop("train_samples_per_second", None)

    def _add_training(self, logs: dict[str, float]) -> None:
        means = self._training.read()
        # Trainer's own mean counts skipped steps as 0; where all were skipped there is none
        del logs[TOTAL]
        logs |= means | self._throughput.read()
        if self._guard.num_skipped:
            logs["skipped_steps"] = self._guard.num_skipped
        if self._step_loader is not None:
            logs["padding_share"] = padding_share(self._step_loader)
            skipped = skipped_rows(self._step_loader)
            if skipped != self._logged_skips:
                self._logged_skips = skipped
                logs |= {f"data_skipped/{reason}": number for reason, number in skipped.items()}
