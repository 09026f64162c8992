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


def is_on() -> bool:
    """Whether the comparison runs: unless TURINGVIT_SELF_TEST=0 turns it off."""
    return os.environ.get("TURINGVIT_SELF_TEST") != "0"


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
    if key in _passed or not is_on():
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
    problem = Problem(device, dtype, head_dim)
    return problem.errors(linear_attention)


class Problem:
    """A normed, gated pack of random numbers on a device, with the reference's output and gradients in float32."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        head_dim: int,
        *,
        lengths: tuple[int, ...] = LENGTHS,
        num_heads: int = NUM_HEADS,
    ):
        self.dtype = dtype
        generator = torch.Generator().manual_seed(0)
        num_tokens, width = sum(lengths), num_heads * head_dim

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        inputs = {name: normal(num_tokens, num_heads, head_dim).to(device, dtype) for name in ("q", "k", "v")}
        inputs |= {"gate": normal(num_tokens, width).to(device, dtype), "norm_weight": normal(width).to(device) + 1}
        angles = normal(num_tokens, head_dim // 2).to(device)
        cu_seqlens = torch.tensor((0, *lengths), dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
        self.inputs, self.fixed = inputs, (cu_seqlens, angles.cos(), angles.sin())
        self.grad = normal(num_tokens, width).to(device)
        self.exact = self._run(reference.linear_attention, {name: x.float() for name, x in inputs.items()})

    def errors(self, linear_attention: Callable[..., torch.Tensor]) -> dict[str, float]:
        """Relative errors by norm of the output and of each gradient, by name."""
        actual = self._run(linear_attention, self.inputs)
        return {
            name: float((actual[name].float() - x).norm() / x.norm().clamp_min(1e-30))
            for name, x in self.exact.items()
        }

    def _run(self, run: Callable[..., torch.Tensor], inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        q, k, v, gate, norm_weight = leaves = [x.detach().clone().requires_grad_() for x in inputs.values()]
        y = run(q, k, v, *self.fixed, gate, norm_weight, 1e-6, "silu", None)
        grads = torch.autograd.grad(y, leaves, self.grad.to(y.dtype))
        named = {f"the gradient of {name}": x for name, x in zip(inputs, grads, strict=True)}
        return {"the output": y.detach()} | named
