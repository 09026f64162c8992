# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Norm and MLP give the same numbers in blocks of tokens, without gradients, as in one call, with them."""

import pytest
import torch

from tests.helpers import TOLERANCE, assert_close
from tests.towers import tiny_config
from turingvit_hf.modeling import layers
from turingvit_hf.modeling.layers import TuringViTMLP, TuringViTRMSNorm


BLOCK_TOKENS = 16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(layers, "BLOCK_TOKENS", BLOCK_TOKENS)


@pytest.fixture(params=[TuringViTMLP, lambda config: TuringViTRMSNorm(config.hidden_size)], ids=["mlp", "norm"])
def module(request):
    torch.manual_seed(0)
    return request.param(tiny_config())


@pytest.mark.parametrize("shape", [(1,), (16,), (17,), (50,), (1, 50), (3, 11), (5, 7, 3)], ids=str)
def test_blocks_change_nothing(module, shape):
    x = torch.randn(*shape, 32)
    with torch.no_grad():
        blocked = module(x)
    assert_close(blocked, module(x), TOLERANCE[torch.float32])


def test_the_mlp_holds_one_block_at_a_time():
    mlp, seen = TuringViTMLP(tiny_config()), []
    mlp.gate_proj.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    with torch.no_grad():
        mlp(torch.randn(40, 32))
    mlp(torch.randn(40, 32))
    assert seen == [14, 13, 13, 40]


def test_hooks_on_the_module_see_all_tokens(module):
    seen = []
    module.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        module(torch.randn(2, 40, 32))
    assert seen == [(2, 40, 32)]
