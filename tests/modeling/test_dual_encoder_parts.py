# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A dual encoder made of a pretrained tower and a pretrained text encoder, and a text encoder that stays as it is."""

import logging

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Qwen3Config,
    Qwen3Model,
    SiglipConfig,
    SiglipModel,
    SiglipTextModel,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
)

from tests.towers import make_image, make_model, pack, tiny_config
from turingvit_hf import (
    TuringViTDualEncoderModel,
    TuringViTForImageClassification,
    TuringViTForMaskedImageModeling,
    TuringViTModel,
)


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = SMALL | {"vocab_size": 99}
ENDS = {"bos_token_id": 97, "eos_token_id": 98}
VISION = SMALL | {"image_size": 16, "patch_size": 8}

# what is saved, what comes out of it, how it is pooled
TEXT_MODELS = {
    "bert": (lambda: BertModel(BertConfig(**TEXT)), BertModel, "pooler"),
    "bert, mean": (lambda: BertModel(BertConfig(**TEXT)), BertModel, "mean"),
    "bert under a head": (lambda: BertForMaskedLM(BertConfig(**TEXT)), BertModel, "mean"),
    "clip's text": (lambda: CLIPTextModel(CLIPTextConfig(**TEXT, **ENDS)), CLIPTextModel, "pooler"),
    "clip": (
        lambda: CLIPModel(CLIPConfig(text_config=TEXT | ENDS, vision_config=VISION)),
        CLIPTextModel,
        "pooler",
    ),
    "siglip": (
        lambda: SiglipModel(SiglipConfig(text_config=TEXT | ENDS, vision_config=VISION)),
        SiglipTextModel,
        "pooler",
    ),
    "llama under a head": (lambda: LlamaForCausalLM(LlamaConfig(**TEXT)), LlamaModel, "last_token"),
    "qwen3": (lambda: Qwen3Model(Qwen3Config(**TEXT, head_dim=16, num_key_value_heads=2)), Qwen3Model, "last_token"),
}


def make_text(name="llama under a head"):
    torch.manual_seed(1)
    return TEXT_MODELS[name][0]().eval()


def make_inputs():
    images = pack([make_image(2, 3), make_image(4, 1)])
    return images | {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 98]])}


def make_dual(vision=None, text=None, **values):
    vision = make_model() if vision is None else vision
    text = make_text() if text is None else text
    return TuringViTDualEncoderModel.from_vision_text_pretrained(
        vision, text, **{"text_pooling": "last_token", "projection_dim": 8} | values
    )


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_text_encoders_keep_their_weights(name, tmp_path):
    _, expected_class, pooling = TEXT_MODELS[name]
    text = make_text(name)
    text.save_pretrained(tmp_path / "text")
    model = make_dual(text=tmp_path / "text", text_pooling=pooling)
    assert type(model.text_model) is expected_class
    assert not model.training
    state = text.state_dict()
    for key, value in model.text_model.state_dict().items():
        assert any(torch.equal(value, other) for theirs, other in state.items() if theirs.endswith(key)), key
    model.save_pretrained(tmp_path / "dual")
    again = TuringViTDualEncoderModel.from_pretrained(tmp_path / "dual").eval()
    assert model.state_dict().keys() == again.state_dict().keys()
    inputs = make_inputs()
    assert torch.equal(again(**inputs).logits_per_image, model(**inputs).logits_per_image)


@pytest.mark.parametrize("name", ["bert, mean", "bert under a head"])
def test_a_pooler_that_nobody_reads_is_left_out(name, tmp_path):
    text = make_text(name)
    text.save_pretrained(tmp_path)
    for given in (tmp_path, text):
        model = make_dual(text=given, text_pooling="mean")
        model(**make_inputs(), return_loss=True).loss.backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("saved", [True, False], ids=["folder", "model"])
@pytest.mark.parametrize("kind", [TuringViTModel, TuringViTForImageClassification])
def test_a_tower_with_a_head_is_taken_as_it_is(kind, saved, tmp_path, caplog):
    model = make_model(kind, tiny_config(num_labels=5))
    model.save_pretrained(tmp_path)
    tower = make_dual(str(tmp_path) if saved else model).turingvit
    expected = model.base_model.state_dict()
    assert tower.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in tower.state_dict().items())
    assert (tower is model.base_model) == (not saved)
    assert not [record for record in caplog.records if record.name.startswith("turingvit_hf")]


@pytest.mark.parametrize("saved", [True, False], ids=["folder", "model"])
@pytest.mark.parametrize("kind", [TuringViTModel, TuringViTForMaskedImageModeling])
def test_a_tower_without_a_head_gets_a_new_one_and_says_so(kind, saved, tmp_path, caplog):
    model = make_model(kind, tiny_config(vision_use_head=False))
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="turingvit_hf"):
        dual = make_dual(tmp_path if saved else model)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("turingvit_hf")]
    owner = str(tmp_path) if saved else f"this {kind.__name__}"
    assert messages == [f"{owner} has no pooling head: a new one with random weights is made"]
    assert dual.config.vision_config.vision_use_head
    assert not model.config.vision_use_head
    expected = model.base_model.state_dict()
    for key, value in dual.turingvit.state_dict().items():
        assert key.startswith("head.") or torch.equal(value, expected[key]), key
    assert 0 < dual.turingvit.head.query.abs().mean() < 0.1


def test_the_whole_model_takes_the_dtype_of_the_tower(tmp_path):
    make_text().save_pretrained(tmp_path)
    model = make_dual(make_model().double(), tmp_path, num_superclasses=7)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert model(**make_inputs()).logits_per_image.dtype == torch.float64


def test_a_text_encoder_may_be_in_a_smaller_dtype():
    model = make_dual(text=make_text().bfloat16())
    assert model.text_model.dtype == torch.bfloat16
    assert model(**make_inputs()).text_embeds.dtype == torch.float32


def test_configuration_values_are_handed_on():
    model = make_dual(num_superclasses=7, logit_bias_init_value=-2.5)
    assert (model.config.num_superclasses, model.config.projection_dim) == (7, 8)
    assert model.logit_bias.item() == -2.5
    assert model.superclass_head.out_features == 7


@pytest.mark.parametrize(
    ("vision", "text", "message"),
    [
        (lambda: make_text(), None, "this LlamaForCausalLM has a LlamaConfig, expected a tower"),
        (lambda: make_dual(), None, "this TuringViTDualEncoderModel has a TuringViTDualEncoderConfig, expected"),
        (None, lambda: ViTModel(ViTConfig(**VISION)), "takes a text encoder .* of a ViTConfig it builds ViTModel"),
        (
            None,
            lambda: T5Model(T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, vocab_size=99)),
            "takes a text encoder .* of a T5Config it builds T5Model",
        ),
        (
            None,
            lambda: type("OtherBertModel", (BertModel,), {})(BertConfig(**TEXT)),
            "OtherBertModel cannot be kept: .* builds a BertModel",
        ),
    ],
    ids=["text for a tower", "dual encoder", "tower for a text", "encoder and decoder", "another class"],
)
def test_what_is_no_tower_or_no_text_encoder(vision, text, message, tmp_path):
    vision, text = vision and vision(), text and text()
    with pytest.raises(ValueError, match=message):
        make_dual(vision, text)


def test_a_folder_that_is_no_tower_is_named(tmp_path):
    make_text().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} has a LlamaConfig, expected a tower"):
        make_dual(tmp_path)


def test_a_frozen_text_encoder_stays_as_it_is():
    model = make_dual(text=BertModel(BertConfig(**TEXT)), text_pooling="pooler", num_superclasses=7)
    inputs = make_inputs()
    expected = model(**inputs).text_embeds.detach()
    model.freeze_text()
    assert model.train() is model
    assert model.training
    assert model.turingvit.training
    assert not any(module.training for module in model.text_model.modules())
    # no dropout, though the model is in training mode
    outputs = model(**inputs, return_loss=True)
    torch.testing.assert_close(outputs.text_embeds, expected)
    (outputs.loss + outputs.superclass_weight.sum() + outputs.superclass_bias.sum()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("text_model."), name


def test_a_trained_text_encoder_follows_the_mode():
    model = make_dual()
    assert all(module.training for module in model.train().modules())
    assert not any(module.training for module in model.eval().modules())
