# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Towers without weights of their own: matrices of all of them lie in one block of memory, as large as the largest."""

import torch
from accelerate import init_empty_weights
from torch import nn

from turingvit_hf.benchmarking.towers import Tower


# values; every matrix begins at a multiple of it, a cache line's worth and more in any dtype
ALIGNMENT = 64
RANDOM_VALUES = 2**22


def build_empty(tower: Tower, side: int) -> nn.Module:
    """The tower in evaluation mode, parameters on the meta device, buffers (tables of positions) as they are."""
    with init_empty_weights(include_buffers=False):
        model = tower.build(tower.size, side)
    return model.eval().requires_grad_(False)


def num_parameters(model: nn.Module) -> int:
    """How many values the parameters have together."""
    return sum(parameter.numel() for parameter in model.parameters())


class SharedWeights:
    """A block of small random numbers that towers have their matrices in.

    Several towers are ready at a time, as interleaved runs need them, and take the memory of the largest. Each is far
    larger than any cache, so that none finds the other's weights there. Vectors (norms, biases) are each tower's own.

    Args:
        dtype: of all weights.
        device: where they are.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.dtype = dtype
        self.device = device
        generator = torch.Generator().manual_seed(0)
        self._random = torch.empty(RANDOM_VALUES).normal_(0, 0.02, generator=generator).to(device, dtype)
        self._block = self._random

    def fill(self, models: list[nn.Module]) -> None:
        """Gives all parameters of these models their values; the block grows to the largest one."""
        self._grow(max(sum(_room(p) for p in model.parameters() if p.ndim > 1) for model in models))
        for model in models:
            start = 0
            for module in model.modules():
                for name, parameter in module._parameters.items():
                    if parameter is None:
                        continue
                    if parameter.ndim > 1:
                        values = self._block[start : start + parameter.numel()].view(parameter.shape)
                        start += _room(parameter)
                    else:
                        values = torch.full(
                            parameter.shape, float("bias" not in name), dtype=self.dtype, device=self.device
                        )
                    module._parameters[name] = nn.Parameter(values, requires_grad=False)
            for module in model.modules():  # moved as they are: positions stay float32
                for name, buffer in module._buffers.items():
                    module._buffers[name] = None if buffer is None else buffer.to(self.device)

    def _grow(self, num_values: int) -> None:
        if num_values <= self._block.numel():
            return
        self._block = torch.empty(num_values, dtype=self.dtype, device=self.device)
        for part in self._block.split(RANDOM_VALUES):
            part.copy_(self._random[: part.numel()])


def _room(parameter: torch.Tensor) -> int:
    """The values that a matrix takes in the block."""
    return -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
