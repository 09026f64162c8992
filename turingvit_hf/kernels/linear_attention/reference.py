# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The definition of Turing Linear Attention, one image after the other; every other backend is compared with it."""

from itertools import pairwise

import torch
import torch.nn.functional as F


ACTIVATIONS = {"silu": F.silu, "none": lambda x: x}


def segment_bounds(cu_seqlens: torch.Tensor, num_tokens: int) -> list[int]:
    """Where each segment begins, and where the last one ends, as Python integers.

    Raises:
        ValueError: `cu_seqlens` does not run from 0 to `num_tokens` in steps of at least one token. Rows that no
            segment covers would come back unwritten, and an empty segment has no 1/N.
    """
    bounds = cu_seqlens.tolist()
    if len(bounds) < 2:
        raise ValueError(f"cu_seqlens must describe at least one segment, got {bounds}")
    if bounds[0] != 0 or bounds[-1] != num_tokens:
        raise ValueError(f"cu_seqlens must run from 0 to the {num_tokens} tokens, got {bounds[0]} to {bounds[-1]}")
    for index, (start, stop) in enumerate(pairwise(bounds)):
        if stop <= start:
            raise ValueError(f"segment {index} of cu_seqlens is empty or runs backward: {start} to {stop}")
    return bounds


def rotate_half(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The pairs (i, i + K/2) of `x` (T, H, K) turned by the angles of their token; `cos`, `sin` are (T, K/2)."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def linear_attention(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, eps, activation, scale):
    """Turing Linear Attention (T, H·K) by its formulas, in float32 or the wider dtype of the inputs.

    Shapes are those of `turing_linear_attention`. Per segment of N tokens and per head, with phi the activation:

        Q, K, V = rope(phi(q)), rope(phi(k)), phi(v)
        S = K^T V / (N * sqrt(d));  O = Q S;  Y = RMSNorm(concat heads of O) * sigmoid(gate)
    """
    out_dtype, phi = q.dtype, ACTIVATIONS[activation]
    compute = torch.promote_types(q.dtype, torch.float32)
    outputs = []
    for start, stop in pairwise(segment_bounds(cu_seqlens, q.shape[0])):
        Q, K, V = (phi(x[start:stop].to(compute)) for x in (q, k, v))
        if cos is not None:
            Q, K = (rotate_half(x, cos[start:stop].to(compute), sin[start:stop].to(compute)) for x in (Q, K))
        factor = 1.0 / ((stop - start) * q.shape[-1] ** 0.5) if scale is None else scale
        S = torch.einsum("nhd,nhe->hde", K, V) * factor
        outputs.append(torch.einsum("nhd,hde->nhe", Q, S).flatten(1))
    O = torch.cat(outputs)  # noqa: E741 - the name it has in the formula
    if norm_weight is not None:
        O = O * torch.rsqrt(O.square().mean(-1, keepdim=True) + eps) * norm_weight.to(compute)  # noqa: E741
    if gate is not None:
        O = O * torch.sigmoid(gate.to(compute))  # noqa: E741
    return O.to(out_dtype)
