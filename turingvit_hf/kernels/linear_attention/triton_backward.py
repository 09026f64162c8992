# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The backward kernels of Turing Linear Attention; one program works on one chunk of one segment and one head."""

from turingvit_hf.kernels.linear_attention.triton_blocks import (
    activate,
    activate_backward,
    chunk,
    inverse_rms,
    load_halves,
    rotated,
    rotated_backward,
    sigmoid,
    square_offsets,
    store_halves,
    tl,
    triton,
)


@triton.jit(do_not_specialize=["num_tokens"])
def backward_rows(
    p_grad,
    p_y,
    p_squares,
    p_delta,
    p_rms,
    num_tokens,
    eps,
    H,
    K: tl.constexpr,
    HP: tl.constexpr,
    BT: tl.constexpr,
    BE: tl.constexpr,
):
    """For each token the mean of dY · Y over the width, and 1/RMS: what the norm's gradient needs of all heads."""
    o_t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    m_t = o_t < num_tokens
    acc = tl.zeros((BT,), dtype=tl.float32)
    for first in range(0, H * K, BE):
        o_e = first + tl.arange(0, BE)
        mask = m_t[:, None] & (o_e[None, :] < H * K)
        o_block = o_t[:, None] * (H * K) + o_e[None, :]
        b_grad = tl.load(p_grad + o_block, mask=mask, other=0.0).to(tl.float32)
        b_y = tl.load(p_y + o_block, mask=mask, other=0.0).to(tl.float32)
        acc += tl.sum(b_grad * b_y, axis=1)
    tl.store(p_delta + o_t, acc / (H * K), mask=m_t)
    tl.store(p_rms + o_t, inverse_rms(p_squares, o_t, m_t, eps, H, K, HP), mask=m_t)


@triton.jit
def _output_backward(
    b_q,
    b_state,
    acc,
    b_grad_q,
    p_grad,
    p_gate,
    p_weight,
    p_grad_gate,
    stride_grad_y,
    stride_gt,
    stride_grad_t,
    o_t,
    m_t,
    b_rms,
    b_delta,
    COLUMNS: tl.constexpr,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Adds what some columns of a head give to the state's gradient (K, COLUMNS) and to dQ (BT, K).

    Stores the gradient of the gate. Also returns that of the norm's weight (COLUMNS,).
    """
    o_c = tl.arange(0, COLUMNS)
    b_x = tl.dot(b_q, b_state, input_precision=PRECISION)
    b_grad = tl.load(p_grad + o_t[:, None] * stride_grad_y + o_c[None, :], mask=m_t[:, None], other=0.0)
    b_grad = b_grad.to(tl.float32)
    if NORM:
        b_weight = tl.load(p_weight + o_c).to(tl.float32)
        b_x = b_x * b_rms[:, None]
    if GATE:
        b_gate = tl.load(p_gate + o_t[:, None] * stride_gt + o_c[None, :], mask=m_t[:, None], other=0.0)
        b_sigmoid = sigmoid(b_gate.to(tl.float32))
        b_grad_gate = b_grad * b_x * b_sigmoid * (1.0 - b_sigmoid)
        if NORM:
            b_grad_gate = b_grad_gate * b_weight[None, :]
        p_tile = p_grad_gate + o_t[:, None] * stride_grad_t + o_c[None, :]
        tl.store(p_tile, b_grad_gate.to(p_grad_gate.dtype.element_ty), mask=m_t[:, None])
        b_grad = b_grad * b_sigmoid
    b_grad_weight = tl.sum(b_grad * b_x, axis=0)
    if NORM:
        b_grad = b_rms[:, None] * (b_grad * b_weight[None, :] - b_x * b_delta[:, None])
    b_grad = b_grad.to(b_q.dtype)
    if b_q.shape[0] < 64:  # short tiles spill registers in the other order, long ones in this one
        acc = tl.dot(tl.trans(b_q), b_grad, acc, input_precision=PRECISION)
        b_grad_q = tl.dot(b_grad, tl.trans(b_state), b_grad_q, input_precision=PRECISION)
    else:
        b_grad_q = tl.dot(b_grad, tl.trans(b_state), b_grad_q, input_precision=PRECISION)
        acc = tl.dot(tl.trans(b_q), b_grad, acc, input_precision=PRECISION)
    return acc, b_grad_q, b_grad_weight


@triton.jit
def backward_query(
    p_grad,
    p_q,
    p_gate,
    p_cos,
    p_sin,
    p_table,
    p_state,
    p_delta,
    p_rms,
    p_weight,
    p_grad_q,
    p_grad_gate,
    p_partial,
    p_partial_weight,
    stride_qt,
    stride_qh,
    stride_gt,
    stride_grad_t,
    H,
    K: tl.constexpr,
    BT: tl.constexpr,
    ROPE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of q and of the gate, and each chunk's part of the gradients of the state and of the norm's weight.

    To need fewer registers, columns of V are taken in two halves, and q is loaded again instead of kept.
    """
    i_chunk, i_head, i_segment, start, num = chunk(p_table, H)
    p_q += start * stride_qt + i_head * stride_qh
    p_cos += start * (K // 2)
    p_sin += start * (K // 2)
    p_grad += start * (H * K) + i_head * K
    p_grad_q += start * stride_grad_t + i_head * K
    if GATE:
        p_gate += start * stride_gt + i_head * K
        p_grad_gate += start * stride_grad_t + i_head * K
    if NORM:
        p_weight += i_head * K
    o_half = tl.arange(0, K // 2)
    o_square = tl.arange(0, K)[:, None] * K + o_half[None, :]
    p_state += (i_segment * H + i_head) * (K * K)
    b_state_left = tl.load(p_state + o_square)
    b_state_right = tl.load(p_state + o_square + K // 2)
    dtype = b_state_left.dtype
    acc_left = tl.zeros((K, K // 2), dtype=tl.float32)
    acc_right = tl.zeros((K, K // 2), dtype=tl.float32)
    acc_weight_left = tl.zeros((K // 2,), dtype=tl.float32)
    acc_weight_right = tl.zeros((K // 2,), dtype=tl.float32)
    for first in range(0, num, BT):
        o_t = first + tl.arange(0, BT)
        m_t = o_t < num
        left, right, cos, sin = load_halves(p_q, p_cos, p_sin, stride_qt, o_t, m_t, K, ROPE)
        b_q = rotated(left, right, cos, sin, ROPE, ACTIVATION, BT, K).to(dtype)
        if NORM:
            b_rms = tl.load(p_rms + start + o_t, mask=m_t, other=0.0)
            b_delta = tl.load(p_delta + start + o_t, mask=m_t, other=0.0)
        else:
            b_rms, b_delta = 1.0, 0.0
        b_grad_q = tl.zeros((BT, K), dtype=tl.float32)
        acc_left, b_grad_q, b_grad_weight = _output_backward(
            b_q,
            b_state_left,
            acc_left,
            b_grad_q,
            p_grad,
            p_gate,
            p_weight,
            p_grad_gate,
            H * K,
            stride_gt,
            stride_grad_t,
            o_t,
            m_t,
            b_rms,
            b_delta,
            K // 2,
            NORM,
            GATE,
            PRECISION,
        )
        acc_weight_left += b_grad_weight
        acc_right, b_grad_q, b_grad_weight = _output_backward(
            b_q,
            b_state_right,
            acc_right,
            b_grad_q,
            p_grad + K // 2,
            p_gate + K // 2,
            p_weight + K // 2,
            p_grad_gate + K // 2,
            H * K,
            stride_gt,
            stride_grad_t,
            o_t,
            m_t,
            b_rms,
            b_delta,
            K // 2,
            NORM,
            GATE,
            PRECISION,
        )
        acc_weight_right += b_grad_weight
        left, right, cos, sin = load_halves(p_q, p_cos, p_sin, stride_qt, o_t, m_t, K, ROPE)
        left, right = rotated_backward(b_grad_q, left, right, cos, sin, ROPE, ACTIVATION, BT, K)
        store_halves(p_grad_q, stride_grad_t, o_t, m_t, left, right, K)
    if num > 0:  # nobody reads the partial states of surplus rows
        p_partial += (i_chunk * H + i_head) * (K * K)
        tl.store(p_partial + o_square, acc_left)
        tl.store(p_partial + o_square + K // 2, acc_right)
    if NORM:
        p_partial_weight += (i_chunk * H + i_head) * K
        tl.store(p_partial_weight + o_half, acc_weight_left)
        tl.store(p_partial_weight + K // 2 + o_half, acc_weight_right)


@triton.jit
def backward_key_value(
    p_k,
    p_v,
    p_cos,
    p_sin,
    p_table,
    p_factor,
    p_grad_state,
    p_grad_k,
    p_grad_v,
    stride_kt,
    stride_kh,
    stride_vt,
    stride_vh,
    stride_grad_t,
    H,
    K: tl.constexpr,
    BT: tl.constexpr,
    ROPE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of k and v, from the gradient of the state."""
    _, i_head, i_segment, start, num = chunk(p_table, H)
    p_k += start * stride_kt + i_head * stride_kh
    p_v += start * stride_vt + i_head * stride_vh
    p_cos += start * (K // 2)
    p_sin += start * (K // 2)
    p_grad_k += start * stride_grad_t + i_head * K
    p_grad_v += start * stride_grad_t + i_head * K
    o_k = tl.arange(0, K)
    p_square = p_grad_state + (i_segment * H + i_head) * (K * K)
    b_state = tl.load(p_square + square_offsets(K))
    b_state_transposed = tl.load(p_square + tl.arange(0, K)[None, :] * K + tl.arange(0, K)[:, None])
    factor = tl.load(p_factor + i_segment)
    dtype = b_state.dtype
    for first in range(0, num, BT):
        o_t = first + tl.arange(0, BT)
        m_t = o_t < num
        b_raw = tl.load(p_v + o_t[:, None] * stride_vt + o_k[None, :], mask=m_t[:, None], other=0.0).to(tl.float32)
        b_v = activate(b_raw, ACTIVATION).to(dtype)
        left, right, cos, sin = load_halves(p_k, p_cos, p_sin, stride_kt, o_t, m_t, K, ROPE)
        b_k = rotated(left, right, cos, sin, ROPE, ACTIVATION, BT, K).to(dtype)
        b_grad_v = tl.dot(b_k, b_state, input_precision=PRECISION) * factor
        b_grad_v = activate_backward(b_grad_v, b_raw, ACTIVATION)
        p_tile = p_grad_v + o_t[:, None] * stride_grad_t + o_k[None, :]
        tl.store(p_tile, b_grad_v.to(p_grad_v.dtype.element_ty), mask=m_t[:, None])
        b_grad_k = tl.dot(b_v, b_state_transposed, input_precision=PRECISION) * factor
        left, right = rotated_backward(b_grad_k, left, right, cos, sin, ROPE, ACTIVATION, BT, K)
        store_halves(p_grad_k, stride_grad_t, o_t, m_t, left, right, K)
