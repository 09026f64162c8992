# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The moving average of the weights, sharded where the weights are."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from turingvit_hf.errors import InputError
from turingvit_hf.training.loop.sharding import local_part, part_like, plain_name, reshard, whole


UPDATES = "num_updates"


class WeightAverage:
    """Exponential moving average of a model's trainable parameters, in float32 and on their devices.

    After update n (from 1) the average is d·average + (1 - d)·weights with d = min(decay, (1 + n) / (10 + n)): a short
    run is not dominated by its random start (the ramp of TensorFlow's ExponentialMovingAverage).

    Args:
        model: as it was prepared for training; under FSDP2 each rank keeps the part that it trains.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = model
        self.decay = decay
        self.num_updates = 0
        self._averages = {name: local_part(p.detach()).float().clone() for name, p in self._parameters()}

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                yield plain_name(name), parameter

    @torch.no_grad()
    def update(self) -> None:
        """Takes the weights as they are now into the average."""
        self.num_updates += 1
        share = 1 - min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages, weights = [], []
        for name, parameter in self._parameters():
            averages.append(self._averages[name])
            weights.append(local_part(parameter.detach()).float())
        torch._foreach_lerp_(averages, weights, share)

    @contextmanager
    @torch.no_grad()
    def swapped_in(self) -> Iterator[None]:
        """A block in which the model has the averages as its weights; afterwards it has its own again, bit for bit."""
        reshard(self.model)
        kept = {name: local_part(parameter.detach()).clone() for name, parameter in self._parameters()}
        try:
            self._assign(self._averages)
            yield
        finally:
            reshard(self.model)
            self._assign(kept)

    def _assign(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters():
            local_part(parameter.detach()).copy_(values[name])

    def complete(self) -> dict[str, Tensor]:
        """The whole averages by name on the CPU; collective, since sharded ones are gathered."""
        return {name: whole(self._averages[name], parameter).cpu() for name, parameter in self._parameters()}

    def save(self, file: Path, *, is_writer: bool) -> None:
        """Writes whole averages, so that any number of ranks can load them; collective, one rank writes."""
        averages = self.complete()
        if is_writer:
            tensors = {name: tensor.contiguous() for name, tensor in averages.items()}
            save_file(tensors, file, metadata={UPDATES: str(self.num_updates)})

    def load(self, file: Path) -> None:
        """Takes the averages of a file, each rank its part.

        Raises:
            InputError: the file has averages of other parameters, or there is none.
        """
        if not file.exists():
            raise InputError(f"ema_decay={self.decay}, but the checkpoint has no {file.name}: it was made without")
        with safe_open(file, framework="pt") as stored:
            self.num_updates = int(stored.metadata()[UPDATES])
            if differing := set(stored.keys()) ^ set(self._averages):
                raise InputError(f"{file} and the model differ in the parameters {', '.join(sorted(differing)[:5])}")
            for name, parameter in self._parameters():
                self._averages[name].copy_(part_like(stored.get_tensor(name), parameter))
