# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What lets a pack be embedded twice with the same result: random generators that are put back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RandomState:
    """The state, when this is made, of the random generators that a forward on `device` draws from."""

    def __init__(self, device: torch.device):
        self.devices = [device] if device.type == "cuda" else []
        self.cpu = torch.get_rng_state()
        self.cuda = [torch.cuda.get_rng_state(device) for device in self.devices]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Inside, the generators are as they were; afterwards, as if nothing had been drawn inside."""
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
