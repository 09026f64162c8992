# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Targets of SuperClass (arXiv 2411.03313): an image's classes are its caption's subwords, weighted by online IDF.

A target is kept as what is not zero of it: the class ids of an image and their weights, never (N, C).
"""

from typing import Any

import torch
from torch import Tensor


IGNORED = -100


def unique_classes(class_ids: Tensor) -> Tensor:
    """The ids of each row with every repetition replaced by -100, sorted: a class is there or not.

    Args:
        class_ids: (N, L) int64 ids of classes, of the caption's subwords without special tokens; -100 is padding.
    """
    ids_NL = class_ids.sort(dim=1).values
    repeated_NL = torch.zeros_like(ids_NL, dtype=torch.bool)
    repeated_NL[:, 1:] = ids_NL[:, 1:] == ids_NL[:, :-1]
    return ids_NL.masked_fill(repeated_NL, IGNORED)


def count_classes(class_ids: Tensor, num_classes: int) -> Tensor:
    """In how many images each class is: (num_classes,) float64.

    Args:
        class_ids: (N, L) int64, no repetition within a row, -100 where there is none.
        num_classes: C.

    Raises:
        ValueError: an id is not below `num_classes`, or is negative and not -100; looked at on the CPU only, where
            looking is free.
    """
    if class_ids.is_cpu:
        wrong = class_ids[(class_ids >= num_classes) | ((class_ids < 0) & (class_ids != IGNORED))]
        if len(wrong):
            raise ValueError(
                f"superclass_ids holds {wrong[0].item()}; there are {num_classes} classes, ids are 0 to "
                f"{num_classes - 1} and {IGNORED} for none"
            )
    flat = class_ids.flatten()
    counts_C = torch.zeros(num_classes, dtype=torch.float64, device=class_ids.device)
    return counts_C.index_add_(0, flat.clamp(min=0), (flat != IGNORED).double())


def num_labeled(class_ids: Tensor) -> Tensor:
    """How many rows of (N, L) have a class at all: a float64 scalar.

    An image without one has no target: it takes no part in the loss, in its mean, or in the frequencies.
    """
    return (class_ids != IGNORED).any(dim=1).sum().double()


class OnlineIDF:
    """How rare each class has been so far, in float64: w_c = ln((n + eps) / (f_c + eps)).

    Each step adds the share of its images that class c is in to f_c, and 1 to n; eps is 1 / (images of the step).
    Images are those of all ranks that have a class at all. A class in every image so far weighs nothing. Before the
    first step all classes weigh 1. Nothing here waits for the device.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int):
        self.frequency = torch.zeros(num_classes, dtype=torch.float64)
        self.num_updates = torch.zeros((), dtype=torch.float64)
        self.epsilon = torch.ones((), dtype=torch.float64)

    def update(self, counts: Tensor, num_images: Tensor) -> None:
        """Adds one step; a step without any image adds nothing.

        Args:
            counts: (C,) float64, how many images of the step, over all ranks, each class is in.
            num_images: float64 scalar, how many images of the step, over all ranks, have a class.

        Raises:
            ValueError: the number of classes is another one.
        """
        if counts.shape != self.frequency.shape:
            raise ValueError(f"counts of {len(counts)} classes for frequencies of {len(self.frequency)}")
        self._move_to(counts.device)
        some, divisor = num_images > 0, num_images.clamp(min=1)
        self.frequency = self.frequency + counts / divisor
        self.num_updates = self.num_updates + some.double()
        self.epsilon = torch.where(some, 1 / divisor, self.epsilon)

    def weights(self) -> Tensor:
        """The weight of each class, (C,) float64, not negative."""
        weights_C = torch.log((self.num_updates + self.epsilon) / (self.frequency + self.epsilon))
        return torch.where(self.num_updates > 0, weights_C, 1.0)

    def targets(self, class_ids: Tensor) -> Tensor:
        """What each class of each image weighs, (N, L) float64; a row sums to 1, or to 0 where nothing weighs.

        Args:
            class_ids: (N, L) int64, no repetition within a row, -100 where there is none.
        """
        self._move_to(class_ids.device)
        weights_NL = self.weights()[class_ids.clamp(min=0)].masked_fill(class_ids == IGNORED, 0.0)
        totals_N1 = weights_NL.sum(dim=1, keepdim=True)
        return torch.where(totals_N1 > 0, weights_NL / totals_N1, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Everything the weights depend on: `frequency` (C,) float64, and two numbers."""
        return {
            "frequency": self.frequency.cpu(),
            "num_updates": int(self.num_updates),
            "epsilon": float(self.epsilon),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a `state_dict`.

        Raises:
            ValueError: its number of classes is another one, or its frequencies are not float64.
        """
        frequency = state["frequency"]
        if frequency.shape != self.frequency.shape or frequency.dtype != torch.float64:
            raise ValueError(
                f"an IDF state of {tuple(frequency.shape)} {frequency.dtype} does not fit {len(self.frequency)} "
                "classes in float64"
            )
        self.frequency = frequency.clone()
        self.num_updates = torch.tensor(state["num_updates"], dtype=torch.float64)
        self.epsilon = torch.tensor(state["epsilon"], dtype=torch.float64)

    def _move_to(self, device: torch.device) -> None:
        self.frequency = self.frequency.to(device)
        self.num_updates, self.epsilon = self.num_updates.to(device), self.epsilon.to(device)
