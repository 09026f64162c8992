# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Which backends this installation has, and which of them runs."""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch

from turingvit_hf.kernels.linear_attention import reference, torch_backend


logger = logging.getLogger(__name__)


def _triton_linear_attention(*arguments):
    # Imported where it is used: a machine without a GPU never needs it.
    from turingvit_hf.kernels.linear_attention import triton_backend

    return triton_backend.linear_attention(*arguments)


BACKENDS: dict[str, Callable[..., torch.Tensor]] = {
    "reference": reference.linear_attention,
    "torch": torch_backend.linear_attention,
}
if importlib.util.find_spec("triton") is not None:
    BACKENDS["triton"] = _triton_linear_attention

# A plain global and not a context variable: the backward pass may run layers again (activation checkpointing) in
# autograd's own threads, which inherit no context.
_forced_backend: str | None = None


def choose_backend(
    name: str | None, device: torch.device, dtype: torch.dtype = torch.bfloat16, head_dim: int = 64
) -> str:
    """The name of the backend that will run: the one asked for, else the one that `explain_backend` gives.

    Args:
        name: A key of `BACKENDS`, or None for the rule.
        device: Where the tensors are.
        dtype: Dtype of the projections.
        head_dim: Size of a head.

    Raises:
        ValueError: `name` is no backend of this installation.
    """
    if name is None:
        name = "torch" if device.type != "cuda" else _gpu_default(device, dtype, head_dim)
    if name not in BACKENDS:
        raise ValueError(f"no linear-attention backend {name!r}; this installation has {sorted(BACKENDS)}")
    return name


def explain_backend(device: torch.device, dtype: torch.dtype = torch.bfloat16, head_dim: int = 64) -> tuple[str, str]:
    """The backend that runs on such tensors when none is named, and why.

    The rule: `triton` on a GPU that its kernels take, and `torch` everywhere else.
    """
    if device.type != "cuda":
        return "torch", f"Triton kernels are for GPUs, these tensors are on {device}"
    if "triton" not in BACKENDS:
        return "torch", "the package triton is not installed"
    from turingvit_hf.kernels.linear_attention import triton_backend

    reason = triton_backend.why_not(device, dtype, head_dim)
    return ("triton", "its kernels take this GPU") if reason is None else ("torch", reason)


def _gpu_default(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    if head_dim in _triton_head_dims(device, dtype):
        return "triton"
    if not torch.compiler.is_compiling():
        _warn_once(explain_backend(device, dtype, head_dim)[1])
    return "torch"


@torch.compiler.assume_constant_result
def _triton_head_dims(device: torch.device, dtype: torch.dtype) -> tuple[int, ...]:
    """Head sizes for which Triton kernels run on such tensors; a compiler takes them for constants."""
    return tuple(size for size in (32, 64, 128) if explain_backend(device, dtype, size)[0] == "triton")


@cache
def _warn_once(reason: str) -> None:
    logger.warning("linear attention runs on the torch backend, slower than Triton kernels on this GPU: %s", reason)


@contextmanager
def use_linear_attention_backend(name: str) -> Iterator[None]:
    """Makes every tower use the named backend until the block ends; it overrules what a model was set to.

    Keep the backward pass inside the block when activation checkpointing is on: layers run again there.

    Raises:
        ValueError: `name` is no backend of this installation.
    """
    global _forced_backend
    choose_backend(name, torch.device("cpu"))
    before, _forced_backend = _forced_backend, name
    try:
        yield
    finally:
        _forced_backend = before


def forced_backend() -> str | None:
    """The backend of the `use_linear_attention_backend` block around the caller, or None."""
    return _forced_backend
