# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Steps that would spoil the weights are left out, on all ranks together; too many in a row end the run."""

import torch
from torch import Tensor

from turingvit_hf.errors import DivergedError
from turingvit_hf.training.distributed import sum_over_ranks


class StepGuard:
    """Decides with all ranks whether a step is taken, and whether it is the last one.

    Args:
        max_skipped: so many skipped steps in a row are an error.
        device: where ranks exchange their votes.
    """

    def __init__(self, max_skipped: int, device: torch.device):
        self.max_skipped = max_skipped
        self.device = device
        self.num_skipped = 0
        self.num_in_a_row = 0
        self._loss_is_bad: Tensor | bool = False

    def see_loss(self, loss: Tensor) -> Tensor:
        """The loss of a batch, 0 in place of a value that is not finite, so that it does not spoil sums."""
        is_finite = torch.isfinite(loss)
        self._loss_is_bad = ~is_finite | self._loss_is_bad
        return torch.where(is_finite, loss, 0.0)

    def agree(self, gradient_norm: float | Tensor | None, *, wants_stop: bool) -> tuple[bool, bool]:
        """Whether any rank saw a loss or gradient that is not finite, and whether any rank wants to stop; collective.

        Args:
            gradient_norm: of the whole gradient; None where it is not known.
            wants_stop: this rank's wish.
        """
        norm = torch.as_tensor(0.0 if gradient_norm is None else gradient_norm, device=self.device)
        is_bad = ~torch.isfinite(norm) | torch.as_tensor(self._loss_is_bad, device=self.device)
        wishes = torch.tensor(float(wants_stop), device=self.device)
        self._loss_is_bad = False
        bad, stop = sum_over_ranks(torch.stack([is_bad.float().reshape(()), wishes])).tolist()
        return bad > 0, stop > 0

    def count(self, was_skipped: bool, step: int) -> None:
        """Counts a step.

        Args:
            was_skipped: whether the optimizer left it out.
            step: its number, for the message.

        Raises:
            DivergedError: it is one skipped step too many.
        """
        self.num_skipped += was_skipped
        self.num_in_a_row = self.num_in_a_row + 1 if was_skipped else 0
        if self.num_in_a_row >= self.max_skipped:
            raise DivergedError(
                f"{self.num_in_a_row} steps in a row, up to step {step}, had a loss or a gradient that is not finite "
                "and were skipped; resume from the last checkpoint with a lower learning rate or stronger clipping "
                "(max_grad_norm), or look at the data of these steps"
            )

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {"num_skipped": self.num_skipped, "num_in_a_row": self.num_in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Takes the counts of a checkpoint."""
        self.num_skipped, self.num_in_a_row = state["num_skipped"], state["num_in_a_row"]
