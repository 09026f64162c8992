# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The forms of attention that `linear_attention.py` compares, and for each the float64 form that says if it is right.

Most compute Turing Linear Attention. The others stand beside it: softmax attention, whose place it takes, and the
kernels of other projects, which compute other linear attentions, with the same norm and gate around them.
"""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate

import torch
import torch.nn.functional as F

from turingvit_hf.kernels.linear_attention import BACKENDS
from turingvit_hf.kernels.linear_attention.reference import rotate_half


EPS = 1e-6


@dataclass(frozen=True)
class Pack:
    """One pack of images: projections (T, H, K), gate logits (T, H·K), norm weight (H·K,), tables (T, K/2)."""

    lengths: tuple[int, ...]
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    gate: torch.Tensor
    norm_weight: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    cu_seqlens: torch.Tensor

    @property
    def leaves(self) -> dict[str, torch.Tensor]:
        """What gets a gradient, by name."""
        return {name: getattr(self, name) for name in ("q", "k", "v", "gate", "norm_weight")}

    def double(self) -> "Pack":
        """The same pack in float64, as new leaves."""
        wide = {name: x.detach().double().requires_grad_() for name, x in self.leaves.items()}
        return replace(self, **wide, cos=self.cos.double(), sin=self.sin.double())


def make_pack(
    lengths: tuple[int, ...], num_heads: int, head_dim: int, *, dtype: torch.dtype, device: torch.device
) -> Pack:
    """A pack of random numbers, the same on every run."""
    generator = torch.Generator(device).manual_seed(0)
    num_tokens, width = sum(lengths), num_heads * head_dim

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    projections = [normal(num_tokens, num_heads, head_dim).to(dtype).requires_grad_() for _ in range(3)]
    gate, weight = normal(num_tokens, width).to(dtype), 1 + 0.1 * normal(width)
    angles = 3 * normal(num_tokens, head_dim // 2)
    cu_seqlens = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    leaves = (gate.requires_grad_(), weight.requires_grad_())
    return Pack(lengths, *projections, *leaves, angles.cos(), angles.sin(), cu_seqlens)


def backend(name: str) -> Callable[[Pack], torch.Tensor]:
    """Turing Linear Attention on a backend of this package."""

    def run(pack: Pack) -> torch.Tensor:
        arguments = (pack.q, pack.k, pack.v, pack.cu_seqlens, pack.cos, pack.sin, pack.gate, pack.norm_weight)
        return BACKENDS[name](*arguments, EPS, "silu", None)

    return run


def activate(q, k, v, cos, sin):
    """Q, K and V over the whole pack: SiLU, then RoPE."""
    q, k, v = F.silu(q), F.silu(k), F.silu(v)
    return rotate_half(q, cos, sin).to(v.dtype), rotate_half(k, cos, sin).to(v.dtype), v


def norm_and_gate(out, weight, gate):
    """RMSNorm over all heads (T, H, K) -> (T, H·K), then the gate."""
    return F.rms_norm(out.flatten(1), weight.shape, weight.to(out.dtype), EPS) * torch.sigmoid(gate)


@cache
def compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A function under torch.compile, for any number of tokens."""
    return torch.compile(function, dynamic=True)


def around(core: Callable[..., torch.Tensor], *, compiling: bool = False) -> Callable[[Pack], torch.Tensor]:
    """Pack-wide activation and rotation, a core (Q, K, V, pack) -> (T, H, K), pack-wide norm and gate."""

    def run(pack: Pack) -> torch.Tensor:
        before, after = (compiled(f) if compiling else f for f in (activate, norm_and_gate))
        out = core(*before(pack.q, pack.k, pack.v, pack.cos, pack.sin), pack)
        return after(out, pack.norm_weight, pack.gate)

    return run


def by_image(core: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A core for one image, head first (H, n, K), as one for a pack."""

    def run(q, k, v, pack: Pack) -> torch.Tensor:
        images = zip(*(x.transpose(0, 1).split(pack.lengths, 1) for x in (q, k, v)), strict=True)
        return torch.cat([core(*image) for image in images], dim=1).transpose(0, 1)

    return run


def state_core(q, k, v):
    """Q (K^T V) / (N·sqrt(d)); the factor is split, so that neither 16-bit operand leaves its range."""
    root = (k.shape[1] * k.shape[2] ** 0.5) ** -0.5
    return q @ ((k * root).transpose(1, 2) @ (v * root))


def softmax(attend: Callable[..., torch.Tensor]) -> Callable[[Pack], torch.Tensor]:
    """RoPE, then softmax attention: what a softmax layer computes between its projections."""

    def run(pack: Pack) -> torch.Tensor:
        q, k = (rotate_half(x, pack.cos, pack.sin).to(x.dtype) for x in (pack.q, pack.k))
        return attend(q, k, pack.v, pack).flatten(1)

    return run


def written_out_softmax(q, k, v):
    """Softmax attention by its formula."""
    return ((q @ k.transpose(1, 2)) * q.shape[2] ** -0.5).softmax(-1) @ v


def flash_core(q, k, v, pack: Pack):
    """The flash-attn package's kernel for packs."""
    from flash_attn import flash_attn_varlen_func

    bounds, longest = pack.cu_seqlens, max(pack.lengths)
    return flash_attn_varlen_func(q, k, v, bounds, bounds, longest, longest)


def torch_varlen_core(q, k, v, pack: Pack):
    """torch's flash kernel for packs."""
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest = pack.cu_seqlens, max(pack.lengths)
    return varlen_attn(q, k, v, bounds, bounds, longest, longest)


def fla_core(q, k, v, pack: Pack):
    """flash-linear-attention's chunked kernel: causal."""
    from fla.ops.linear_attn import chunk_linear_attn

    bounds = pack.cu_seqlens.long()
    return chunk_linear_attn(q[None], k[None], v[None], normalize=False, cu_seqlens=bounds)[0][0]


def causal_core(q, k, v):
    """Causal linear attention by its formula."""
    return (q @ k.transpose(1, 2)).tril() * q.shape[2] ** -0.5 @ v


def positive(core: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A core that divides by Q·mean(K), on features for which that is no number around zero."""

    def run(q, k, v, *rest):
        return core(F.elu(q) + 1, F.elu(k) + 1, v, *rest)

    return run


def flash_bla_core(q, k, v, pack: Pack):
    """flash-bidirectional-linear-attention's kernel for packs: with a denominator."""
    from flash_bla.ops.linear_attn.varlen import varlen_linear_attention

    return varlen_linear_attention(q, k, v, pack.cu_seqlens, max(pack.lengths), eps=EPS)


def denominator_core(q, k, v):
    """Linear attention with a denominator by its formula."""
    return q @ (k.transpose(1, 2) @ v / k.shape[1]) / (q @ k.mean(1)[..., None] + EPS)


@dataclass(frozen=True)
class Form:
    """A form of attention.

    Attributes:
        run: Pack to output (T, H·K).
        exact: The same function on a float64 pack, written to be read.
        needs: Package without which it is missing.
        on: Device types that it runs on.
        sixteen_bit: Whether it takes no float32.
    """

    run: Callable[[Pack], torch.Tensor]
    exact: Callable[[Pack], torch.Tensor]
    needs: str = "torch"
    on: tuple[str, ...] = ("cuda", "cpu")
    sixteen_bit: bool = False

    def why_missing(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run on a device in a dtype, or None if it can."""
        if importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed"
        if device.type not in self.on:
            return f"runs on {' and '.join(self.on)}"
        if self.sixteen_bit and dtype == torch.float32:
            return "takes 16 bits only"
        return None


EXACT_TLA, EXACT_SOFTMAX = backend("reference"), softmax(by_image(written_out_softmax))
FLASH = {"on": ("cuda",), "sixteen_bit": True}
# Interpreted kernels run on the CPU, right and slow: for tests of the benchmark itself.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
FORMS = {
    "triton": Form(backend("triton"), EXACT_TLA, needs="triton", on=("cpu",) if INTERPRETED else ("cuda",)),
    "torch": Form(backend("torch"), EXACT_TLA),
    "reference": Form(backend("reference"), EXACT_TLA),
    "eager": Form(around(by_image(state_core)), EXACT_TLA),
    "compiled": Form(around(by_image(state_core), compiling=True), EXACT_TLA, on=("cuda",)),
    "sdpa": Form(softmax(by_image(F.scaled_dot_product_attention)), EXACT_SOFTMAX),
    "torch varlen": Form(softmax(torch_varlen_core), EXACT_SOFTMAX, **FLASH),
    "flash-attn": Form(softmax(flash_core), EXACT_SOFTMAX, needs="flash_attn", **FLASH),
    "fla, causal": Form(around(fla_core), around(by_image(causal_core)), needs="fla", on=("cuda",)),
    "flash_bla, with denominator": Form(
        around(positive(flash_bla_core)), around(positive(by_image(denominator_core))), needs="flash_bla", on=("cuda",)
    ),
}
