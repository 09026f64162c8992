# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Turing Linear Attention in plain torch: no padding, small state, hand-written backward, one operator for compilers.

A pack is cut into groups, each one long segment or a run of short ones, and a group into tiles that stay in the
processor's cache; elementwise work runs on a whole tile, products on the segments in it. The backward pass computes
activations, rotations and the attention output again, so that only the inputs and the (K, K) states are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from turingvit_hf.kernels.linear_attention.reference import segment_bounds


# Tokens a tile: on a CPU its temporaries (2.6 MB each at 20 heads of 64) stay in cache; elsewhere launches cost more.
TILE_TOKENS = {"cpu": 512}
OTHER_TILE_TOKENS = 16384


@dataclass(frozen=True)
class Group:
    """Neighboring segments [first, last) over tokens [start, stop), all of one length if `length` is set."""

    first: int
    last: int
    start: int
    stop: int
    length: int | None


def groups(bounds: list[int], tile: int) -> Iterator[Group]:
    """Cuts a pack into single long segments and runs of short ones of at most `tile` tokens together."""
    first = 0
    while first < len(bounds) - 1:
        last = first + 1
        while last < len(bounds) - 1 and bounds[last + 1] - bounds[first] <= tile:
            last += 1
        lengths = {bounds[i + 1] - bounds[i] for i in range(first, last)}
        yield Group(first, last, bounds[first], bounds[last], lengths.pop() if len(lengths) == 1 else None)
        first = last


@dataclass(frozen=True)
class Prologue:
    """What turns projections into Q, K and V: activation, rotation, and the dtype the products run in."""

    cos: torch.Tensor | None
    sin: torch.Tensor | None
    activation: str
    product_dtype: torch.dtype

    def rotated(self, x: torch.Tensor, tokens: slice) -> torch.Tensor:
        """Q or K of a tile, (H, b, K): activation, then RoPE, computed in float32 or wider."""
        a = self._activated(x, tokens)
        if self.cos is None or self.sin is None:
            return a.to(self.product_dtype).transpose(0, 1).contiguous()
        out = torch.empty_like(a.transpose(0, 1), memory_format=torch.contiguous_format)
        _rotate(a, self.cos[tokens, None], self.sin[tokens, None], out=out.transpose(0, 1))
        return out.to(self.product_dtype)

    def activated(self, x: torch.Tensor, tokens: slice) -> torch.Tensor:
        """V of a tile, (H, b, K)."""
        return self._activated(x, tokens).to(self.product_dtype).transpose(0, 1)

    def rotated_backward(self, grad: torch.Tensor, x: torch.Tensor, tokens: slice, out: torch.Tensor) -> None:
        """Writes the gradient of a tile's projection (b, H, K) into `out`, given that of Q or K (H, b, K)."""
        grad = grad.transpose(0, 1).to(_wide(x.dtype))
        if self.cos is not None and self.sin is not None:
            grad = _rotate(grad, self.cos[tokens, None], -self.sin[tokens, None], out=torch.empty_like(grad))
        self._activated_backward(grad, x, tokens, out)

    def activated_backward(self, grad: torch.Tensor, x: torch.Tensor, tokens: slice, out: torch.Tensor) -> None:
        """Writes the gradient of a tile's value projection (b, H, K) into `out`, given that of V (H, b, K)."""
        self._activated_backward(grad.transpose(0, 1).to(_wide(x.dtype)), x, tokens, out)

    def _activated(self, x: torch.Tensor, tokens: slice) -> torch.Tensor:
        x = x[tokens].to(_wide(x.dtype))
        return F.silu(x) if self.activation == "silu" else x

    def _activated_backward(self, grad: torch.Tensor, x: torch.Tensor, tokens: slice, out: torch.Tensor) -> None:
        if self.activation == "silu":
            grad = torch.ops.aten.silu_backward(grad, x[tokens].to(grad.dtype))
        out[tokens] = grad


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """`rotate_half` of the reference, written into `out` without further temporaries."""
    left, right = x.chunk(2, dim=-1)
    out_left, out_right = out.chunk(2, dim=-1)
    torch.mul(left, cos, out=out_left).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=out_right).addcmul_(left, sin)
    return out


def _tiles(group: Group, tile: int) -> Iterator[slice]:
    for start in range(group.start, group.stop, tile):
        yield slice(start, min(start + tile, group.stop))


def _pieces(group: Group, bounds: list[int]) -> Iterator[tuple[int, slice]]:
    """Each segment of a group: its place among the group's states, and its tokens counted from the group's start."""
    for index in range(group.first, group.last):
        yield index - group.first, slice(bounds[index] - group.start, bounds[index + 1] - group.start)


def _accumulate(state: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, group: Group, bounds: list[int]):
    """Adds left^T right (both (H, b, K)) of each segment to `state` (segments, H, K, K)."""
    if group.last - group.first == 1:
        state[0] += torch.bmm(left.transpose(1, 2), right)
    elif group.length is not None:
        left, right = (x.unflatten(1, (-1, group.length)).transpose(0, 1) for x in (left, right))
        state += torch.matmul(left.transpose(2, 3), right)
    else:
        for place, piece in _pieces(group, bounds):
            state[place] += torch.bmm(left[:, piece].transpose(1, 2), right[:, piece])


def _apply(x: torch.Tensor, state: torch.Tensor, *, group: Group, bounds: list[int]) -> torch.Tensor:
    """x (H, b, K) times the state (segments, H, K, K) of each token's segment, as (H, b, K)."""
    if group.last - group.first == 1:
        return torch.bmm(x, state[0])
    if group.length is not None:
        return torch.matmul(x.unflatten(1, (-1, group.length)), state.transpose(0, 1)).flatten(1, 2)
    return torch.cat([torch.bmm(x[:, piece], state[place]) for place, piece in _pieces(group, bounds)], dim=1)


def _scales(group: Group, bounds: list[int], like: torch.Tensor, scale: float | None) -> torch.Tensor:
    """The factor of each state of a group, (segments, 1, 1, 1): 1/(N·sqrt(K)) of the segment's own N."""
    lengths = [bounds[i + 1] - bounds[i] for i in range(group.first, group.last)]
    values = [scale if scale is not None else 1.0 / (length * like.shape[-1] ** 0.5) for length in lengths]
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1, 1)


def _product_dtype(dtype: torch.dtype) -> torch.dtype:
    """bfloat16 products accumulate in float32 and cannot overflow; float16 ones could before the scale is applied."""
    return torch.float32 if dtype == torch.float16 else dtype


@torch.library.custom_op("turingvit::torch_linear_attention", mutates_args=())
def _forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    gate: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    eps: float,
    activation: str,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention output (T, H·K) and the scaled states (S, H, K, K), which the backward pass needs."""
    num_tokens, num_heads, head_dim = q.shape
    bounds = segment_bounds(cu_seqlens, num_tokens)
    tile = TILE_TOKENS.get(q.device.type, OTHER_TILE_TOKENS)
    prologue = Prologue(cos, sin, activation, _product_dtype(q.dtype))
    y = q.new_empty(num_tokens, num_heads * head_dim)
    states = q.new_empty(len(bounds) - 1, num_heads, head_dim, head_dim, dtype=prologue.product_dtype)
    for group in groups(bounds, tile):
        shape = (group.last - group.first, num_heads, head_dim, head_dim)
        state = q.new_zeros(shape, dtype=_wide(q.dtype))
        for tokens in _tiles(group, tile):
            left, right = prologue.rotated(k, tokens), prologue.activated(v, tokens)
            _accumulate(state, left, right, group=group, bounds=bounds)
        state = (state * _scales(group, bounds, state, scale)).to(prologue.product_dtype)
        states[group.first : group.last] = state
        for tokens in _tiles(group, tile):
            out = _apply(prologue.rotated(q, tokens), state, group=group, bounds=bounds).transpose(0, 1).flatten(1)
            y[tokens] = _epilogue(out, None if gate is None else gate[tokens], norm_weight, eps)
    return y, states


def _epilogue(out: torch.Tensor, gate: torch.Tensor | None, norm_weight: torch.Tensor | None, eps: float):
    """RMSNorm over all heads, then the sigmoid gate, in float32 or wider."""
    out = out.to(_wide(out.dtype))
    if norm_weight is not None:
        out = F.rms_norm(out, norm_weight.shape, norm_weight.to(out.dtype), eps)
    return out if gate is None else out * torch.sigmoid(gate.to(out.dtype))


@_forward.register_fake
def _(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, eps, activation, scale):
    num_tokens, num_heads, head_dim = q.shape
    states = (cu_seqlens.shape[0] - 1, num_heads, head_dim, head_dim)
    return q.new_empty(num_tokens, num_heads * head_dim), q.new_empty(states, dtype=_product_dtype(q.dtype))


@torch.library.custom_op("turingvit::torch_linear_attention_backward", mutates_args=())
def _backward(
    grad_y: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    states: torch.Tensor,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    gate: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    eps: float,
    activation: str,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of q, k, v and the gate in one (T, 4, H, K) buffer (T, 3, H, K without a gate), and of the norm's
    weight (H·K,), float32 or wider.

    With X the normed output, dO = r·(dX - X·mean(dX·X)) for dX = dY·sigmoid(g)·w; then dS = c·Q^T dO, dQ = dO S^T,
    dK = V dS^T, dV = K dS, and the rotation and the activation run backward.
    """
    bounds = segment_bounds(cu_seqlens, q.shape[0])
    tile = TILE_TOKENS.get(q.device.type, OTHER_TILE_TOKENS)
    prologue = Prologue(cos, sin, activation, _product_dtype(q.dtype))
    grads = q.new_empty(q.shape[0], 3 if gate is None else 4, *q.shape[1:])
    grad_q, grad_k, grad_v, *grad_gate = grads.unbind(1)
    grad_weight = q.new_zeros(q.shape[1] * q.shape[2], dtype=_wide(q.dtype))
    for group in groups(bounds, tile):
        state = states[group.first : group.last]
        grad_state = torch.zeros_like(state, dtype=_wide(q.dtype))
        for tokens in _tiles(group, tile):
            query = prologue.rotated(q, tokens)
            out = _apply(query, state, group=group, bounds=bounds).transpose(0, 1).flatten(1)
            grad_out, grad_logits = _epilogue_backward(
                grad_y[tokens], out, None if gate is None else gate[tokens], norm_weight, eps, grad_weight
            )
            if grad_logits is not None:
                grad_gate[0][tokens] = grad_logits.unflatten(1, q.shape[1:])
            grad_out = grad_out.unflatten(1, q.shape[1:]).transpose(0, 1).to(prologue.product_dtype)
            _accumulate(grad_state, query, grad_out, group=group, bounds=bounds)
            grad_query = _apply(grad_out, state.transpose(2, 3), group=group, bounds=bounds)
            prologue.rotated_backward(grad_query, q, tokens, grad_q)
        grad_state = (grad_state * _scales(group, bounds, grad_state, scale)).to(prologue.product_dtype)
        for tokens in _tiles(group, tile):
            grad_key = _apply(prologue.activated(v, tokens), grad_state.transpose(2, 3), group=group, bounds=bounds)
            grad_value = _apply(prologue.rotated(k, tokens), grad_state, group=group, bounds=bounds)
            prologue.rotated_backward(grad_key, k, tokens, grad_k)
            prologue.activated_backward(grad_value, v, tokens, grad_v)
    return grads, grad_weight


def _epilogue_backward(grad_y, out, gate, norm_weight, eps, grad_weight):
    """Gradients of the attention output and of the gate's logits; adds that of the norm's weight to `grad_weight`."""
    out = out.to(_wide(out.dtype))
    grad = grad_y.to(out.dtype)
    normed, rstd = out, None
    if norm_weight is not None:
        rstd = torch.rsqrt(out.square().mean(-1, keepdim=True) + eps)
        normed = out * rstd
    grad_logits = None
    if gate is not None:
        sigmoid = torch.sigmoid(gate.to(out.dtype))
        weighted = normed if norm_weight is None else normed * norm_weight
        grad_logits = grad * weighted * sigmoid * (1 - sigmoid)
        grad = grad * sigmoid
    if norm_weight is not None:
        grad_weight += (grad * normed).sum(0)
        grad = grad * norm_weight
        grad = rstd * (grad - normed * (grad * normed).mean(-1, keepdim=True))
    return grad, grad_logits


@_backward.register_fake
def _(grad_y, q, k, v, cu_seqlens, states, cos, sin, gate, norm_weight, eps, activation, scale):
    grads = q.new_empty(q.shape[0], 3 if gate is None else 4, *q.shape[1:])
    return grads, q.new_empty(q.shape[1] * q.shape[2], dtype=_wide(q.dtype))


def _setup_context(ctx, inputs, output):
    q, k, v, cu_seqlens, cos, sin, gate, norm_weight, ctx.eps, ctx.activation, ctx.scale = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, cu_seqlens, output[1], cos, sin, gate, norm_weight)


def _autograd_backward(ctx, grad_y, grad_states):
    if grad_y is None:
        return (None,) * 11
    q, k, v, cu_seqlens, states, cos, sin, gate, norm_weight = ctx.saved_tensors
    grads, grad_weight = _backward(
        grad_y, q, k, v, cu_seqlens, states, cos, sin, gate, norm_weight, ctx.eps, ctx.activation, ctx.scale
    )
    grad_q, grad_k, grad_v, *grad_gate = grads.unbind(1)
    grad_gate = None if gate is None else grad_gate[0].flatten(1)
    grad_weight = None if norm_weight is None else grad_weight.to(norm_weight.dtype)
    return grad_q, grad_k, grad_v, None, None, None, grad_gate, grad_weight, None, None, None


_forward.register_autograd(_autograd_backward, setup_context=_setup_context)


def linear_attention(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, eps, activation, scale):
    """Turing Linear Attention (T, H·K), tiled; the arguments are those of the reference."""
    return _forward(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, eps, activation, scale)[0]


def dense_linear_attention(q, k, v, cos, sin, gate, norm_weight, eps, activation, scale):
    """Turing Linear Attention of equal segments (B, N, H, K) as a few batched tensor operations, (B, N, H·K).

    The state's factor c goes onto K and V as its square root: both stay in float16's normal range, and their product
    does not pass its largest value, whatever the number of tokens.
    """
    wide, dtype = _wide(q.dtype), q.dtype
    root = (1.0 / (q.shape[1] * q.shape[-1] ** 0.5) if scale is None else abs(scale)) ** 0.5
    signed_root = -root if scale is not None and scale < 0 else root
    q, k, v = (x.to(wide).transpose(1, 2) for x in (q, k, v))
    if activation == "silu":
        q, k, v = F.silu(q), F.silu(k), F.silu(v)
    if cos is not None:
        q, k = (_rotate_dense(x, cos[:, None].to(wide), sin[:, None].to(wide)) for x in (q, k))
    state = torch.matmul((k * root).to(dtype).transpose(2, 3), (v * signed_root).to(dtype))
    out = torch.matmul(q.to(dtype), state).transpose(1, 2).flatten(2)
    return _epilogue(out, gate, norm_weight, eps).to(dtype)


def _rotate_dense(x, cos, sin):
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)
