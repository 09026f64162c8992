# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How the torch backend cuts a pack, what it makes of a tile's projections, and the products of short segments.

A pack is cut into groups, each one long segment or a tile of shorter ones. Elementwise work runs on whole tiles,
products on runs of equal segments: over fewer tokens than a head has columns, (Q K^T) V is less work than Q (K^T V).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
import torch.nn.functional as F


# Tokens a tile: on a CPU its temporaries (2.6 MB each at 20 heads of 64) stay in cache; elsewhere launches cost more.
TILE_TOKENS = {"cpu": 512}
OTHER_TILE_TOKENS = 16384


def tile_tokens(device: torch.device) -> int:
    """Most tokens of a tile on such a device."""
    return TILE_TOKENS.get(device.type, OTHER_TILE_TOKENS)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """What elementwise work is computed in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def product_dtype(dtype: torch.dtype) -> torch.dtype:
    """What products run in: bfloat16 cannot overflow, while float16 could in states, which are sums over tokens."""
    return torch.float32 if dtype == torch.float16 else dtype


@dataclass(frozen=True)
class Run:
    """Neighboring segments of one length; `tokens` counts from the start of their group."""

    tokens: slice
    length: int

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """The run's part of a group's Q, K, V or O (H, b, K), as (H·segments, length, K)."""
        return x[:, self.tokens].reshape(-1, self.length, x.shape[-1])


@dataclass(frozen=True)
class Group:
    """Neighboring segments over the tokens [start, stop) of the pack, in runs."""

    start: int
    stop: int
    runs: tuple[Run, ...]

    def tiles(self, tile: int) -> Iterator[slice]:
        """The group's tokens, at most `tile` at a time."""
        for start in range(self.start, self.stop, tile):
            yield slice(start, min(start + tile, self.stop))


def groups(bounds: list[int], tile: int) -> Iterator[Group]:
    """Cuts a pack into single segments longer than a tile and groups of segments that fit into one together."""
    first = 0
    while first < len(bounds) - 1:
        last = first + 1
        while last < len(bounds) - 1 and bounds[last + 1] - bounds[first] <= tile:
            last += 1
        runs, start = [], 0
        for length, same in groupby(b - a for a, b in pairwise(bounds[first : last + 1])):
            stop = start + length * len(list(same))
            runs.append(Run(slice(start, stop), length))
            start = stop
        yield Group(bounds[first], bounds[last], tuple(runs))
        first = last


def states_shape(q: torch.Tensor) -> tuple[int, int, int]:
    """Shape (T, H, -) of a buffer with room for the (H, K, K) state of each segment longer than a tile.

    A segment's room is its own tokens' rows, so that the shape follows from that of `q` (T, H, K), whatever the pack.
    """
    num_tokens, num_heads, head_dim = q.shape
    return num_tokens, num_heads, -(-head_dim * head_dim // (tile_tokens(q.device) + 1))


def kept_state(states: torch.Tensor, group: Group, head_dim: int) -> torch.Tensor:
    """The state (H, K, K) of a segment longer than a tile, a view of the buffer."""
    rows, num_heads = states[group.start : group.stop], states.shape[1]
    return rows.flatten()[: num_heads * head_dim * head_dim].view(num_heads, head_dim, head_dim)


@dataclass(frozen=True)
class Prologue:
    """What turns projections into Q, K and V: activation, rotation, and the factor c = 1/(N·sqrt(K)), which goes to Q.

    With c in Q neither states nor products of tokens have to be scaled, and the rotation has taken it into its tables.
    """

    cos: torch.Tensor | None
    sin: torch.Tensor | None
    factors: torch.Tensor
    activation: str

    @classmethod
    def of(cls, bounds: list[int], like: torch.Tensor, *, cos, sin, activation: str, scale: float | None):
        """The prologue of a pack of projections like `like` (T, H, K); factors are (T, 1, 1), one for each token."""
        lengths = torch.tensor(bounds).diff()
        root = like.shape[-1] ** 0.5
        factors = 1.0 / (lengths.double() * root) if scale is None else torch.full(lengths.shape, scale).double()
        factors = factors.repeat_interleave(lengths).view(-1, 1, 1).to(like.device, wide_dtype(like.dtype))
        return cls(cos, sin, factors, activation)

    def query(self, q: torch.Tensor, tokens: slice) -> torch.Tensor:
        """c·Q of a tile, (H, b, K)."""
        return self._rotated(q, tokens, self.factors[tokens])

    def key(self, k: torch.Tensor, tokens: slice) -> torch.Tensor:
        """K of a tile, (H, b, K)."""
        return self._rotated(k, tokens, None)

    def value(self, v: torch.Tensor, tokens: slice) -> torch.Tensor:
        """V of a tile, (H, b, K)."""
        return self._activated(v, tokens).to(product_dtype(v.dtype)).transpose(0, 1)

    def query_backward(self, grad: torch.Tensor, q: torch.Tensor, tokens: slice, out: torch.Tensor) -> None:
        """Writes the gradient of a tile of `q` into `out`, given that of c·Q (H, b, K)."""
        self._rotated_backward(grad, q, tokens, self.factors[tokens], out)

    def key_backward(self, grad: torch.Tensor, k: torch.Tensor, tokens: slice, out: torch.Tensor) -> None:
        """Writes the gradient of a tile of `k` into `out`, given that of K (H, b, K)."""
        self._rotated_backward(grad, k, tokens, None, out)

    def value_backward(self, grad: torch.Tensor, v: torch.Tensor, tokens: slice, out: torch.Tensor) -> None:
        """Writes the gradient of a tile of `v` into `out`, given that of V (H, b, K)."""
        self._activated_backward(grad.transpose(0, 1).to(wide_dtype(v.dtype)), v, tokens, out)

    def _rotated(self, x: torch.Tensor, tokens: slice, factors: torch.Tensor | None) -> torch.Tensor:
        a = self._activated(x, tokens)
        out = torch.empty_like(a.transpose(0, 1), memory_format=torch.contiguous_format)
        self._rotate(a, tokens, factors, 1, out.transpose(0, 1))
        return out.to(product_dtype(x.dtype))

    def _rotated_backward(self, grad, x: torch.Tensor, tokens: slice, factors, out: torch.Tensor) -> None:
        grad = grad.transpose(0, 1).to(wide_dtype(x.dtype))
        self._activated_backward(self._rotate(grad, tokens, factors, -1, torch.empty_like(grad)), x, tokens, out)

    def _rotate(self, x: torch.Tensor, tokens: slice, factors, sign: int, out: torch.Tensor) -> torch.Tensor:
        """x (b, H, K) turned by its tokens' angles or against them (`sign`) and scaled, written into `out`."""
        if self.cos is None or self.sin is None:
            return out.copy_(x) if factors is None else torch.mul(x, factors, out=out)
        cos, sin = self.cos[tokens, None], self.sin[tokens, None] * sign
        if factors is not None:
            cos, sin = cos * factors, sin * factors
        left, right = x.chunk(2, dim=-1)
        out_left, out_right = out.chunk(2, dim=-1)
        torch.mul(left, cos, out=out_left).addcmul_(right, sin, value=-1)
        torch.mul(right, cos, out=out_right).addcmul_(left, sin)
        return out

    def _activated(self, x: torch.Tensor, tokens: slice) -> torch.Tensor:
        x = x[tokens].to(wide_dtype(x.dtype))
        return F.silu(x) if self.activation == "silu" else x

    def _activated_backward(self, grad: torch.Tensor, x: torch.Tensor, tokens: slice, out: torch.Tensor) -> None:
        if self.activation == "silu":
            torch.ops.aten.silu_backward.grad_input(grad, x[tokens].to(grad.dtype), grad_input=out[tokens])
        else:
            out[tokens] = grad


def run_products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, runs: Sequence[Run]):
    """O (H, b, K) of a group of one tile, and what lies between of each run: Q K^T or K^T V."""
    outputs, between = [], []
    for run in runs:
        q, k, v = run.of(query), run.of(key), run.of(value)
        if run.length < query.shape[-1]:
            between.append(torch.bmm(q, k.transpose(1, 2)))
            outputs.append(torch.bmm(between[-1], v))
        else:
            between.append(torch.bmm(k.transpose(1, 2), v))
            outputs.append(torch.bmm(q, between[-1]))
    return _joined(outputs, query), between


def run_products_backward(grad_out, query, key, value, runs: Sequence[Run], between: Sequence[torch.Tensor]):
    """Gradients of Q, K and V (H, b, K), given that of O and what `run_products` returned.

    With A = Q K^T they are dQ = dA K, dK = dA^T Q, dV = A^T dO for dA = dO V^T; with S = K^T V they are dQ = dO S^T,
    dK = V dS^T, dV = K dS for dS = Q^T dO.
    """
    grads: tuple[list[torch.Tensor], ...] = ([], [], [])
    for run, matrix in zip(runs, between, strict=True):
        grad, q, k, v = run.of(grad_out), run.of(query), run.of(key), run.of(value)
        if run.length < query.shape[-1]:
            grad_matrix = torch.bmm(grad, v.transpose(1, 2))
            pairs = (grad_matrix, k), (grad_matrix.transpose(1, 2), q), (matrix.transpose(1, 2), grad)
        else:
            grad_matrix = torch.bmm(q.transpose(1, 2), grad)
            pairs = (grad, matrix.transpose(1, 2)), (v, grad_matrix.transpose(1, 2)), (k, grad_matrix)
        for parts, pair in zip(grads, pairs, strict=True):
            parts.append(torch.bmm(*pair))
    return tuple(_joined(parts, query) for parts in grads)


def _joined(parts: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """The parts of all runs of a group (H·segments, length, K) as one tensor like its query (H, b, K)."""
    if len(parts) == 1:
        return parts[0].view(like.shape)
    return torch.cat([part.view(like.shape[0], -1, like.shape[-1]) for part in parts], dim=1)
