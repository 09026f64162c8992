# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The backward pass of the torch backend: activations, rotations and the attention output are computed again."""

import torch

from turingvit_hf.kernels.linear_attention.reference import segment_bounds
from turingvit_hf.kernels.linear_attention.torch_tiles import (
    Prologue,
    groups,
    kept_state,
    product_dtype,
    run_products,
    run_products_backward,
    tile_tokens,
    wide_dtype,
)


@torch.library.custom_op("turingvit::torch_linear_attention_backward", mutates_args=())
def linear_attention_backward(
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

    With X the normed output, dO = r·(dX - X·mean(dX·X)) for dX = dY·sigmoid(g)·w; then the products, the rotation and
    the activation run backward. `states` holds those of the segments longer than a tile, in their order.
    """
    bounds = segment_bounds(cu_seqlens, q.shape[0])
    tile = tile_tokens(q.device)
    prologue = Prologue.of(bounds, q, cos=cos, sin=sin, activation=activation, scale=scale)
    grads = q.new_empty(q.shape[0], 3 if gate is None else 4, *q.shape[1:])
    grad_q, grad_k, grad_v, *grad_gate = grads.unbind(1)
    grad_weight = q.new_zeros(q.shape[1] * q.shape[2], dtype=wide_dtype(q.dtype))

    def output_backward(out: torch.Tensor, tokens: slice) -> torch.Tensor:
        """The gradient of a tile's attention output (H, b, K); keeps those of the gate and of the norm's weight."""
        logits = None if gate is None else (gate[tokens], grad_gate[0][tokens].flatten(1))
        out = out.transpose(0, 1).flatten(1)
        grad_out = _epilogue_backward(grad_y[tokens], out, logits, norm_weight, eps, grad_weight)
        return grad_out.unflatten(1, q.shape[1:]).transpose(0, 1).to(product_dtype(q.dtype))

    for group in groups(bounds, tile):
        if group.stop - group.start <= tile:
            tokens = slice(group.start, group.stop)
            operands = prologue.query(q, tokens), prologue.key(k, tokens), prologue.value(v, tokens)
            out, between = run_products(*operands, group.runs)
            grad_out = output_backward(out, tokens)
            grad_query, grad_key, grad_value = run_products_backward(grad_out, *operands, group.runs, between)
            prologue.query_backward(grad_query, q, tokens, grad_q)
            prologue.key_backward(grad_key, k, tokens, grad_k)
            prologue.value_backward(grad_value, v, tokens, grad_v)
            continue
        state = kept_state(states, group, q.shape[-1])
        grad_state = torch.zeros_like(state, dtype=wide_dtype(q.dtype))
        for tokens in group.tiles(tile):
            query = prologue.query(q, tokens)
            grad_out = output_backward(torch.bmm(query, state), tokens)
            grad_state += torch.bmm(query.transpose(1, 2), grad_out)
            prologue.query_backward(torch.bmm(grad_out, state.transpose(1, 2)), q, tokens, grad_q)
        grad_state = grad_state.to(product_dtype(q.dtype))
        for tokens in group.tiles(tile):
            grad_key = torch.bmm(prologue.value(v, tokens), grad_state.transpose(1, 2))
            prologue.key_backward(grad_key, k, tokens, grad_k)
            grad_value = torch.bmm(prologue.key(k, tokens), grad_state)
            prologue.value_backward(grad_value, v, tokens, grad_v)
    return grads, grad_weight


def _epilogue_backward(grad_y, out, logits, norm_weight, eps, grad_weight):
    """The gradient of a tile's attention output (b, H·K), which is overwritten.

    `logits` are those of the gate and where their gradient goes; that of the norm's weight is added to `grad_weight`.
    """
    out = out.to(wide_dtype(out.dtype))
    grad = grad_y.to(out.dtype)
    rstd = None
    if norm_weight is not None:
        norm_weight = norm_weight.to(out.dtype)
        rstd = torch.rsqrt(out.square().mean(-1, keepdim=True) + eps)
        out = out.mul_(rstd)
    product = grad * out
    if logits is not None:
        sigmoid = torch.sigmoid(logits[0].to(out.dtype))
        weighted = product if norm_weight is None else product * norm_weight
        torch.ops.aten.sigmoid_backward.grad_input(weighted, sigmoid, grad_input=logits[1])
        product = product.mul_(sigmoid)
        grad = sigmoid.mul_(grad)
    if norm_weight is not None:
        grad_weight += product.sum(0)
        mean = (product @ norm_weight)[:, None] / out.shape[-1]
        grad = (grad * norm_weight).addcmul_(out, mean, value=-1).mul_(rstd)
    return grad


@linear_attention_backward.register_fake
def _(grad_y, q, k, v, cu_seqlens, states, cos, sin, gate, norm_weight, eps, activation, scale):
    grads = q.new_empty(q.shape[0], 3 if gate is None else 4, *q.shape[1:])
    return grads, q.new_empty(q.shape[1] * q.shape[2], dtype=wide_dtype(q.dtype))
