# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The two attentions of a pack in ONNX's own operators: frames padded to the longest one, and unpadded again.

A graph has no loop over frames here, and no branch: F frames of at most L tokens are gathered into (F, L), attended to
as a batch, and gathered back into T tokens. Both compute in float32, whatever the dtype of the pack.
"""

from typing import Any

import torch
from onnxscript import opset20 as op


FLOAT, INT64 = 1, 7  # ONNX's numbers of element types
# added to the scores of padding; large, and finite also in half precision
MASKED = -30_000.0


def softmax_attention(q, k, v, cu_seqlens, scaling: float):
    """`turingvit::packed_softmax_attention`: (1, H, T, K) -> (1, T, H, K)."""
    frames = _Frames(cu_seqlens, _size(q, 2))
    queries, keys, values = (frames.pad(op.Squeeze(x, op.Constant(value_ints=[0])), axis=1) for x in (q, k, v))
    queries = op.Mul(queries, op.Constant(value_float=scaling))  # smaller than the scores
    scores = op.MatMul(queries, op.Transpose(keys, perm=[0, 1, 3, 2]))  # (H, F, L, L)
    bias = op.Where(frames.is_token, op.Constant(value_float=0.0), op.Constant(value_float=MASKED))  # (F, L)
    scores = op.Add(scores, op.Unsqueeze(bias, op.Constant(value_ints=[1])))
    out = frames.unpad(op.MatMul(op.Softmax(scores, axis=-1), values), axis=1)  # (H, T, K)
    return op.CastLike(op.Unsqueeze(op.Transpose(out, perm=[1, 0, 2]), op.Constant(value_ints=[0])), q)


def linear_attention(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, eps: float, activation: str, scale=None):
    """`turingvit::torch_linear_attention`: (T, H, K) -> (T, H·K), and no states, which only a backward pass wants.

        Q, K, V = rope(phi(q)), rope(phi(k)), phi(v);  S = K^T V / (N * sqrt(d));  Y = RMSNorm(Q S) * sigmoid(gate)

    Padding is zero in K and V, so it adds nothing to S.
    """
    frames = _Frames(cu_seqlens, _size(q, 0))
    queries, keys, values = (_activate(op.Cast(x, to=FLOAT), activation) for x in (q, k, v))
    if cos is not None:
        cos, sin = (op.Unsqueeze(op.Cast(table, to=FLOAT), op.Constant(value_ints=[1])) for table in (cos, sin))
        queries, keys = _rotate(queries, cos, sin), _rotate(keys, cos, sin)
    queries, keys, values = (frames.pad(x, axis=0) for x in (queries, keys, values))  # (F, L, H, K)
    token = op.Cast(op.Unsqueeze(frames.is_token, op.Constant(value_ints=[2, 3])), to=FLOAT)
    keys, values = op.Mul(keys, token), op.Mul(values, token)
    state = op.MatMul(op.Transpose(keys, perm=[0, 2, 3, 1]), op.Transpose(values, perm=[0, 2, 1, 3]))  # (F, H, K, K)
    if scale is None:
        lengths = op.Cast(op.Unsqueeze(frames.lengths, op.Constant(value_ints=[1, 2, 3])), to=FLOAT)
        state = op.Div(state, op.Mul(lengths, op.Sqrt(op.Cast(_size(q, 2), to=FLOAT))))
    else:
        state = op.Mul(state, op.Constant(value_float=scale))
    out = op.MatMul(op.Transpose(queries, perm=[0, 2, 1, 3]), state)  # (F, H, L, K)
    out = frames.unpad(op.Transpose(out, perm=[0, 2, 1, 3]), axis=0)  # (T, H, K)
    out = op.Reshape(out, op.Constant(value_ints=[0, -1]))
    if norm_weight is not None:
        mean = op.ReduceMean(op.Mul(out, out), op.Constant(value_ints=[-1]), keepdims=1)
        root = op.Sqrt(op.Add(mean, op.Constant(value_float=eps)))
        out = op.Mul(op.Div(out, root), op.Cast(norm_weight, to=FLOAT))
    if gate is not None:
        out = op.Mul(out, op.Sigmoid(op.Cast(gate, to=FLOAT)))
    return op.CastLike(out, q), op.Constant(value_floats=[0.0])


def repeat_interleave(repeats, output_size=None):
    """`aten::repeat_interleave.Tensor`: each index so often as its entry of (N,) says; torch makes a loop of it."""
    zero = op.Constant(value_ints=[0])
    ends = op.CumSum(op.Cast(repeats, to=INT64), op.Constant(value_int=0))
    total = op.ReduceSum(op.Cast(repeats, to=INT64), zero, keepdims=1)
    return _index_of_interval(_range(total), ends)


def index_add(x, dim: int, index, source, alpha: float = 1.0):
    """`aten::index_add` along the first dimension: rows of `source` (T, ...) added to those of `x` (N, ...).

    Torch translates it as `ScatterND`, which ONNX Runtime sums in parallel, and loses what two threads add at once to
    one row. Here it is a product with a matrix of zeros and ones, (N, T).
    """
    assert (dim, alpha) == (0, 1), "the tower adds along the first dimension alone"
    one = op.Constant(value_ints=[1])
    rows = op.Unsqueeze(_range(_size(x, 0)), one)  # (N, 1)
    is_row = op.Cast(op.Equal(rows, op.Cast(index, to=INT64)), to=FLOAT)  # (N, T)
    flat = op.Reshape(op.Cast(source, to=FLOAT), op.Concat(_size(source, 0), op.Constant(value_ints=[-1]), axis=0))
    total = op.Reshape(op.MatMul(is_row, flat), op.Shape(x))
    return op.Add(x, op.CastLike(total, x))


def translation_table() -> dict[Any, Any]:
    """What `torch.onnx.export` takes as `custom_translation_table`."""
    return {
        torch.ops.turingvit.packed_softmax_attention.default: softmax_attention,
        torch.ops.turingvit.torch_linear_attention.default: linear_attention,
        torch.ops.aten.repeat_interleave.Tensor: repeat_interleave,
        torch.ops.aten.index_add.default: index_add,
    }


class _Frames:
    """Which token stands where once frames are padded to the longest.

    Args:
        cu_seqlens: (F + 1,) where frames begin.
        num_tokens: (1,) T.
    """

    def __init__(self, cu_seqlens, num_tokens):
        bounds = op.Cast(cu_seqlens, to=INT64)
        zero, one = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
        starts = op.Slice(bounds, zero, op.Constant(value_ints=[-1]), zero)
        ends = op.Slice(bounds, one, op.Constant(value_ints=[2**31 - 1]), zero)
        self.lengths = op.Sub(ends, starts)
        longest = op.ReduceMax(self.lengths, keepdims=1)  # (1,)
        place = _range(longest)  # (L,)
        self.is_token = op.Less(place, op.Unsqueeze(self.lengths, one))  # (F, L)
        self.tokens = op.Where(self.is_token, op.Add(op.Unsqueeze(starts, one), place), zero)
        token = _range(num_tokens)  # (T,)
        frame = _index_of_interval(token, ends)
        self.places = op.Add(op.Mul(frame, longest), op.Sub(token, op.Gather(starts, frame)))

    def pad(self, x, axis: int):
        """(..., T, ...) -> (..., F, L, ...), in float32; the padding holds the first token of the pack."""
        return op.Gather(op.Cast(x, to=FLOAT), self.tokens, axis=axis)

    def unpad(self, x, axis: int):
        """(..., F, L, ...) -> (..., T, ...)."""
        zero = op.Constant(value_ints=[0])
        inner = op.Slice(op.Shape(x), op.Constant(value_ints=[axis + 2]), op.Constant(value_ints=[2**31 - 1]), zero)
        shape = op.Concat(op.Constant(value_ints=[*[0] * axis, -1]), inner, axis=0)
        return op.Gather(op.Reshape(x, shape), self.places, axis=axis)


def _range(length):
    """0, 1, ... of a (1,) length, int64."""
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    return op.Range(zero, op.Squeeze(length, op.Constant(value_ints=[0])), one)


def _index_of_interval(x, ends):
    """In which of the intervals that end at (N,) each entry of (M,) lies: how many have ended before it."""
    one = op.Constant(value_ints=[1])
    has_ended = op.GreaterOrEqual(op.Unsqueeze(x, one), ends)  # (M, N)
    return op.ReduceSum(op.Cast(has_ended, to=INT64), one, keepdims=0)


def _size(x, dimension: int):
    """One size of `x` as (1,) int64."""
    return op.Gather(op.Shape(x), op.Constant(value_ints=[dimension]))


def _activate(x, activation: str):
    return op.Mul(x, op.Sigmoid(x)) if activation == "silu" else x


def _rotate(x, cos, sin):
    """Pairs (i, i + K/2) of (T, H, K) turned by the angles (T, 1, K/2) of their token."""
    left, right = op.Split(x, axis=-1, num_outputs=2)
    return op.Concat(
        op.Sub(op.Mul(left, cos), op.Mul(right, sin)), op.Add(op.Mul(right, cos), op.Mul(left, sin)), axis=-1
    )
