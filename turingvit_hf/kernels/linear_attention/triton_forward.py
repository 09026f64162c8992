# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The forward kernels of Turing Linear Attention; one program works on one chunk of one segment and one head."""

from turingvit_hf.kernels.linear_attention.triton_blocks import (
    activate,
    chunk,
    inverse_rms,
    load_halves,
    rotated,
    sigmoid,
    square_offsets,
    tl,
    triton,
)


@triton.jit
def forward_state(
    p_k,
    p_v,
    p_cos,
    p_sin,
    p_table,
    p_partial,
    stride_kt,
    stride_kh,
    stride_vt,
    stride_vh,
    H,
    K: tl.constexpr,
    BT: tl.constexpr,
    ROPE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Partial state of each chunk and head: sum of K^T V, (K, K) float32."""
    i_chunk, i_head, _, start, num = chunk(p_table, H)
    p_k += start * stride_kt + i_head * stride_kh
    p_v += start * stride_vt + i_head * stride_vh
    p_cos += start * (K // 2)
    p_sin += start * (K // 2)
    acc = tl.zeros((K, K), dtype=tl.float32)
    for first in range(0, num, BT):
        o_t = first + tl.arange(0, BT)
        m_t = o_t < num
        left, right, cos, sin = load_halves(p_k, p_cos, p_sin, stride_kt, o_t, m_t, K, ROPE)
        b_k = rotated(left, right, cos, sin, ROPE, ACTIVATION, BT, K)
        b_v = tl.load(p_v + o_t[:, None] * stride_vt + tl.arange(0, K)[None, :], mask=m_t[:, None], other=0.0)
        b_v = activate(b_v.to(tl.float32), ACTIVATION)
        dtype = p_k.dtype.element_ty
        acc = tl.dot(tl.trans(b_k.to(dtype)), b_v.to(dtype), acc, input_precision=PRECISION)
    if num > 0:  # nobody reads the partial states of surplus rows
        tl.store(p_partial + (i_chunk * H + i_head) * (K * K) + square_offsets(K), acc)


@triton.jit
def reduce_state(p_partial, p_offset, p_factor, p_state, H, K: tl.constexpr, BLOCK: tl.constexpr):
    """State of each segment and head: its chunks' partial states added in their order, times the segment's factor."""
    num_blocks = (K * K) // BLOCK
    i_block = tl.program_id(0) % num_blocks
    i_row = tl.program_id(0) // num_blocks
    i_segment, i_head = (i_row // H).to(tl.int64), i_row % H
    o_block = i_block * BLOCK + tl.arange(0, BLOCK)
    first = tl.load(p_offset + i_segment)
    last = tl.load(p_offset + i_segment + 1)
    acc = tl.zeros((BLOCK,), dtype=tl.float32)
    p_block = p_partial + (first.to(tl.int64) * H + i_head) * (K * K) + o_block
    for _ in range(first, last):
        acc += tl.load(p_block)
        p_block += H * K * K
    acc *= tl.load(p_factor + i_segment)
    tl.store(p_state + (i_segment * H + i_head) * (K * K) + o_block, acc.to(p_state.dtype.element_ty))


@triton.jit
def forward_squares(
    p_q,
    p_cos,
    p_sin,
    p_table,
    p_state,
    p_squares,
    stride_qt,
    stride_qh,
    H,
    K: tl.constexpr,
    BT: tl.constexpr,
    ROPE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sum of squares of each head's attention output, (T, H) float32: what the norm over all heads waits for."""
    _, i_head, i_segment, start, num = chunk(p_table, H)
    p_q += start * stride_qt + i_head * stride_qh
    p_cos += start * (K // 2)
    p_sin += start * (K // 2)
    b_state = tl.load(p_state + (i_segment * H + i_head) * (K * K) + square_offsets(K))
    for first in range(0, num, BT):
        o_t = first + tl.arange(0, BT)
        m_t = o_t < num
        left, right, cos, sin = load_halves(p_q, p_cos, p_sin, stride_qt, o_t, m_t, K, ROPE)
        b_q = rotated(left, right, cos, sin, ROPE, ACTIVATION, BT, K)
        b_o = tl.dot(b_q.to(b_state.dtype), b_state, input_precision=PRECISION)
        tl.store(p_squares + (start + o_t) * H + i_head, tl.sum(b_o * b_o, axis=1), mask=m_t)


@triton.jit
def forward_output(
    p_q,
    p_gate,
    p_cos,
    p_sin,
    p_table,
    p_state,
    p_squares,
    p_weight,
    p_y,
    stride_qt,
    stride_qh,
    stride_gt,
    eps,
    H,
    K: tl.constexpr,
    HP: tl.constexpr,
    BT: tl.constexpr,
    ROPE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The attention output of each chunk and head, normed over all heads and gated, (T, H·K)."""
    _, i_head, i_segment, start, num = chunk(p_table, H)
    p_q += start * stride_qt + i_head * stride_qh
    p_cos += start * (K // 2)
    p_sin += start * (K // 2)
    p_y += start * (H * K) + i_head * K
    if GATE:
        p_gate += start * stride_gt + i_head * K
    o_k = tl.arange(0, K)
    b_state = tl.load(p_state + (i_segment * H + i_head) * (K * K) + square_offsets(K))
    if NORM:
        b_weight = tl.load(p_weight + i_head * K + o_k).to(tl.float32)
    for first in range(0, num, BT):
        o_t = first + tl.arange(0, BT)
        m_t = o_t < num
        left, right, cos, sin = load_halves(p_q, p_cos, p_sin, stride_qt, o_t, m_t, K, ROPE)
        b_q = rotated(left, right, cos, sin, ROPE, ACTIVATION, BT, K)
        b_y = tl.dot(b_q.to(b_state.dtype), b_state, input_precision=PRECISION)
        if NORM:
            b_y = b_y * inverse_rms(p_squares, start + o_t, m_t, eps, H, K, HP)[:, None] * b_weight[None, :]
        if GATE:
            b_gate = tl.load(p_gate + o_t[:, None] * stride_gt + o_k[None, :], mask=m_t[:, None], other=0.0)
            b_y = b_y * sigmoid(b_gate.to(tl.float32))
        tl.store(p_y + o_t[:, None] * (H * K) + o_k[None, :], b_y.to(p_y.dtype.element_ty), mask=m_t[:, None])
