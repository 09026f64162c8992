# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the other tests of this folder rely on: the interpreter runs, and its bfloat16 is a GPU's."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from tests.kernels.interpreted import bfloat16
from turingvit_hf.kernels.linear_attention import triton_backend


@triton.jit
def _product(p_x, p_y, p_out, SIZE: tl.constexpr):
    o = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(p_out + o, tl.dot(tl.load(p_x + o), tl.load(p_y + o)))


@triton.jit
def _round(p_x, p_out, SIZE: tl.constexpr):
    o = tl.arange(0, SIZE)
    tl.store(p_out + o, tl.load(p_x + o).to(tl.bfloat16))


def product_of_ones():
    ones, out = torch.ones(32, 32, dtype=torch.bfloat16), torch.empty(32, 32)
    _product[(1,)](ones, ones, out, SIZE=32)
    return out


def rounded(x):
    out = torch.empty(len(x), dtype=torch.bfloat16)
    _round[(1,)](x, out, SIZE=len(x))
    return out


@pytest.fixture
def plain_interpreter():
    bfloat16.remove()
    yield
    bfloat16.install()


def test_kernels_are_interpreted():
    assert triton_backend.INTERPRETED
    assert triton_backend.kernels.FAST.value is False


def test_products_of_bfloat16_are_right():
    assert torch.equal(product_of_ones(), torch.full((32, 32), 32.0))


def test_casts_to_bfloat16_round_as_torch_does():
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    x[:5] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0])
    assert torch.equal(rounded(x).view(torch.int16)[1:], x.to(torch.bfloat16).view(torch.int16)[1:])
    assert rounded(x)[0].isnan()
    halfway = torch.from_numpy(np.array([0x3F808000, 0x3F818000, 0x7F7FFFFF], np.uint32).view(np.float32))
    assert torch.equal(rounded(halfway.repeat(2)[:4])[:3], halfway.to(torch.bfloat16))


@pytest.mark.usefixtures("plain_interpreter")
def test_without_our_replacement_products_of_bfloat16_are_still_wrong():
    # once this fails, upstream has mended it for this version and later ones
    assert not torch.equal(product_of_ones(), torch.full((32, 32), 32.0))


@pytest.mark.usefixtures("plain_interpreter")
def test_without_our_replacement_casts_to_bfloat16_are_still_wrong():
    x = torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(rounded(x), x.to(torch.bfloat16))
