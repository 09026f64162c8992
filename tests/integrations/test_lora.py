# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""LoRA adapters of PEFT on every projection of the tower."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tests.integrations.tiny import dense_inputs, packed_inputs, tiny_config
from turingvit_hf import TuringViTForImageClassification


# PEFT asks models by the name that transformers 5 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers")

TARGETS = ["q_proj", "k_proj", "v_proj", "output_gate", "up_proj", "gate_proj", "down_proj", "o_proj"]


@pytest.fixture
def classifier() -> TuringViTForImageClassification:
    torch.manual_seed(0)
    return TuringViTForImageClassification(tiny_config(num_labels=3, pos_embed_rescale=None))


@pytest.fixture
def adapted(classifier) -> PeftModel:
    config = LoraConfig(r=2, target_modules=TARGETS, modules_to_save=["classifier"], init_lora_weights=False)
    return get_peft_model(classifier, config)


FORMS = pytest.mark.parametrize("inputs_of", [dense_inputs, packed_inputs], ids=["dense", "packed"])


def test_targets_name_every_linear_layer_but_the_patch_embedding(classifier):
    linear = {name for name, module in classifier.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {name for name in linear if name.split(".")[-1] not in TARGETS} == {"turingvit.patch_embed", "classifier"}
    assert set(TARGETS) == {name.split(".")[-1] for name in linear} - {"patch_embed", "classifier"}


@FORMS
def test_every_adapter_gets_a_gradient_and_nothing_else_does(adapted, inputs_of):
    inputs = inputs_of()
    num_images = len(inputs.get("image_grid_thw", inputs["pixel_values"]))
    adapted(**inputs, labels=torch.arange(num_images)).loss.backward()
    trained = {name: p for name, p in adapted.named_parameters() if "lora_" in name or "modules_to_save" in name}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.any()] == []
    assert [name for name, p in adapted.named_parameters() if p.grad is not None and name not in trained] == []


@FORMS
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_no_gradient(adapted, inputs_of, reentrant):
    inputs = inputs_of()

    def gradients():
        adapted.zero_grad()
        logits = adapted(**inputs).logits
        logits.square().sum().backward()
        return {name: p.grad.clone() for name, p in adapted.named_parameters() if p.requires_grad}

    plain = gradients()
    # with every parameter of the tower frozen, reentrant checkpointing needs its input to want a gradient
    adapted.enable_input_require_grads()
    adapted.base_model.model.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": reentrant}
    )
    checkpointed = gradients()
    assert plain.keys() == checkpointed.keys()
    for name in plain:
        torch.testing.assert_close(checkpointed[name], plain[name])


def test_adapter_comes_back_and_merges(adapted, tmp_path):
    inputs = packed_inputs()
    adapted.eval()
    with torch.no_grad():
        expected = adapted(**inputs).logits
    adapted.save_pretrained(tmp_path)

    torch.manual_seed(0)
    base = TuringViTForImageClassification(tiny_config(num_labels=3, pos_embed_rescale=None)).eval()
    with torch.no_grad():
        assert not torch.allclose(base(**inputs).logits, expected)
    reloaded = PeftModel.from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(reloaded(**inputs).logits, expected)
        merged = reloaded.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, expected)
    assert type(merged) is TuringViTForImageClassification
    assert not [name for name in merged.state_dict() if "lora" in name]
