# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the tests of kernels and models measure with: a float64 twin, one table of tolerances, a record of allocations.

The twin is written from the formulas of the architecture and calls nothing of the package: one image after another,
one head after another, rotations as products of complex numbers. `tests.towers` has that of the whole tower.
"""

from collections.abc import Callable
from itertools import accumulate, pairwise
from types import SimpleNamespace

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile


# Largest `relative_error` against float64 that a right implementation has. The inputs are rounded to the dtype before
# the twin sees them, so this is the rounding of the computation and of its result alone.
# - float32: 24 bits of mantissa, 6e-8 a rounding; sums over up to 4,097 tokens and 64 columns add up to some 3e-7.
# - float16: 11 bits, at most 4.9e-4 for the rounding of the result; products are float32 inside.
# - bfloat16: 8 bits, at most 2^-9 a rounding, and up to eight of them in a row: K, V, S, Q, O, dO, dQ and the result.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 6e-4, torch.bfloat16: 2**-6}
# A whole tower in float32: the sum of the roundings of its layers, each of them like TOLERANCE.
TOWER_TOLERANCE = 1e-5

# What can run on any machine; backends for accelerators have tests of their own.
PORTABLE_BACKENDS = ("reference", "torch")


def relative_error(actual: torch.Tensor, exact: torch.Tensor | np.ndarray) -> float:
    """The larger of |actual - exact| / |exact| by Euclidean norm and by largest entry; inf for NaN or other shapes."""
    actual = actual.detach().double()
    exact = torch.as_tensor(exact).detach().double()
    if actual.shape != exact.shape or not actual.isfinite().all():
        return float("inf")
    difference, floor = actual - exact, torch.finfo(torch.float64).tiny
    by_norm = difference.norm() / exact.norm().clamp_min(floor)
    by_entry = difference.abs().max() / exact.abs().max().clamp_min(floor)
    return float(torch.maximum(by_norm, by_entry))


def assert_close(actual: torch.Tensor, exact: torch.Tensor | np.ndarray, tolerance: float) -> None:
    """Fail unless `relative_error` is at most `tolerance`."""
    error = relative_error(actual, exact)
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}, shapes {actual.shape}, {exact.shape}"


def cu_seqlens_of(lengths: tuple[int, ...]) -> torch.Tensor:
    """Where segments of these lengths begin, and where the last one ends: (S + 1,) int32."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def silu(x: np.ndarray) -> np.ndarray:
    """x / (1 + e^-x)."""
    return x * sigmoid(x)


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """Each row of `x` divided by its root mean square, times `weight`."""
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def softmax(x: np.ndarray) -> np.ndarray:
    """Weights along the last dimension."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def turn(x: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """The pairs (j, j + K/2) of x (n, K), read as complex numbers, times `phase` (n, K/2)."""
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * phase
    return np.concatenate([turned.real, turned.imag], axis=-1)


def tla_numpy(
    q, k, v, lengths, *, cos=None, sin=None, gate=None, norm_weight=None, eps=1e-6, activation="silu", scale=None
) -> np.ndarray:
    """Turing Linear Attention (T, H·K) in float64 NumPy; arguments as the operator's, `lengths` for its cu_seqlens."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    phi = {"silu": silu, "none": lambda x: x}[activation]
    out = np.empty_like(q)
    for start, stop in pairwise([0, *accumulate(lengths)]):
        for head in range(q.shape[1]):
            Q, K, V = (phi(x[start:stop, head]) for x in (q, k, v))
            if cos is not None:
                phase = np.asarray(cos, np.float64)[start:stop] + 1j * np.asarray(sin, np.float64)[start:stop]
                Q, K = turn(Q, phase), turn(K, phase)
            S = K.T @ V * (1 / ((stop - start) * np.sqrt(q.shape[2])) if scale is None else scale)
            out[start:stop, head] = Q @ S
    out = out.reshape(len(q), -1)
    if norm_weight is not None:
        out = rms_norm(out, np.asarray(norm_weight, np.float64), eps)
    return out if gate is None else out * sigmoid(np.asarray(gate, np.float64))


def tla_twin(
    q, k, v, lengths, *, cos=None, sin=None, gate=None, norm_weight=None, eps=1e-6, activation="silu", scale=None
) -> torch.Tensor:
    """`tla_numpy` in plain torch and in the dtype of its inputs, for autograd to differentiate."""
    phi = {"silu": lambda x: x / (1 + torch.exp(-x)), "none": lambda x: x}[activation]
    images = []
    for start, stop in pairwise([0, *accumulate(lengths)]):
        heads = []
        for head in range(q.shape[1]):
            Q, K, V = (phi(x[start:stop, head]) for x in (q, k, v))
            if cos is not None:
                phase = torch.complex(cos[start:stop], sin[start:stop])
                Q, K = (torch.complex(*x.chunk(2, -1)) * phase for x in (Q, K))
                Q, K = (torch.cat((x.real, x.imag), -1) for x in (Q, K))
            factor = 1 / ((stop - start) * q.shape[2] ** 0.5) if scale is None else scale
            heads.append(Q @ (K.T @ V * factor))
        images.append(torch.cat(heads, -1))
    out = torch.cat(images)
    if norm_weight is not None:
        out = out / torch.sqrt((out**2).mean(-1, keepdim=True) + eps) * norm_weight
    return out if gate is None else out / (1 + torch.exp(-gate))


def make_tla_inputs(
    lengths: tuple[int, ...],
    *,
    num_heads: int = 3,
    head_dim: int = 16,
    dtype: torch.dtype = torch.float32,
    layout: str = "separate",
    without: tuple[str, ...] = (),
) -> dict[str, torch.Tensor | None]:
    """Random keyword arguments of the operator; those named in `without` ("rope", "gate", "norm_weight") are None.

    `layout` is "separate" for tensors of their own, "fused" for views of one projection (T, 4, H, K), gate included,
    and "interleaved" for views of (T, H, 3, K).
    """
    generator = torch.Generator().manual_seed(sum(lengths))
    size = (sum(lengths), num_heads, head_dim)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    if layout == "fused":
        q, k, v, gate = draw(size[0], 4, *size[1:]).unbind(1)
        gate = gate.flatten(1)
    else:
        q, k, v = draw(*size[:2], 3, size[2]).unbind(2) if layout == "interleaved" else (draw(*size) for _ in range(3))
        gate = draw(size[0], num_heads * head_dim)
    norm_weight = (torch.randn(num_heads * head_dim, generator=generator) * 0.1 + 1).to(dtype).requires_grad_()
    angles = torch.rand(size[0], head_dim // 2, generator=generator) * 2 * torch.pi
    inputs = {"q": q, "k": k, "v": v, "gate": gate, "norm_weight": norm_weight}
    inputs |= {"cos": angles.cos(), "sin": angles.sin()}
    absent = [name for name in inputs if name in without or ("rope" in without and name in ("cos", "sin"))]
    return inputs | dict.fromkeys(absent)


def to_float64(inputs: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
    """Copies of the inputs for a twin to differentiate, with no storage shared."""
    return {
        name: x if x is None else x.detach().double().requires_grad_(x.requires_grad) for name, x in inputs.items()
    }


def values_and_gradients(run: Callable[..., torch.Tensor], inputs: dict[str, torch.Tensor | None]) -> dict:
    """What `run(**inputs)` returns under the name "y", and its gradients for a fixed random direction."""
    y = run(**inputs)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16).to(y)
    leaves = {name: x for name, x in inputs.items() if x is not None and x.requires_grad}
    return {"y": y, **dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), direction), strict=True))}


def assert_all_close(actual: dict, exact: dict, tolerance: float) -> None:
    """Fail unless every tensor is within `tolerance` of its twin; the message has all errors."""
    assert actual.keys() == exact.keys()
    errors = {name: relative_error(actual[name], exact[name]) for name in exact}
    assert max(errors.values()) <= tolerance, f"{errors} > {tolerance}"


def record_allocations(run: Callable[[], object]) -> SimpleNamespace:
    """Bytes that `run` takes from the CPU allocator, inside operators too: the largest piece, the sum and the peak."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    changes = [event.nbytes() for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = [change for change in changes if change > 0]
    return SimpleNamespace(largest=max(taken), total=sum(taken), peak=max(accumulate(changes)))
