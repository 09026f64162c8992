# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The one place that knows about ranks. Without a process group there is one rank, and every function works.

All functions but `world_size` and `rank` are collective: either every rank calls them, in the same order, or none.
"""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable


def _has_group() -> bool:
    """Whether there is a process group to talk through."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """The number of ranks."""
    return dist.get_world_size() if _has_group() else 1


def rank() -> int:
    """The number of this rank, from 0."""
    return dist.get_rank() if _has_group() else 0


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of the ranks' tensors of one shape, as a new tensor without gradient."""
    total = tensor.detach().clone()
    if _has_group():
        dist.all_reduce(total)
    return total


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of the ranks' tensors of one shape and a floating dtype, as a new tensor without gradient."""
    return sum_over_ranks(tensor) / world_size()


def gather_objects(value: Any) -> list[Any]:
    """What each rank gave, in order of ranks; values are pickled."""
    if not _has_group():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def barrier() -> None:
    """Returns once every rank has come here."""
    if _has_group():
        dist.barrier()


def gather_with_grad(rows: Tensor) -> tuple[Tensor, int]:
    """The rows of all ranks in order of ranks, and the place of this rank's first row among them.

    Each rank may have another number of rows, also none. Gradients are summed: a row gets what it contributed to the
    losses of all ranks together, so these losses are parts of one sum.

    Args:
        rows: (n, ...) of any n; dtype, device type and other dimensions agree between ranks.

    Returns:
        (sum of n, ...) and the sum of n over the ranks before this one.
    """
    if world_size() == 1:
        return rows, 0
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    return _Gather.apply(rows, sizes), sum(sizes[: rank()])


class _Gather(torch.autograd.Function):
    """All ranks' rows forward, the sum of all ranks' gradients for one's own rows backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        # collectives take equal shapes: the shorter ones are padded
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        first = sum(ctx.sizes[: rank()])
        return sum_over_ranks(gradient.contiguous())[first : first + ctx.sizes[rank()]], None
