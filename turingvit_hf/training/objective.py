# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The base class of objectives, and what they share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from turingvit_hf.training.pack_seeds import seeded
from turingvit_hf.training.packs import Pack, arrived, model_inputs


Losses = dict[str, Tensor]


class Objective(ABC):
    """What turns a model and packs into named losses; `total` of them is minimized, each is logged by its name.

    Attributes:
        weights: what each loss is multiplied with in the total; 1 for names that are not there.
    """

    weights: Mapping[str, float] = {}

    @abstractmethod
    def __call__(self, model: nn.Module, pack: Pack) -> Losses:
        """The losses of one pack by itself, scalars without weights; for evaluation, talks to no other rank."""

    def total(self, losses: Losses) -> Tensor:
        """The sum of the losses times their weights, a scalar."""
        return torch.stack([self.weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()

    def step(
        self,
        model: nn.Module,
        packs: Sequence[Pack],
        *,
        backward: Callable[[Tensor], None],
        no_sync: Callable[[], AbstractContextManager],
    ) -> Losses:
        """Forward and backward over this rank's packs of one optimizer step.

        Gradients are left in the parameters; averaged over ranks, as DDP and FSDP do it, they are those of the total
        of the losses. Every rank has the same number of packs. This default takes the mean of packs; objectives whose
        packs weigh differently or depend on each other have their own.

        Args:
            model: as it was prepared for training, wrapped or not.
            packs: at least one, of one kind, on the model's device but for their pixels, which are brought there for
                their pack's turn.
            backward: `accelerator.backward` or the like.
            no_sync: makes a context in which gradients are not averaged over ranks; used for all packs but the last.

        Returns:
            detached scalars by name whose mean over ranks is the loss of the step.

        Raises:
            ValueError: there is no pack.
        """
        sums: Losses = {}
        for pack, context in with_contexts(packs, no_sync):
            with context:
                losses = self(model, pack)
                backward(self.total(losses) / len(packs))
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach() / len(packs)
        return sums

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the model; nothing here."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a `state_dict`.

        Raises:
            ValueError: it has entries that this objective does not know.
        """
        if state:
            raise ValueError(f"{type(self).__name__} has no state, got one with {sorted(state)}")


def outputs_of(model: nn.Module, pack: Pack, **options: Any) -> Any:
    """What a model makes of a pack, with the random numbers of the pack's seed where it has one."""
    with seeded(pack):
        return model(**model_inputs(pack), **options)


def check_any(packs: Sequence[Pack]) -> None:
    """Raises ValueError if there is no pack."""
    if not packs:
        raise ValueError("a step needs at least one pack")


def with_contexts(
    packs: Sequence[Pack], no_sync: Callable[[], AbstractContextManager]
) -> Iterator[tuple[Pack, AbstractContextManager]]:
    """Each pack, its pixels on the model's device, with the context for its forward and backward.

    Raises:
        ValueError: there is no pack.
    """
    check_any(packs)
    for number, pack in enumerate(packs):
        yield arrived(pack), nullcontext() if number == len(packs) - 1 else no_sync()
