# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Objectives: from a model and a batch to the named losses that the trainer adds up."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from turingvit_hf.training.losses import siglip_loss


class Objective(Protocol):
    """What turns a model and a batch into named scalars: their sum is minimized, each is logged by its name."""

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses of one batch by name."""


class ContrastiveObjective:
    """The image-text objective: the SigLIP loss of a dual encoder."""

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of one batch, `{"siglip": scalar}`."""
        outputs = model(**batch)
        loss = siglip_loss(outputs.image_embeds, outputs.text_embeds, outputs.logit_scale, outputs.logit_bias)
        return {"siglip": loss}
