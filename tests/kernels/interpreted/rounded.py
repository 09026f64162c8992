# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Turing Linear Attention in float64, rounded to 16 bits exactly where the Triton kernels round.

What the kernels give beyond this is a mistake or the noise of float32 sums, so it can be held to a tight tolerance.
"""

from itertools import accumulate, pairwise

import torch


class _Rounded(torch.autograd.Function):
    """Forward and backward by the formulas of the kernels' README, whose names these are."""

    @staticmethod
    def forward(ctx, q, k, v, gate, norm_weight, cos, sin, lengths, dtype, eps):
        def to_16_bits(x):
            return x.to(dtype).double()

        Q, K, V = (to_16_bits(x) for x in (turn(silu(q), cos, sin), turn(silu(k), cos, sin), silu(v)))
        states, outputs = [], []
        for tokens, factor in segments(lengths, q.shape[-1]):
            states.append(to_16_bits(torch.einsum("nhd,nhe->hde", K[tokens], V[tokens]) * factor))
            outputs.append(torch.einsum("nhd,hde->nhe", Q[tokens], states[-1]))
        O = torch.cat(outputs).flatten(1)  # noqa: E741 - the name it has in the formula
        r = (O.square().mean(1, keepdim=True) + eps).rsqrt()
        X, s = O * r, gate.sigmoid()
        Y = to_16_bits(X * norm_weight * s)
        ctx.save_for_backward(q, k, v, norm_weight, cos, sin, Q, K, V, X, r, s, Y, *states)
        ctx.lengths, ctx.to_16_bits = lengths, to_16_bits
        return Y

    @staticmethod
    def backward(ctx, dY):
        q, k, v, norm_weight, cos, sin, Q, K, V, X, r, s, Y, *states = ctx.saved_tensors
        to_16_bits = ctx.to_16_bits
        dg, dw = dY * X * norm_weight * s * (1 - s), (dY * s * X).sum(0)
        dO = to_16_bits(r * (dY * s * norm_weight - X * (dY * Y).mean(1, keepdim=True))).view_as(q)
        dQ, dK, dV = [], [], []
        for (tokens, factor), S in zip(segments(ctx.lengths, q.shape[-1]), states, strict=True):
            root = len(q[tokens]) ** 0.5
            dS = to_16_bits(torch.einsum("nhd,nhe->hde", Q[tokens], dO[tokens]) / root)
            dQ.append(torch.einsum("nhe,hde->nhd", dO[tokens], S))
            dK.append(torch.einsum("nhe,hde->nhd", V[tokens], dS) * factor * root)
            dV.append(torch.einsum("nhd,hde->nhe", K[tokens], dS) * factor * root)
        dq, dk = (turn(torch.cat(x), cos, -sin) for x in (dQ, dK))
        grads = dq * silu_slope(q), dk * silu_slope(k), torch.cat(dV) * silu_slope(v), dg, dw
        return *(to_16_bits(x) for x in grads), None, None, None, None, None


def tla_rounded(q, k, v, *, lengths, cos, sin, gate, norm_weight, dtype, eps=1e-6):
    """The output (T, H·K) in float64, differentiable; arguments as of the twin, and the dtype to round to."""
    return _Rounded.apply(q, k, v, gate, norm_weight, cos, sin, lengths, dtype, eps)


def segments(lengths, head_dim):
    """The tokens of each segment and the factor of its state."""
    for start, stop in pairwise([0, *accumulate(lengths)]):
        yield slice(start, stop), 1 / ((stop - start) * head_dim**0.5)


def silu(x):
    """x · sigmoid(x)."""
    return x * x.sigmoid()


def silu_slope(x):
    """The derivative of `silu`."""
    return x.sigmoid() * (1 + x * (1 - x.sigmoid()))


def turn(x, cos, sin):
    """The pairs (j, j + K/2) of x (T, H, K) turned by their token's angles (T, K/2)."""
    left, right = x.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)
