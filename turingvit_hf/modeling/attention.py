# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The two kinds of attention of a TuringViT: Turing Linear Attention, and softmax attention on every sixth layer.

Hidden states come in three layouts: (B, N, D), a batch of images of one size, where `cu_seqlens` is None and each row
is its own segment; (T, D) and (1, T, D), a pack, where `cu_seqlens` says where each frame begins.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import get_max_seqlen, is_flash_attention_requested

from turingvit_hf.kernels.linear_attention import turing_linear_attention
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.layers import TuringViTRMSNorm
from turingvit_hf.modeling.rope import rotate


# Rows of attention weights that the packed backward pass holds at a time.
QUERY_BLOCK = 512


class TuringViTLinearAttention(nn.Module):
    """Turing Linear Attention: linear in the number of tokens, with an RMSNorm and a sigmoid gate on its output."""

    def __init__(self, config: TuringViTConfig):
        super().__init__()
        width = config.hidden_size
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.uses_rope = config.tla_rope == "post_activation"
        self.backend: str | None = None
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.output_gate = nn.Linear(width, width, bias=False)
        self.output_norm = TuringViTRMSNorm(width, eps=config.rms_norm_eps)
        self.o_proj = nn.Linear(width, width, bias=False) if config.tla_output_projection else None

    def forward(self, hidden_states: torch.Tensor, cu_seqlens: torch.Tensor | None, rope: tuple) -> torch.Tensor:
        """The attention output, shaped like `hidden_states`.

        Args:
            hidden_states: (B, N, D), (T, D) or (1, T, D), normed.
            cu_seqlens: (F + 1,) int32 for a pack, None for (B, N, D).
            rope: Cosines and sines, (B, N, K/2) or (T, K/2) float32.
        """
        x = hidden_states if cu_seqlens is None else hidden_states.flatten(0, -2)
        cos, sin = rope if self.uses_rope else (None, None)
        q, k, v = (project(x).unflatten(-1, (self.num_heads, self.head_dim)) for project in self._projections())
        out = turing_linear_attention(
            q,
            k,
            v,
            cu_seqlens,
            cos=cos,
            sin=sin,
            gate=self.output_gate(x),
            norm_weight=self.output_norm.weight,
            eps=self.output_norm.eps,
            backend=self.backend,
        ).view(hidden_states.shape)
        return out if self.o_proj is None else self.o_proj(out)

    def _projections(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.q_proj, self.k_proj, self.v_proj


def eager_attention_forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Softmax attention written out: query, key, value (B, H, N, K) -> output (B, N, H, K), weights (B, H, N, N)."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2), weights


class TuringViTSoftmaxAttention(nn.Module):
    """Plain multi-head softmax attention inside each image, through transformers' attention interface."""

    def __init__(self, config: TuringViTConfig):
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, hidden_states: torch.Tensor, cu_seqlens: torch.Tensor | None, rope: tuple):
        """The attention output, shaped like `hidden_states`, and the attention weights where they were computed.

        Weights are (B, H, N, N) for a batch and, for a pack, a tuple with (1, H, n, n) for each frame.

        Args:
            hidden_states: (B, N, D), (T, D) or (1, T, D), normed.
            cu_seqlens: (F + 1,) int32 for a pack, None for (B, N, D).
            rope: Cosines and sines, (B, N, K/2) or (T, K/2) float32.
        """
        x = hidden_states if cu_seqlens is None else hidden_states.flatten(0, -2)[None]
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, self.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, *rope), rotate(k, *rope)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        out, weights = self._attend(q, k, v, cu_seqlens)
        return self.o_proj(out.reshape(hidden_states.shape)), weights

    def _attend(self, q, k, v, cu_seqlens):
        """Softmax attention inside each segment: (B, H, N, K) -> (B, N, H, K)."""
        if cu_seqlens is None:
            return self._interface(q, k, v)
        if is_flash_attention_requested(self.config):
            longest = get_max_seqlen(cu_seqlens, self.config)
            lengths = {"cu_seq_lens_q": cu_seqlens, "cu_seq_lens_k": cu_seqlens}
            return self._interface(q, k, v, max_length_q=longest, max_length_k=longest, **lengths)
        if torch.compiler.is_compiling():
            return packed_softmax_attention(q, k, v, cu_seqlens, self.scaling), None
        # One call for each segment: a mask over the whole pack would have the square of its tokens as entries.
        lengths = cu_seqlens.diff().tolist()
        parts = (self._interface(*segment) for segment in zip(*(x.split(lengths, 2) for x in (q, k, v)), strict=True))
        outputs, weights = zip(*parts, strict=True)
        return torch.cat(outputs, dim=1), None if weights[0] is None else weights

    def _interface(self, q, k, v, **kwargs):
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation or "eager", eager_attention_forward
        )
        return attend(self, q, k, v, None, dropout=0.0, scaling=self.scaling, is_causal=False, **kwargs)


def _attend_by_segment(q, k, v, cu_seqlens, scaling):
    """Scaled dot-product attention (1, H, T, K) -> (1, T, H, K), one call for each segment."""
    lengths = cu_seqlens.diff().tolist()
    parts = zip(*(x.split(lengths, 2) for x in (q, k, v)), strict=True)
    outputs = [nn.functional.scaled_dot_product_attention(*segment, scale=scaling) for segment in parts]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


@torch.library.custom_op("turingvit::packed_softmax_attention", mutates_args=())
def packed_softmax_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Softmax attention (1, H, T, K) -> (1, T, H, K) inside each segment, as one node for compilers and exporters.

    A compiler cannot trace a loop whose length is data; it sees this operator instead.
    """
    return _attend_by_segment(q, k, v, cu_seqlens, scaling)


@packed_softmax_attention.register_fake
def _(q, k, v, cu_seqlens, scaling):
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3])


@torch.library.custom_op("turingvit::packed_softmax_attention_backward", mutates_args=())
def _packed_softmax_attention_backward(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v (1, H, T, K); the weights are computed again, a block of queries at a time.

    With P the weights and O the output: dV = P^T dO, dS = P · (dO V^T - rowsum(dO · O)), dQ = c·dS K, dK = c·dS^T Q.
    """
    grads = tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    bounds = cu_seqlens.tolist()
    for start, stop in pairwise(bounds):
        keys, values = k[0, :, start:stop], v[0, :, start:stop]
        grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
        for first in range(start, stop, QUERY_BLOCK):
            block = slice(first, min(first + QUERY_BLOCK, stop))
            queries, grad_out = q[0, :, block], grad[0, block].transpose(0, 1)
            scores = torch.matmul(queries, keys.transpose(1, 2)) * scaling
            weights = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))
            grad_weights = torch.matmul(grad_out, values.transpose(1, 2)).to(weights.dtype)
            # rowsum(dO · O) = rowsum(dP · P), which needs no output
            grad_scores = weights * (grad_weights - (grad_weights * weights).sum(-1, keepdim=True)) * scaling
            weights, grad_scores = weights.to(q.dtype), grad_scores.to(q.dtype)
            grads[0][0, :, block] = torch.matmul(grad_scores, keys)
            grad_keys += torch.matmul(grad_scores.transpose(1, 2), queries)
            grad_values += torch.matmul(weights.transpose(1, 2), grad_out)
        grads[1][0, :, start:stop], grads[2][0, :, start:stop] = grad_keys, grad_values
    return grads[0], grads[1], grads[2]


@_packed_softmax_attention_backward.register_fake
def _(grad, q, k, v, cu_seqlens, scaling):
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))


def _setup_context(ctx, inputs, output):
    *tensors, ctx.scaling = inputs
    ctx.save_for_backward(*tensors)


def _autograd_backward(ctx, grad):
    return *_packed_softmax_attention_backward(grad.contiguous(), *ctx.saved_tensors, ctx.scaling), None, None


packed_softmax_attention.register_autograd(_autograd_backward, setup_context=_setup_context)
