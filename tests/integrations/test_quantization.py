# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tower loads with quantized weights where transformers does it by itself."""

import pytest
import torch
from transformers import AutoModel, BitsAndBytesConfig, TorchAoConfig

from tests.helpers import relative_error
from tests.integrations.tiny import dense_inputs, packed_form_of, tiny_config
from turingvit_hf import TuringViTModel


def check_int8(folder, quantization_config, type_of_weights: str) -> None:
    """A tower saved in full, loaded with 8-bit weights, saved and loaded again."""
    torch.manual_seed(0)
    tower = TuringViTModel(tiny_config()).eval()
    tower.save_pretrained(folder / "full")
    quantized = AutoModel.from_pretrained(folder / "full", quantization_config=quantization_config)
    dense = dense_inputs()
    with torch.no_grad():
        expected = tower(**dense)
        found = quantized(**dense)
        packed = quantized(**packed_form_of(dense))
    linear = {name: module for name, module in quantized.named_modules() if isinstance(module, torch.nn.Linear)}
    # transformers leaves the last module alone, which in a language model makes the logits
    whole = {name for name, module in linear.items() if type(module.weight) is torch.nn.Parameter}
    assert whole == {"head.mlp.down_proj"}
    assert {type(linear[name].weight).__name__ for name in linear.keys() - whole} == {type_of_weights}
    # A number of 8 bits is off by up to 0.4 % of its row's largest, some 3 times the typical one here: about 1 %
    # a product, and 3 % after the layers and the head. Weights that were lost would be off by 100 %.
    for key in ("last_hidden_state", "pooler_output"):
        assert 0 < relative_error(found[key], expected[key]) < 0.05
    # activations are quantized by the rows of a product, and a pack has other rows together than a batch
    assert relative_error(packed.last_hidden_state, found.last_hidden_state.flatten(0, 1)) < 0.01

    quantized.save_pretrained(folder / "int8")
    reloaded = AutoModel.from_pretrained(folder / "int8")
    with torch.no_grad():
        assert torch.equal(reloaded(**dense).last_hidden_state, found.last_hidden_state)


def test_int8_weights_by_bitsandbytes(tmp_path):
    check_int8(tmp_path, BitsAndBytesConfig(load_in_8bit=True), "Int8Params")


@pytest.mark.parametrize("scheme", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_int8_weights_by_torchao(tmp_path, scheme):
    # not among the packages of the tests: transformers imports it with itself, and it writes warnings when imported
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    check_int8(tmp_path, TorchAoConfig(getattr(quantization, scheme)()), "Int8Tensor")
