# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What lets a pack be embedded twice with the same result: random generators that are put back, of any device."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


class RandomState:
    """The state, when this is made, of the random generators that a forward on `device` draws from.

    These are the CPU's and, where torch has a module for the device's type with a generator (`torch.cuda`,
    `torch.xpu`, `torch.mps`, or `torch.npu` of an extension), that one too.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.cpu = torch.get_rng_state()
        self.own = getattr(torch, device.type).get_rng_state(device) if _has_generator(device) else None

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Inside, the generators are as they were; afterwards, as if nothing had been drawn inside."""
        with generators_kept(self.device):
            torch.set_rng_state(self.cpu)
            if self.own is not None:
                getattr(torch, self.device.type).set_rng_state(self.own, self.device)
            yield


def generators_kept(device: torch.device) -> AbstractContextManager[None]:
    """A block after which the generators of the CPU and of a device are as if nothing had been drawn inside."""
    if not _has_generator(device):
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


def _has_generator(device: torch.device) -> bool:
    """Whether a device has a generator beside the CPU's that torch has the state of."""
    return hasattr(getattr(torch, device.type, None), "get_rng_state")
