# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A thin layer on Hugging Face Trainer: the loss is the sum of an objective's named losses, and each is logged."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from turingvit_hf.training.objectives import Objective


# Trainer's own rule spares biases and norms; these too are no matrices that decay would regularize
NO_DECAY = re.compile(r"(^|\.)(logit_scale|query|mask_token)$")


class TuringViTTrainer(Trainer):
    """Trainer for an objective; every argument but the first is Trainer's.

    Losses appear in the logs under their names, beside `loss`, which is their sum; in evaluation under `eval_<name>`,
    averaged over images. Columns of the dataset are left to the collator, whatever `remove_unused_columns` says.

    Args:
        objective: turns model and batch into named losses.
        **kwargs: for `transformers.Trainer`.

    Raises:
        ValueError: one process drives several GPUs, which would slice packed pixels in the wrong places.
    """

    # an objective's losses are means over one batch: Trainer divides by the number of accumulated batches
    loss_is_scaled_for_ga = False

    def __init__(self, *, objective: Objective, **kwargs: Any):
        super().__init__(**kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process would cut packed images apart; start one process a GPU with "
                "`torchrun` or `accelerate launch`"
            )
        self.args.remove_unused_columns = False
        self.loss_of = objective
        self._named_losses: dict[str, dict[str, Tensor]] = {"train": {}, "eval": {}}
        self._num_images: dict[str, int] = defaultdict(int)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The sum of the objective's losses, a scalar; with `return_outputs` also the losses by name."""
        losses = self.loss_of(model, inputs)
        self._remember("train" if model.training else "eval", losses, len(next(iter(inputs.values()))))
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        return (total, losses) if return_outputs else total

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:
        """The loss of an evaluation batch, always: Trainer's own drops it for batches without labels."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, _ = self.compute_loss(model, inputs, return_outputs=True)
        return loss.detach(), None, None

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay applies to: matrices, no norms, biases, scalars or lone tokens."""
        return [name for name in super().get_decay_parameter_names(model) if not NO_DECAY.search(name)]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs as Trainer does, with the mean of each named loss since the last log."""
        for mode, key, prefix in (("train", "loss", ""), ("eval", "eval_loss", "eval_")):
            if key in logs and self._num_images[mode]:
                for name, total in self._named_losses[mode].items():
                    # ranks may have seen different numbers of images
                    share = torch.stack([total, torch.full_like(total, self._num_images[mode])])
                    summed = self.accelerator.gather(share[None]).sum(0)
                    logs[f"{prefix}{name}"] = float(summed[0] / summed[1])
                self._named_losses[mode] = {}
                self._num_images[mode] = 0
        super().log(logs, start_time)

    def _remember(self, mode: str, losses: dict[str, Tensor], num_images: int) -> None:
        """Adds to sums that stay on the device: reading them at every step would wait for it."""
        kept = self._named_losses[mode]
        for name, loss in losses.items():
            kept[name] = kept.get(name, 0.0) + loss.detach().float() * num_images
        self._num_images[mode] += num_images
