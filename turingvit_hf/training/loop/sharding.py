# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What FSDP2 makes of parameters: each rank holds a part of a `DTensor`. Plain tensors pass through all of this."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor


# what activation checkpointing and torch.compile put into the names of parameters
WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")


def plain_name(name: str) -> str:
    """The name of a parameter without the wrappers around its modules."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def local_part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing its memory: what elementwise operations may change in place."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(part: Tensor, like: Tensor) -> Tensor:
    """The complete tensor of parts that are cut as `like` is cut; collective for a sharded one."""
    if isinstance(like, DTensor):
        shape = {"shape": like.shape, "stride": like.stride()}
        return DTensor.from_local(part, like.device_mesh, like.placements, **shape).full_tensor()
    return part


def gathered(tensor: Tensor) -> Tensor:
    """The complete value of a tensor that may be sharded or not yet summed over ranks; collective for such."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a complete tensor that every rank has, cut as `like` is cut, on its device."""
    tensor = tensor.to(like.device)
    if isinstance(like, DTensor):
        # no rank sends its values: all have read the same file
        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None).to_local()
    return tensor


def reshard(model: nn.Module) -> None:
    """Gives up the complete parameters that FSDP2 keeps after a forward without a backward."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def called_as_forward(model: nn.Module, *methods: str) -> Iterator[None]:
    """A block in which FSDP2 gathers parameters for these methods as it does for `forward`.

    Only for a block, and one without `forward`: that one calls the methods itself, and gathering does not nest.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    for method in methods:
        register_fsdp_forward_method(model, method)
    try:
        yield
    finally:
        for method in methods:
            delattr(model, method)  # the one of the class is seen again
        reshard(model)


def allow_sharding_on_cpus(accelerator_arguments: dict[str, Any]) -> None:
    """Lets accelerate shard where processes have CPUs only; nothing elsewhere, or where FSDP is not asked for.

    Its state takes FSDP for devices only and falls back to DDP on CPUs without a word (accelerate 1.15, state.py),
    though FSDP2 itself runs on CPUs over gloo. So the state is made here, before `Accelerator` finds it made.

    Args:
        accelerator_arguments: for `accelerate.Accelerator`; FSDP is asked for by their `fsdp_plugin` or by the
            environment variable that `accelerate launch` sets.
    """
    plugin = accelerator_arguments.get("fsdp_plugin")
    if plugin is None and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        plugin = FullyShardedDataParallelPlugin()
    if plugin is None or PartialState().distributed_type != DistributedType.MULTI_CPU:
        return
    accelerator_arguments["fsdp_plugin"] = plugin
    # all instances of a state share their values, and the new one takes those of the partial one
    PartialState().distributed_type = DistributedType.FSDP
    names = ("mixed_precision", "dynamo_plugin", "fsdp_plugin")
    arguments = {name: accelerator_arguments.get(name) for name in names}
    state = AcceleratorState(cpu=True, _from_accelerator=True, **arguments)
    state.fsdp_plugin = plugin
    if state.mixed_precision != "no":
        plugin.set_mixed_precision(state.mixed_precision)
