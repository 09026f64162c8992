# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tower loads with quantized weights where transformers does it by itself."""

import pytest
import torch
from transformers import AutoModel, TorchAoConfig

from tests.helpers import relative_error
from tests.integrations.tiny import dense_inputs, packed_form_of, tiny_config
from turingvit_hf import TuringViTModel


quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")


@pytest.mark.parametrize("scheme", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_int8_weights_by_torchao(tmp_path, scheme):
    torch.manual_seed(0)
    tower = TuringViTModel(tiny_config()).eval()
    tower.save_pretrained(tmp_path / "full")
    config = TorchAoConfig(getattr(quantization, scheme)())
    quantized = AutoModel.from_pretrained(tmp_path / "full", quantization_config=config)
    dense = dense_inputs()
    with torch.no_grad():
        expected = tower(**dense)
        found = quantized(**dense)
        packed = quantized(**packed_form_of(dense))
    linear = {name: module for name, module in quantized.named_modules() if isinstance(module, torch.nn.Linear)}
    # transformers leaves the last module alone, which in a language model makes the logits
    whole = {name for name, module in linear.items() if type(module.weight) is torch.nn.Parameter}
    assert whole == {"head.mlp.down_proj"}
    assert {type(linear[name].weight).__name__ for name in linear.keys() - whole} == {"Int8Tensor"}
    # a weight of 8 bits is off by up to 0.4 % of its row's largest; some 1 % came out of three layers
    for key in ("last_hidden_state", "pooler_output"):
        assert 0 < relative_error(found[key], expected[key]) < 0.03
    torch.testing.assert_close(packed.last_hidden_state, found.last_hidden_state.flatten(0, 1))

    quantized.save_pretrained(tmp_path / "int8")
    reloaded = AutoModel.from_pretrained(tmp_path / "int8")
    with torch.no_grad():
        assert torch.equal(reloaded(**dense).last_hidden_state, found.last_hidden_state)
