# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A short comparison with the reference on first use, so that a miscompiled kernel is an error and not a bad model.

Released compilers have miscompiled such kernels before. The comparison takes a ragged pack of 318 tokens forward and
backward, once a process for each device, dtype and head size. TURINGVIT_SELF_TEST=0 turns it off.
"""

import os
from collections.abc import Callable

import torch

from turingvit_hf.kernels.linear_attention import reference


LENGTHS = (1, 17, 300)
NUM_HEADS = 2
# Largest relative error by norm: three times what the kernels show in Triton's interpreter, whose products are exact.
# float32 products may run as TF32, which keeps 11 bits.
TOLERANCE = {torch.float32: 5e-3, torch.float16: 5e-3, torch.bfloat16: 2e-2}

_passed: set[tuple[torch.device, torch.dtype, int]] = set()


def ensure_passed(
    linear_attention: Callable[..., torch.Tensor], device: torch.device, dtype: torch.dtype, head_dim: int
) -> None:
    """Runs the comparison if it has not passed yet in this process.

    Args:
        linear_attention: The backend, with the arguments of the reference.
        device: Where it will run.
        dtype: Dtype of the projections.
        head_dim: Size of a head.

    Raises:
        RuntimeError: A value or gradient is further from the reference than rounding explains.
    """
    key = (device, dtype, head_dim)
    if key in _passed or os.environ.get("TURINGVIT_SELF_TEST") == "0":
        return
    # Before it runs: the backend comes by here again while it is tested.
    _passed.add(key)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            errors = compare(linear_attention, device, dtype, head_dim)
    except BaseException:
        _passed.discard(key)
        raise
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] <= TOLERANCE[dtype]:
        _passed.discard(key)
        raise RuntimeError(
            f"linear attention in {dtype} with heads of {head_dim} fails its self-test on {device}: {worst} is off by "
            f"{errors[worst]:.1e}, allowed is {TOLERANCE[dtype]:.0e}. The compiled kernels are wrong here: take "
            "another Triton release, or the torch backend: model.set_linear_attention_backend('torch')"
        )


def compare(linear_attention: Callable[..., torch.Tensor], device: torch.device, dtype: torch.dtype, head_dim: int):
    """Relative errors by norm of the output and of each gradient, by name."""
    inputs, fixed, grad = _make_inputs(device, dtype, head_dim)
    actual = _outputs_and_grads(linear_attention, inputs, fixed, grad)
    exact = _outputs_and_grads(reference.linear_attention, {k: x.float() for k, x in inputs.items()}, fixed, grad)
    return {name: float((actual[name].float() - x).norm() / x.norm().clamp_min(1e-30)) for name, x in exact.items()}


def _make_inputs(device: torch.device, dtype: torch.dtype, head_dim: int):
    generator = torch.Generator().manual_seed(0)
    num_tokens, width = sum(LENGTHS), NUM_HEADS * head_dim

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    inputs = {name: normal(num_tokens, NUM_HEADS, head_dim).to(device, dtype) for name in ("q", "k", "v")}
    inputs |= {"gate": normal(num_tokens, width).to(device, dtype), "norm_weight": normal(width).to(device) + 1}
    angles = normal(num_tokens, head_dim // 2).to(device)
    cu_seqlens = torch.tensor((0, *LENGTHS), dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
    return inputs, (cu_seqlens, angles.cos(), angles.sin()), normal(num_tokens, width).to(device)


def _outputs_and_grads(run, inputs, fixed, grad) -> dict[str, torch.Tensor]:
    q, k, v, gate, norm_weight = leaves = [x.detach().clone().requires_grad_() for x in inputs.values()]
    y = run(q, k, v, *fixed, gate, norm_weight, 1e-6, "silu", None)
    grads = torch.autograd.grad(y, leaves, grad.to(y.dtype))
    return {"the output": y.detach()} | {f"the gradient of {name}": x for name, x in zip(inputs, grads, strict=True)}
