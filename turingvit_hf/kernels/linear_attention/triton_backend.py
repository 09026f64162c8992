# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Turing Linear Attention on Triton kernels: what is launched in which order, and the operators that compilers see."""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from turingvit_hf.kernels.linear_attention import self_test
from turingvit_hf.kernels.linear_attention import triton_kernels as kernels
from turingvit_hf.kernels.linear_attention.launch_table import (
    REDUCE,
    REDUCE_NUMBERS,
    ROWS,
    ROWS_COLUMNS,
    SIXTEEN_BIT,
    Launch,
    amd_family,
    head_dims,
    launch,
    nvidia_family,
)
from turingvit_hf.kernels.linear_attention.reference import segment_bounds


INTERPRETED = kernels.triton.knobs.runtime.interpret


@cache
def launch_family(device: torch.device) -> str | None:
    """The family of `launch_table` that a device belongs to, or None if the kernels do not run on it."""
    if INTERPRETED:
        return "sm_80"
    if device.type != "cuda":
        return None
    if torch.version.hip:
        return amd_family(torch.cuda.get_device_properties(device).gcnArchName.split(":")[0])
    return nvidia_family(torch.cuda.get_device_capability(device)[0])


def why_not(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why the kernels do not take such tensors, or None if they do."""
    if launch_family(device) is None:
        return f"the kernels are for NVIDIA GPUs of compute capability 8.0 and newer, gfx90a and gfx942, not {device}"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the triton backend takes float32, bfloat16 and float16, not {dtype}"
    allowed = tuple(SIXTEEN_BIT["sm_80"]) if INTERPRETED else head_dims(dtype.itemsize * 8)
    if head_dim not in allowed:
        return f"the triton backend takes heads of {allowed} in {dtype}, not of {head_dim}"
    return None


@dataclass(frozen=True)
class WorkList:
    """How a pack is cut into chunks; made on the device, so that nothing waits for it.

    Attributes:
        table: (chunks, 3) int32, each chunk's segment, first token and number of tokens. The number of chunks is a
            bound known from shapes; surplus rows have no token.
        offsets: (S + 1,) int32, where each segment's chunks begin.
        lengths: (S,) float32, tokens of each segment.
    """

    table: torch.Tensor
    offsets: torch.Tensor
    lengths: torch.Tensor

    def factors(self, head_dim: int, scale: float | None) -> torch.Tensor:
        """The factor of each segment's state, (S,) float32."""
        return 1.0 / (self.lengths * head_dim**0.5) if scale is None else torch.full_like(self.lengths, scale)


SHORTEST_CHUNK = 256


def make_work_list(cu_seqlens: torch.Tensor, num_tokens: int) -> WorkList:
    """Cuts each segment into chunks whose length follows from its own: packing changes no bit of an image's result."""
    cu_seqlens = cu_seqlens.to(torch.int32)
    lengths = cu_seqlens.diff()
    if cu_seqlens.is_cuda:
        # An assertion on the device, checked without waiting for it; on a CPU the values were looked at before.
        right = (cu_seqlens[0] == 0) & (cu_seqlens[-1] == num_tokens) & (lengths > 0).all()
        torch._assert_async(right, f"cu_seqlens must rise from 0 to the {num_tokens} tokens, without empty segments")
    chunk = torch.where(lengths <= 1024, SHORTEST_CHUNK, torch.where(lengths <= 4096, 512, 1024))
    offsets = F.pad(((lengths + chunk - 1) // chunk).cumsum(0), (1, 0)).to(torch.int32)
    num_chunks = -(-num_tokens // SHORTEST_CHUNK) + lengths.shape[0]
    row = torch.arange(num_chunks, dtype=torch.int32, device=cu_seqlens.device)
    segment = torch.searchsorted(offsets[1:], row, right=True).clamp(max=lengths.shape[0] - 1)
    start = cu_seqlens[segment] + (row - offsets[segment]) * chunk[segment]
    num = torch.minimum(chunk[segment], cu_seqlens[segment + 1] - start).clamp(min=0)
    table = torch.stack((segment, torch.where(num > 0, start, 0), num), dim=1).to(torch.int32)
    return WorkList(table, offsets, lengths.to(torch.float32))


# All layers of a forward and a backward pass share one `cu_seqlens`, and so one work list.
_work_lists: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def work_list(cu_seqlens: torch.Tensor, num_tokens: int) -> WorkList:
    """`make_work_list`, kept for as long as `cu_seqlens` lives unchanged.

    While a CUDA graph is captured nothing is kept or taken: a replay must read the lengths of its own pack.
    """
    if cu_seqlens.is_inference() or (cu_seqlens.is_cuda and torch.cuda.is_current_stream_capturing()):
        return make_work_list(cu_seqlens, num_tokens)
    key = (cu_seqlens._version, num_tokens)
    kept = _work_lists.get(cu_seqlens)
    if kept is None or kept[0] != key:
        kept = (key, make_work_list(cu_seqlens, num_tokens))
        _work_lists[cu_seqlens] = kept
    return kept[1]


class _Launcher:
    """Launches kernels for one call of the operator: everything that they share is set once."""

    def __init__(self, q, work: WorkList, cos, sin, *, activation: str):
        self.device = q.device
        self.num_heads, self.head_dim = q.shape[1:]
        self.family, self.bits = launch_family(q.device), q.dtype.itemsize * 8
        self.grid = (work.table.shape[0] * self.num_heads,)
        # A kernel without RoPE never reads its tables; it is handed any pointer.
        self.tables = (q if cos is None else cos, q if sin is None else sin, work.table)
        self.constants = {"K": self.head_dim, "ROPE": cos is not None, "ACTIVATION": activation}
        self.precision = product_precision(q.dtype, amd=torch.version.hip is not None)

    def chunks(self, name: str, *arguments, **constants) -> None:
        """Runs a kernel with one program for each chunk and head."""
        bits = 16 if INTERPRETED else self.bits
        entry = launch(name, self.family, bits, self.head_dim)
        self._launch(
            name,
            self.grid,
            *arguments,
            self.num_heads,
            BT=entry.tokens,
            PRECISION=self.precision,
            **compiler_options(entry),
            **self.constants,
            **constants,
        )

    def reduce(self, partial: torch.Tensor, work: WorkList, factors: torch.Tensor, state: torch.Tensor) -> None:
        """Adds the partial states (chunks, H, K, K) of each segment in their order, times its factor, into `state`."""
        grid = (state.numel() // REDUCE_NUMBERS,)
        constants = {"K": self.head_dim, "BLOCK": REDUCE_NUMBERS}
        arguments = (partial, work.offsets, factors, state, self.num_heads)
        self._launch("reduce_state", grid, *arguments, **constants, **compiler_options(REDUCE))

    def rows(self, grad_y, y, squares, delta, inverse_rms, eps: float) -> None:
        """Fills `delta` and `inverse_rms` (T,) with what the norm's backward pass needs of all heads of a token."""
        num_tokens = y.shape[0]
        grid = (-(-num_tokens // ROWS.tokens),)
        constants = {"K": self.head_dim, "HP": padded_heads(self.num_heads), "BT": ROWS.tokens, "BE": ROWS_COLUMNS}
        arguments = (grad_y, y, squares, delta, inverse_rms, num_tokens, eps, self.num_heads)
        self._launch("backward_rows", grid, *arguments, **constants, **compiler_options(ROWS))

    def _launch(self, name: str, grid: tuple[int], *arguments, **options) -> None:
        # Triton launches on the current device, which need not be that of the tensors.
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            getattr(kernels, name)[grid](*arguments, **options)


def compiler_options(entry: Launch) -> dict[str, int | bool]:
    """What Triton's compiler is told of a launch. It may stop fusing multiplications and additions by itself."""
    return {"num_warps": entry.num_warps, "num_stages": entry.num_stages, "enable_fp_fusion": True}


def product_precision(dtype: torch.dtype, *, amd: bool) -> str:
    """How products are computed, in the words of `tl.dot`; it only matters for float32."""
    if dtype != torch.float32 or INTERPRETED or amd:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def padded_heads(num_heads: int) -> int:
    """The power of two that a block over all heads is padded to."""
    return 1 << (num_heads - 1).bit_length()


@torch.library.custom_op("turingvit::triton_linear_attention", mutates_args=())
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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The attention output (T, H·K), the scaled states (S, H, K, K) and each head's sums of squares (T, H) or (0,)."""
    num_tokens, num_heads, head_dim = q.shape
    # Checked here, where compilers do not look: they cannot trace what asks for a GPU's properties.
    if (reason := why_not(q.device, q.dtype, head_dim)) is not None:
        raise ValueError(f"{reason}; the backends 'torch' and 'reference' run anywhere")
    if not q.is_cuda:
        segment_bounds(cu_seqlens, num_tokens)  # where no GPU has to be waited for
    if q.is_cuda and not torch.cuda.is_current_stream_capturing():
        self_test.ensure_passed(linear_attention, q.device, q.dtype, head_dim)
    work = work_list(cu_seqlens, num_tokens)
    run = _Launcher(q, work, cos, sin, activation=activation)
    partial = q.new_empty(work.table.shape[0], num_heads, head_dim, head_dim, dtype=torch.float32)
    state = q.new_empty(work.lengths.shape[0], num_heads, head_dim, head_dim)
    squares = q.new_empty((0,) if norm_weight is None else (num_tokens, num_heads), dtype=torch.float32)
    y = q.new_empty(num_tokens, num_heads * head_dim)

    run.chunks("forward_state", k, v, *run.tables, partial, *k.stride()[:2], *v.stride()[:2])
    run.reduce(partial, work, work.factors(head_dim, scale), state)
    if norm_weight is not None:
        run.chunks("forward_squares", q, *run.tables, state, squares, *q.stride()[:2])
    run.chunks(
        "forward_output",
        *(q, q if gate is None else gate, *run.tables, state, squares, q if norm_weight is None else norm_weight, y),
        *(*q.stride()[:2], 0 if gate is None else gate.stride(0), eps),
        HP=padded_heads(num_heads),
        NORM=norm_weight is not None,
        GATE=gate is not None,
    )
    return y, state, squares


@_forward.register_fake
def _(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, eps, activation, scale):
    num_tokens, num_heads, head_dim = q.shape
    states = (cu_seqlens.shape[0] - 1, num_heads, head_dim, head_dim)
    squares = (0,) if norm_weight is None else (num_tokens, num_heads)
    return (
        q.new_empty(num_tokens, num_heads * head_dim),
        q.new_empty(states),
        q.new_empty(squares, dtype=torch.float32),
    )


@torch.library.custom_op("turingvit::triton_linear_attention_backward", mutates_args=())
def _backward(
    grad_y: torch.Tensor,
    y: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    state: torch.Tensor,
    squares: torch.Tensor,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    gate: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    eps: float,
    activation: str,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of q, k, v and the gate in one (T, 4, H, K) buffer (T, 3, H, K without a gate), and of the norm's
    weight (H·K,) float32, (0,) without a norm.
    """
    num_tokens, num_heads, head_dim = q.shape
    work = work_list(cu_seqlens, num_tokens)
    run = _Launcher(q, work, cos, sin, activation=activation)
    grad_y = grad_y.contiguous()
    normed = norm_weight is not None
    num_chunks = work.table.shape[0]
    grads = q.new_empty(num_tokens, 3 if gate is None else 4, num_heads, head_dim)
    delta, inverse_rms = (q.new_empty(num_tokens if normed else 0, dtype=torch.float32) for _ in range(2))
    partial = q.new_empty(num_chunks, num_heads, head_dim, head_dim, dtype=torch.float32)
    partial_weight = q.new_empty((num_chunks if normed else 0, num_heads * head_dim), dtype=torch.float32)
    grad_state = torch.empty_like(state)

    if normed:
        run.rows(grad_y, y, squares, delta, inverse_rms, eps)
    run.chunks(
        "backward_query",
        *(
            grad_y,
            q,
            q if gate is None else gate,
            *run.tables,
            state,
            delta,
            inverse_rms,
            norm_weight if normed else q,
        ),
        *(grads[:, 0], grads if gate is None else grads[:, 3], partial, partial_weight),
        *(*q.stride()[:2], 0 if gate is None else gate.stride(0), grads.stride(0)),
        NORM=normed,
        GATE=gate is not None,
    )
    # The state's gradient keeps 1/sqrt(N) of its factor: with all of it float16 would lose it among subnormal numbers.
    root = work.lengths.sqrt()
    run.reduce(partial, work, 1.0 / root, grad_state)
    run.chunks(
        "backward_key_value",
        *(k, v, *run.tables, work.factors(head_dim, scale) * root, grad_state, grads[:, 1], grads[:, 2]),
        *(*k.stride()[:2], *v.stride()[:2], grads.stride(0)),
    )
    return grads, partial_weight.sum(0) if normed else partial_weight.flatten()


@_backward.register_fake
def _(grad_y, y, q, k, v, cu_seqlens, state, squares, cos, sin, gate, norm_weight, eps, activation, scale):
    grads = q.new_empty(q.shape[0], 3 if gate is None else 4, *q.shape[1:])
    return grads, q.new_empty(0 if norm_weight is None else q.shape[1] * q.shape[2], dtype=torch.float32)


def _setup_context(ctx, inputs, output):
    q, k, v, cu_seqlens, cos, sin, gate, norm_weight, ctx.eps, ctx.activation, ctx.scale = inputs
    ctx.set_materialize_grads(False)
    # The norm's backward pass takes mean(dY · Y) for the sum over all heads that no head sees by itself.
    ctx.save_for_backward(*output, q, k, v, cu_seqlens, cos, sin, gate, norm_weight)


def _autograd_backward(ctx, grad_y, grad_states, grad_squares):
    if grad_y is None:
        return (None,) * 11
    y, state, squares, q, k, v, cu_seqlens, cos, sin, gate, norm_weight = ctx.saved_tensors
    grads, grad_weight = _backward(
        *(grad_y, y, q, k, v, cu_seqlens, state, squares, cos, sin, gate, norm_weight),
        *(ctx.eps, ctx.activation, ctx.scale),
    )
    grad_q, grad_k, grad_v, *grad_gate = grads.unbind(1)
    grad_gate = None if gate is None else grad_gate[0].flatten(1)
    grad_weight = None if norm_weight is None else grad_weight.to(norm_weight.dtype)
    return grad_q, grad_k, grad_v, None, None, None, grad_gate, grad_weight, None, None, None


_forward.register_autograd(_autograd_backward, setup_context=_setup_context)


def linear_attention(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, eps, activation, scale):
    """Turing Linear Attention (T, H·K) on the GPU; the arguments are those of the reference.

    Raises:
        ValueError: The device, the dtype or the head size is none that the kernels take.
    """
    cos, sin, norm_weight = (None if x is None else x.contiguous() for x in (cos, sin, norm_weight))
    scale = None if scale is None else float(scale)
    return _forward(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, float(eps), activation, scale)[0]
