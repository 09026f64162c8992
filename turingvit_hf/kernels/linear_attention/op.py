# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The public operator: argument checks and the choice of a backend."""

from contextlib import AbstractContextManager, nullcontext

import torch

from turingvit_hf.kernels.linear_attention import reference, torch_backend
from turingvit_hf.kernels.linear_attention.backends import BACKENDS, choose_backend, forced_backend


def turing_linear_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor | None = None,
    *,
    cos: torch.Tensor | None = None,
    sin: torch.Tensor | None = None,
    gate: torch.Tensor | None = None,
    norm_weight: torch.Tensor | None = None,
    eps: float = 1e-6,
    activation: str = "silu",
    scale: float | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """All of Turing Linear Attention between its projections: activation, RoPE, state, product, norm and gate.

    Per segment of N tokens and per head of size K, with phi the activation (technical report, TLA box):

        Q, K, V = rope(phi(q)), rope(phi(k)), phi(v)
        S = K^T V / (N * sqrt(d));  O = Q S;  Y = RMSNorm(concat heads of O) * sigmoid(gate)

    Args:
        q: Query projection before the activation, (T, H, K), any strides with a contiguous last dimension.
            A batch of equal segments may be given as (B, N, H, K) without `cu_seqlens`.
        k: Key projection, shaped like `q`.
        v: Value projection, shaped like `q`.
        cu_seqlens: (S + 1,) int32, where each segment begins and the last one ends; None for the batched form.
        cos: (T, K/2) float32 cosines of the rotation, (B, N, K/2) in the batched form; None for no RoPE.
        sin: As `cos`.
        gate: (T, H·K) logits of the output gate, before the sigmoid; None for no gate.
        norm_weight: (H·K,) weight of the RMSNorm over all heads; None for no norm.
        eps: Added to the mean square inside the norm.
        activation: "silu" or "none", applied to q, k and v.
        scale: Factor of the state; None is 1/(N·sqrt(K)) with each segment's own N.
        backend: A key of `BACKENDS`, or None for the rule of `choose_backend`; a `use_linear_attention_backend` block
            around the call overrules both.

    Returns:
        (T, H·K), or (B, N, H·K) in the batched form, in the dtype of `q`.

    Raises:
        ValueError: A shape, the activation or the backend is not one of those above.
    """
    _check(q, k, v, cu_seqlens, cos=cos, sin=sin, gate=gate, norm_weight=norm_weight, activation=activation)
    run = BACKENDS[choose_backend(forced_backend() or backend, q.device, q.dtype, q.shape[-1])]
    with _without_autocast(q.device.type):
        if cu_seqlens is not None:
            return run(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, eps, activation, scale)
        if torch.compiler.is_compiling() and run is torch_backend.linear_attention:
            # Plain tensor operations, which a compiler fuses and an exporter can translate to any runtime.
            return torch_backend.dense_linear_attention(q, k, v, cos, sin, gate, norm_weight, eps, activation, scale)
        batch, length = q.shape[:2]
        cu_seqlens = torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=q.device)
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        cos, sin, gate = (None if x is None else x.flatten(0, 1) for x in (cos, sin, gate))
        y = run(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, eps, activation, scale)
        return y.unflatten(0, (batch, length))


def _without_autocast(device_type: str) -> AbstractContextManager:
    """A block in which products run in the dtype the backends choose; autocast would round float32 operands."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _check(q, k, v, cu_seqlens, *, cos, sin, gate, norm_weight, activation) -> None:
    """Raises ValueError for shapes, dtypes, strides or devices that do not fit together."""
    if q.dim() != (4 if cu_seqlens is None else 3):
        raise ValueError(f"q must be (T, H, K) with cu_seqlens or (B, N, H, K) without, got {tuple(q.shape)}")
    *tokens, num_heads, head_dim = q.shape
    if k.shape != q.shape or v.shape != q.shape:
        raise ValueError(f"q, k and v differ in shape: {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}")
    for name, x in (("k", k), ("v", v), ("gate", gate)):
        if x is not None and x.dtype != q.dtype:
            raise ValueError(f"{name} is {x.dtype}, q is {q.dtype}: projections and gate share one dtype")
    for name, x in (("q", q), ("k", k), ("v", v), ("gate", gate)):
        if x is not None and x.shape[-1] > 1 and x.stride(-1) != 1:
            raise ValueError(f"the last dimension of {name} must be contiguous, its stride is {x.stride(-1)}")
    if cu_seqlens is not None and cu_seqlens.device != q.device:
        raise ValueError(f"cu_seqlens is on {cu_seqlens.device}, q is on {q.device}")
    if cu_seqlens is not None and (cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64)):
        raise ValueError(f"cu_seqlens must be (S + 1,) int32, got {tuple(cu_seqlens.shape)} {cu_seqlens.dtype}")
    if (cos is None) != (sin is None):
        raise ValueError("cos and sin go together: one of them is None")
    if cos is not None and not (cos.shape == sin.shape == (*tokens, head_dim // 2)):
        raise ValueError(f"cos and sin must be {(*tokens, head_dim // 2)}, got {tuple(cos.shape)}, {tuple(sin.shape)}")
    if gate is not None and gate.shape != (*tokens, num_heads * head_dim):
        raise ValueError(f"gate must be {(*tokens, num_heads * head_dim)}, got {tuple(gate.shape)}")
    if norm_weight is not None and norm_weight.shape != (num_heads * head_dim,):
        raise ValueError(f"norm_weight must be {(num_heads * head_dim,)}, got {tuple(norm_weight.shape)}")
    if activation not in reference.ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(reference.ACTIVATIONS)}, got {activation!r}")
