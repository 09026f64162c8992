# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the Triton kernels of Turing Linear Attention share: activation, rotation, loads, stores and offsets.

Names here and in the kernels: `i_` index, `o_` offsets, `m_` mask, `p_` pointer, `b_` loaded block. A head's K columns
are loaded as two halves, rotated, and joined in the order 0, K/2, 1, K/2 + 1, ...: Q and K get the same order,
products contract over it, and only the rows of the state know of it.
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
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    if FAST:
        return tl.extra.libdevice.fast_dividef(1.0, 1.0 + tl.extra.libdevice.fast_expf(-x))
    else:
        return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """phi(x): SiLU, or x itself."""
    if ACTIVATION == "silu":
        return x * sigmoid(x)
    else:
        return x


@triton.jit
def activate_backward(grad, x, ACTIVATION: tl.constexpr):
    """The gradient of x, given that of phi(x)."""
    if ACTIVATION == "silu":
        s = sigmoid(x)
        return grad * s * (1.0 + x * (1.0 - s))
    else:
        return grad


@triton.jit
def load_halves(p_x, p_cos, p_sin, stride, o_t, m_t, K: tl.constexpr, ROPE: tl.constexpr):
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
def rotated(left, right, cos, sin, ROPE: tl.constexpr, ACTIVATION: tl.constexpr, BT: tl.constexpr, K: tl.constexpr):
    """Q or K of a tile, (BT, K) in joined column order, float32."""
    left, right = activate(left, ACTIVATION), activate(right, ACTIVATION)
    if ROPE:
        left, right = left * cos - right * sin, right * cos + left * sin
    return tl.reshape(tl.join(left, right), (BT, K))


@triton.jit
def rotated_backward(
    grad, left, right, cos, sin, ROPE: tl.constexpr, ACTIVATION: tl.constexpr, BT: tl.constexpr, K: tl.constexpr
):
    """Gradients of the two halves of a projection, given that of Q or K (BT, K) in joined column order."""
    grad_left, grad_right = tl.split(tl.reshape(grad, (BT, K // 2, 2)))
    if ROPE:
        grad_left, grad_right = grad_left * cos + grad_right * sin, grad_right * cos - grad_left * sin
    return activate_backward(grad_left, left, ACTIVATION), activate_backward(grad_right, right, ACTIVATION)


@triton.jit
def store_halves(p_x, stride, o_t, m_t, left, right, K: tl.constexpr):
    """Writes the two halves of a tile's rows (BT, K/2)."""
    p_left = p_x + o_t[:, None] * stride + tl.arange(0, K // 2)[None, :]
    tl.store(p_left, left.to(p_x.dtype.element_ty), mask=m_t[:, None])
    tl.store(p_left + K // 2, right.to(p_x.dtype.element_ty), mask=m_t[:, None])


@triton.jit
def chunk(p_table, H):
    """This program's chunk, its head, and the chunk's segment, first token and number of tokens."""
    i_chunk = tl.program_id(0) // H
    i_head = tl.program_id(0) % H
    i_segment = tl.load(p_table + i_chunk * 3)
    start = tl.load(p_table + i_chunk * 3 + 1).to(tl.int64)
    num = tl.load(p_table + i_chunk * 3 + 2)
    return i_chunk.to(tl.int64), i_head, i_segment.to(tl.int64), start, num


@triton.jit
def square_offsets(K: tl.constexpr):
    """Offsets of the elements of a (K, K) matrix."""
    return tl.arange(0, K)[:, None] * K + tl.arange(0, K)[None, :]


@triton.jit
def inverse_rms(p_squares, rows, m_t, eps, H, K: tl.constexpr, HP: tl.constexpr):
    """1/RMS over all heads of each row, from the heads' sums of squares: (BT,)."""
    o_h = tl.arange(0, HP)
    b_squares = tl.load(
        p_squares + rows[:, None] * H + o_h[None, :], mask=m_t[:, None] & (o_h[None, :] < H), other=0.0
    )
    return tl.rsqrt(tl.sum(b_squares, axis=1) / (H * K) + eps)
