# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Trainer whose checkpoints are complete or not there: written elsewhere, then renamed; see `checkpoints.py`."""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from turingvit_hf.training.loop.checkpoints import written_when_complete


class WholeCheckpointsTrainer(Trainer):
    """Trainer, but a checkpoint appears when all of it is on the disk, and only then older ones are removed."""

    # where a checkpoint is being written, while it is
    _staging: str | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return self._staging or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(super()._get_output_dir(trial))
        target = folder / f"checkpoint-{self.state.global_step}"
        with written_when_complete(target, is_writer=self.args.should_save) as partial:
            self._staging = str(partial.parent)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            self._name_best_checkpoint(folder, partial, target)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(target))
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            rotate_checkpoints(str(folder), self.args.save_total_limit, best, use_mtime=True)

    def _name_best_checkpoint(self, folder: Path, partial: Path, target: Path) -> None:
        """Writes the state again where Trainer would note as the best checkpoint one in the folder that vanishes."""
        if not self.state.best_global_step:
            return
        best = folder / f"checkpoint-{self.state.best_global_step}"
        if best == target or best.exists():
            self.state.best_model_checkpoint = str(best)
        if self.args.should_save:
            self.state.save_to_json(str(partial / TRAINER_STATE_NAME))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._staging is None:  # not before it is complete
            super()._push_from_checkpoint(checkpoint_folder)
