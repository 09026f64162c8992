# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Where the tests of this folder run: on a GPU, or nowhere, with one reason.

`tests/kernels/test_rehearsal.py` runs them once more in Triton's interpreter on the CPU, with smaller packs and
without what only CUDA has, so that a mistake in the tests themselves shows before someone with a GPU runs them.
"""

import os

import pytest
import torch

from tests.helpers import cu_seqlens_of, make_tla_inputs
from turingvit_hf.kernels.linear_attention import triton_backend


REHEARSED = os.environ.get("TURINGVIT_REHEARSE_GPU_TESTS") == "1"
DEVICE = torch.device("cpu" if REHEARSED else "cuda")


def _why_skipped() -> str | None:
    if REHEARSED:
        return None
    if not torch.cuda.is_available():
        return "needs a GPU, and torch sees none here"
    return triton_backend.why_not(torch.device("cuda", torch.cuda.current_device()), torch.bfloat16, 64)


_REASON = _why_skipped()
ON_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(_REASON is not None, reason=_REASON or ""),
    # what torch warns of on a GPU is shown at the end of a run, but nobody has seen it yet to list it
    pytest.mark.filterwarnings("default"),
]
ONLY_CUDA = pytest.mark.skipif(REHEARSED, reason="only CUDA has it, and this is a rehearsal on the CPU")

# Largest relative error against float64. 16-bit products round their operands, up to eight times in a row; float32
# runs on three TF32 products with fast exponentials and divisions.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2**-9, torch.bfloat16: 2**-6}
TOWER_TOLERANCE = 1e-4


def dtypes(*names: str) -> list[torch.dtype]:
    """Dtypes to test; the interpreter's bfloat16 products are wrong, so a rehearsal leaves them out."""
    return [getattr(torch, name) for name in names if not (REHEARSED and name == "bfloat16")]


def make_inputs(lengths: tuple[int, ...], *, fused: bool = False, **options) -> dict[str, torch.Tensor | None]:
    """`make_tla_inputs` on the device, as leaves; `fused` makes projections and gate views of one tensor."""
    inputs = {
        name: x if x is None else x.detach().to(DEVICE) for name, x in make_tla_inputs(lengths, **options).items()
    }
    if fused:
        parts = [inputs["q"], inputs["k"], inputs["v"], inputs["gate"].view_as(inputs["q"])]
        q, k, v, gate = torch.stack(parts, dim=1).unbind(1)
        inputs |= {"q": q, "k": k, "v": v, "gate": gate.flatten(1)}
    leaves = ("q", "k", "v", "gate", "norm_weight")
    return {name: x if x is None else x.requires_grad_(name in leaves) for name, x in inputs.items()}


def bounds_of(lengths: tuple[int, ...]) -> torch.Tensor:
    """`cu_seqlens_of` on the device."""
    return cu_seqlens_of(lengths).to(DEVICE)
