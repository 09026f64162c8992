# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What FSDP2 makes of parameters: each rank holds a part of a `DTensor`. Plain tensors pass through all of this."""

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


def call_as_forward(model: nn.Module, *methods: str) -> None:
    """Lets FSDP2 gather parameters for these methods as it does for `forward`; nothing for other models."""
    if isinstance(model, FSDPModule):
        for method in methods:
            if callable(getattr(model, method, None)):
                register_fsdp_forward_method(model, method)
