# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Which of how many processes this is, and the long wait for the slowest."""

from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from torch import distributed as dist


# a process may wait for the slowest for so long
PATIENCE = timedelta(days=2)


class Processes:
    """The processes of an evaluation, begun by torchrun or accelerate, or this one alone.

    They find each other within torch's own time limit, so that ranks whose launcher is gone end. Only the wait for
    the slowest one is a long one, and none of an accelerator's backend, whose watchdog would end it.

    Args:
        cpu: whether they work on the CPU where there is an accelerator.

    Attributes:
        index: of this process, from 0.
        number: of all.
        device: what this process works on where nothing else is said.
    """

    def __init__(self, *, cpu: bool):
        state = PartialState(cpu=cpu)
        self.index: int = state.process_index
        self.number: int = state.num_processes
        self.device = torch.device(state.device or "cpu")
        self._group: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if self.number > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that makes figures."""
        return self.index == 0

    def wait(self) -> None:
        """Returns once every process has come here."""
        if self._group is not None:
            dist.barrier(group=self._group)
