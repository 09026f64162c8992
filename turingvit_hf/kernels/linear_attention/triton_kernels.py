# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The Triton kernels of Turing Linear Attention; README.md beside this file derives them and counts their bytes.

One program works on one chunk of one segment and one head, head fastest, so that the heads of a chunk share rotation
tables in cache. Names: `i_` index, `o_` offsets, `m_` mask, `p_` pointer, `b_` loaded block. A head's K columns are
loaded as two halves, rotated, and joined in the order 0, K/2, 1, K/2 + 1, ...: Q and K get the same order, products
contract over it, and only the rows of the state know of it.
"""

# In a try block, so that exported code can be loaded where Triton is missing.
try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("the triton backend of linear attention needs Triton, which is not installed") from error


# The interpreter has no libdevice; compiled code takes its fast division and exponential, 5 instructions, not 12.
FAST = tl.constexpr(not triton.knobs.runtime.interpret)


@triton.jit
def _sigmoid(x):
    if FAST:
        return tl.extra.libdevice.fast_dividef(1.0, 1.0 + tl.extra.libdevice.fast_expf(-x))
    else:
        return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _activate(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "silu":
        return x * _sigmoid(x)
    else:
        return x


@triton.jit
def _activate_backward(grad, x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "silu":
        s = _sigmoid(x)
        return grad * s * (1.0 + x * (1.0 - s))
    else:
        return grad


@triton.jit
def _load_halves(p_x, p_cos, p_sin, stride, o_t, m_t, K: tl.constexpr, ROPE: tl.constexpr):
    """The two halves of a tile's rows (BT, K/2) in float32, and the cosines and sines of its tokens."""
    o_half = tl.arange(0, K // 2)
    p_left = p_x + o_t[:, None] * stride + o_half[None, :]
    left = tl.load(p_left, mask=m_t[:, None], other=0.0).to(tl.float32)
    right = tl.load(p_left + K // 2, mask=m_t[:, None], other=0.0).to(tl.float32)
    if ROPE:
        o_table = o_t[:, None] * (K // 2) + o_half[None, :]
        cos = tl.load(p_cos + o_table, mask=m_t[:, None], other=0.0).to(tl.float32)
        sin = tl.load(p_sin + o_table, mask=m_t[:, None], other=0.0).to(tl.float32)
    else:
        cos, sin = left, left
    return left, right, cos, sin


@triton.jit
def _rotated(left, right, cos, sin, ROPE: tl.constexpr, ACTIVATION: tl.constexpr, BT: tl.constexpr, K: tl.constexpr):
    """Q or K of a tile, (BT, K) in joined column order, float32."""
    left, right = _activate(left, ACTIVATION), _activate(right, ACTIVATION)
    if ROPE:
        left, right = left * cos - right * sin, right * cos + left * sin
    return tl.reshape(tl.join(left, right), (BT, K))


@triton.jit
def _rotated_backward(
    grad, left, right, cos, sin, ROPE: tl.constexpr, ACTIVATION: tl.constexpr, BT: tl.constexpr, K: tl.constexpr
):
    """Gradients of the two halves of a projection, given that of Q or K (BT, K) in joined column order."""
    grad_left, grad_right = tl.split(tl.reshape(grad, (BT, K // 2, 2)))
    if ROPE:
        grad_left, grad_right = grad_left * cos + grad_right * sin, grad_right * cos - grad_left * sin
    return _activate_backward(grad_left, left, ACTIVATION), _activate_backward(grad_right, right, ACTIVATION)


@triton.jit
def _store_halves(p_x, stride, o_t, m_t, left, right, K: tl.constexpr):
    p_left = p_x + o_t[:, None] * stride + tl.arange(0, K // 2)[None, :]
    tl.store(p_left, left.to(p_x.dtype.element_ty), mask=m_t[:, None])
    tl.store(p_left + K // 2, right.to(p_x.dtype.element_ty), mask=m_t[:, None])


@triton.jit
def _chunk(p_table, H):
    """This program's chunk, its head, and the chunk's segment, first token and number of tokens."""
    i_chunk = tl.program_id(0) // H
    i_head = tl.program_id(0) % H
    i_segment = tl.load(p_table + i_chunk * 3)
    start = tl.load(p_table + i_chunk * 3 + 1).to(tl.int64)
    num = tl.load(p_table + i_chunk * 3 + 2)
    return i_chunk.to(tl.int64), i_head, i_segment.to(tl.int64), start, num


@triton.jit
def _o_square(K: tl.constexpr):
    return tl.arange(0, K)[:, None] * K + tl.arange(0, K)[None, :]


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
    i_chunk, i_head, _, start, num = _chunk(p_table, H)
    p_k += start * stride_kt + i_head * stride_kh
    p_v += start * stride_vt + i_head * stride_vh
    p_cos += start * (K // 2)
    p_sin += start * (K // 2)
    acc = tl.zeros((K, K), dtype=tl.float32)
    for first in range(0, num, BT):
        o_t = first + tl.arange(0, BT)
        m_t = o_t < num
        left, right, cos, sin = _load_halves(p_k, p_cos, p_sin, stride_kt, o_t, m_t, K, ROPE)
        b_k = _rotated(left, right, cos, sin, ROPE, ACTIVATION, BT, K)
        b_v = tl.load(p_v + o_t[:, None] * stride_vt + tl.arange(0, K)[None, :], mask=m_t[:, None], other=0.0)
        b_v = _activate(b_v.to(tl.float32), ACTIVATION)
        dtype = p_k.dtype.element_ty
        acc = tl.dot(tl.trans(b_k.to(dtype)), b_v.to(dtype), acc, input_precision=PRECISION)
    if num > 0:  # nobody reads the partial states of surplus rows
        tl.store(p_partial + (i_chunk * H + i_head) * (K * K) + _o_square(K), acc)


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
    _, i_head, i_segment, start, num = _chunk(p_table, H)
    p_q += start * stride_qt + i_head * stride_qh
    p_cos += start * (K // 2)
    p_sin += start * (K // 2)
    b_state = tl.load(p_state + (i_segment * H + i_head) * (K * K) + _o_square(K))
    for first in range(0, num, BT):
        o_t = first + tl.arange(0, BT)
        m_t = o_t < num
        left, right, cos, sin = _load_halves(p_q, p_cos, p_sin, stride_qt, o_t, m_t, K, ROPE)
        b_q = _rotated(left, right, cos, sin, ROPE, ACTIVATION, BT, K)
        b_o = tl.dot(b_q.to(b_state.dtype), b_state, input_precision=PRECISION)
        tl.store(p_squares + (start + o_t) * H + i_head, tl.sum(b_o * b_o, axis=1), mask=m_t)


@triton.jit
def _inverse_rms(p_squares, rows, m_t, eps, H, K: tl.constexpr, HP: tl.constexpr):
    """1/RMS over all heads of each row, from the heads' sums of squares: (BT,)."""
    o_h = tl.arange(0, HP)
    b_squares = tl.load(
        p_squares + rows[:, None] * H + o_h[None, :], mask=m_t[:, None] & (o_h[None, :] < H), other=0.0
    )
    return tl.rsqrt(tl.sum(b_squares, axis=1) / (H * K) + eps)


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
    _, i_head, i_segment, start, num = _chunk(p_table, H)
    p_q += start * stride_qt + i_head * stride_qh
    p_cos += start * (K // 2)
    p_sin += start * (K // 2)
    p_y += start * (H * K) + i_head * K
    if GATE:
        p_gate += start * stride_gt + i_head * K
    o_k = tl.arange(0, K)
    b_state = tl.load(p_state + (i_segment * H + i_head) * (K * K) + _o_square(K))
    if NORM:
        b_weight = tl.load(p_weight + i_head * K + o_k).to(tl.float32)
    for first in range(0, num, BT):
        o_t = first + tl.arange(0, BT)
        m_t = o_t < num
        left, right, cos, sin = _load_halves(p_q, p_cos, p_sin, stride_qt, o_t, m_t, K, ROPE)
        b_q = _rotated(left, right, cos, sin, ROPE, ACTIVATION, BT, K)
        b_y = tl.dot(b_q.to(b_state.dtype), b_state, input_precision=PRECISION)
        if NORM:
            b_y = b_y * _inverse_rms(p_squares, start + o_t, m_t, eps, H, K, HP)[:, None] * b_weight[None, :]
        if GATE:
            b_gate = tl.load(p_gate + o_t[:, None] * stride_gt + o_k[None, :], mask=m_t[:, None], other=0.0)
            b_y = b_y * _sigmoid(b_gate.to(tl.float32))
        tl.store(p_y + o_t[:, None] * (H * K) + o_k[None, :], b_y.to(p_y.dtype.element_ty), mask=m_t[:, None])


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
    tl.store(p_rms + o_t, _inverse_rms(p_squares, o_t, m_t, eps, H, K, HP), mask=m_t)


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
        b_sigmoid = _sigmoid(b_gate.to(tl.float32))
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
    i_chunk, i_head, i_segment, start, num = _chunk(p_table, H)
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
        left, right, cos, sin = _load_halves(p_q, p_cos, p_sin, stride_qt, o_t, m_t, K, ROPE)
        b_q = _rotated(left, right, cos, sin, ROPE, ACTIVATION, BT, K).to(dtype)
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
        left, right, cos, sin = _load_halves(p_q, p_cos, p_sin, stride_qt, o_t, m_t, K, ROPE)
        left, right = _rotated_backward(b_grad_q, left, right, cos, sin, ROPE, ACTIVATION, BT, K)
        _store_halves(p_grad_q, stride_grad_t, o_t, m_t, left, right, K)
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
    _, i_head, i_segment, start, num = _chunk(p_table, H)
    p_k += start * stride_kt + i_head * stride_kh
    p_v += start * stride_vt + i_head * stride_vh
    p_cos += start * (K // 2)
    p_sin += start * (K // 2)
    p_grad_k += start * stride_grad_t + i_head * K
    p_grad_v += start * stride_grad_t + i_head * K
    o_k = tl.arange(0, K)
    p_square = p_grad_state + (i_segment * H + i_head) * (K * K)
    b_state = tl.load(p_square + _o_square(K))
    b_state_transposed = tl.load(p_square + tl.arange(0, K)[None, :] * K + tl.arange(0, K)[:, None])
    factor = tl.load(p_factor + i_segment)
    dtype = b_state.dtype
    for first in range(0, num, BT):
        o_t = first + tl.arange(0, BT)
        m_t = o_t < num
        b_raw = tl.load(p_v + o_t[:, None] * stride_vt + o_k[None, :], mask=m_t[:, None], other=0.0).to(tl.float32)
        b_v = _activate(b_raw, ACTIVATION).to(dtype)
        left, right, cos, sin = _load_halves(p_k, p_cos, p_sin, stride_kt, o_t, m_t, K, ROPE)
        b_k = _rotated(left, right, cos, sin, ROPE, ACTIVATION, BT, K).to(dtype)
        b_grad_v = tl.dot(b_k, b_state, input_precision=PRECISION) * factor
        b_grad_v = _activate_backward(b_grad_v, b_raw, ACTIVATION)
        p_tile = p_grad_v + o_t[:, None] * stride_grad_t + o_k[None, :]
        tl.store(p_tile, b_grad_v.to(p_grad_v.dtype.element_ty), mask=m_t[:, None])
        b_grad_k = tl.dot(b_v, b_state_transposed, input_precision=PRECISION) * factor
        left, right = _rotated_backward(b_grad_k, left, right, cos, sin, ROPE, ACTIVATION, BT, K)
        _store_halves(p_grad_k, stride_grad_t, o_t, m_t, left, right, K)
