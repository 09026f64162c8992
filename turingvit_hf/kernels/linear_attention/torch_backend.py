# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Turing Linear Attention in plain torch: no padding, small state, hand-written backward, one operator for compilers.

`torch_tiles.py` says how a pack is cut. The backward pass computes activations, rotations and the attention output
again, so that only the inputs are kept, and the (K, K) states of segments longer than a tile.
"""

import torch
import torch.nn.functional as F

from turingvit_hf.kernels.linear_attention.reference import segment_bounds
from turingvit_hf.kernels.linear_attention.torch_backward import linear_attention_backward
from turingvit_hf.kernels.linear_attention.torch_tiles import (
    Prologue,
    groups,
    kept_state,
    product_dtype,
    run_products,
    states_shape,
    tile_tokens,
    wide_dtype,
)


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
    """The attention output (T, H·K), and the states of segments longer than a tile (`states_shape`)."""
    num_tokens, num_heads, head_dim = q.shape
    bounds = segment_bounds(cu_seqlens, num_tokens)
    tile = tile_tokens(q.device)
    prologue = Prologue.of(bounds, q, cos=cos, sin=sin, activation=activation, scale=scale)
    y = q.new_empty(num_tokens, num_heads * head_dim)
    states = q.new_zeros(states_shape(q), dtype=product_dtype(q.dtype))

    def write(out: torch.Tensor, tokens: slice) -> None:
        part = None if gate is None else gate[tokens]
        y[tokens] = _epilogue(out.transpose(0, 1).flatten(1), part, norm_weight, eps)

    for group in groups(bounds, tile):
        if group.stop - group.start <= tile:
            tokens = slice(group.start, group.stop)
            operands = prologue.query(q, tokens), prologue.key(k, tokens), prologue.value(v, tokens)
            write(run_products(*operands, group.runs)[0], tokens)
            continue
        total = q.new_zeros(num_heads, head_dim, head_dim, dtype=wide_dtype(q.dtype))
        for tokens in group.tiles(tile):
            total += torch.bmm(prologue.key(k, tokens).transpose(1, 2), prologue.value(v, tokens))
        state = kept_state(states, group, head_dim).copy_(total)
        for tokens in group.tiles(tile):
            write(torch.bmm(prologue.query(q, tokens), state), tokens)
    return y, states


def _epilogue(out: torch.Tensor, gate: torch.Tensor | None, norm_weight: torch.Tensor | None, eps: float):
    """RMSNorm over all heads, then the sigmoid gate, in float32 or wider."""
    out = out.to(wide_dtype(out.dtype))
    if norm_weight is not None:
        out = F.rms_norm(out, norm_weight.shape, norm_weight.to(out.dtype), eps)
    return out if gate is None else out * torch.sigmoid(gate.to(out.dtype))


@_forward.register_fake
def _(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, eps, activation, scale):
    y = q.new_empty(q.shape[0], q.shape[1] * q.shape[2])
    return y, q.new_empty(states_shape(q), dtype=product_dtype(q.dtype))


def _setup_context(ctx, inputs, output):
    q, k, v, cu_seqlens, cos, sin, gate, norm_weight, ctx.eps, ctx.activation, ctx.scale = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, cu_seqlens, output[1], cos, sin, gate, norm_weight)


def _autograd_backward(ctx, grad_y, grad_states):
    if grad_y is None:
        return (None,) * 11
    q, k, v, cu_seqlens, states, cos, sin, gate, norm_weight = ctx.saved_tensors
    grads, grad_weight = linear_attention_backward(
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
    wide, dtype = wide_dtype(q.dtype), q.dtype
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
