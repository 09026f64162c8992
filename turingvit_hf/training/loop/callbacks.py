# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the trainer does around each optimizer step, in Trainer's own hooks."""

import logging
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from turingvit_hf.training.loop.optimizer import clamp_logit_scale


if TYPE_CHECKING:
    from turingvit_hf.training.trainer import TuringViTTrainer

logger = logging.getLogger(__name__)


class StepCallback(TrainerCallback):
    """Skips steps that are not finite, keeps the scale in bounds, averages weights, and ends training when asked to.

    A skipped step leaves weights, optimizer state and averages as they are. It counts as a step: the learning rate
    goes on, so that a run has the same length and schedule whatever it skips. With a gradient scaler (fp16) the scaler
    decides, and then the learning rate waits, as Trainer has it.

    Args:
        trainer: whose steps they are.
    """

    def __init__(self, trainer: "TuringViTTrainer"):
        self.trainer = trainer
        self._is_bad = False
        self._stops = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begins to average the weights, now that they are where they are trained, and to measure time."""
        self.trainer.start_average()
        self.trainer.throughput.restart()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Decides with all ranks; without gradients an optimizer changes nothing."""
        trainer = self.trainer
        self._is_bad, self._stops = trainer.guard.agree(
            trainer.gradient_norm, wants_stop=trainer.signals.received is not None
        )
        if self._is_bad and trainer.accelerator.scaler is None:
            trainer.model_wrapped.zero_grad(set_to_none=True)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Does what follows a step that was taken, and counts one that was not.

        Raises:
            DivergedError: too many in a row were not.
        """
        trainer = self.trainer
        was_skipped = self._is_bad
        if trainer.accelerator.scaler is not None:
            was_skipped = trainer.accelerator.optimizer_step_was_skipped
        trainer.step_logs.end_step(was_skipped=was_skipped)
        trainer.guard.count(was_skipped, state.global_step + 1)
        if was_skipped:
            return
        clamp_logit_scale(trainer.model, trainer.optimizer_recipe.max_logit_scale)
        if trainer.average is not None:
            trainer.average.update()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Says how far the run is, and ends it after this step if any rank was asked to."""
        if self.trainer.step_loader is not None:
            # Trainer counts from 0 again after a resume where the data has no length
            state.epoch = state.global_step / state.max_steps
        if self._stops:
            self.trainer.stopped_by = self.trainer.signals.received or "a signal to another rank"
            control.should_log = control.should_save = control.should_training_stop = True
