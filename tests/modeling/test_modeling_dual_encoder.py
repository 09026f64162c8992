# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The dual encoder: text encoders, poolings, three input forms, saving, Auto classes, the zero-shot pipeline."""

import math

import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    BertConfig,
    CLIPTextConfig,
    DistilBertConfig,
    LlamaConfig,
    SiglipTextConfig,
    pipeline,
)

from turingvit_hf import TuringViTConfig, TuringViTDualEncoderConfig, TuringViTDualEncoderModel
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.processing.processing_turingvit import TuringViTProcessor
from turingvit_hf.training.losses import siglip_loss
from turingvit_hf.training.text import small_text_config, train_tokenizer


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 99,
}
TEXT_ENCODERS = {
    "bert, pooler": (BertConfig(**SMALL), "pooler"),
    "bert, mean": (BertConfig(**SMALL), "mean"),
    "clip, pooler": (CLIPTextConfig(**SMALL, bos_token_id=97, eos_token_id=98), "pooler"),
    "siglip, pooler": (SiglipTextConfig(**SMALL, bos_token_id=97, eos_token_id=98), "pooler"),
    "distilbert, mean": (DistilBertConfig(vocab_size=99, dim=32, hidden_dim=64, n_layers=1, n_heads=2), "mean"),
    "llama, last token": (LlamaConfig(**SMALL), "last_token"),
}


def vision_config(**options):
    layers = ["linear_attention", "full_attention"]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return TuringViTConfig(**sizes, layer_types=layers, patch_size=4, **options)


def make_model(text_config=None, text_pooling="mean", **options):
    torch.manual_seed(0)
    text_config = text_config or TEXT_ENCODERS["distilbert, mean"][0]
    config = TuringViTDualEncoderConfig(
        vision_config=vision_config(), text_config=text_config, projection_dim=16, text_pooling=text_pooling, **options
    )
    return TuringViTDualEncoderModel(config).eval()


def make_inputs(num_texts=2):
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(2, 97, (num_texts, 5), generator=generator),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])[:num_texts],
        "pixel_values": torch.randn(10, 48, generator=generator),
        "image_grid_thw": torch.tensor([[1, 2, 3], [1, 4, 1]]),
    }


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_text_encoders_of_every_kind(name):
    model = make_model(*TEXT_ENCODERS[name])
    outputs = model(**make_inputs(3))
    assert outputs.logits_per_image.shape == (2, 3)
    torch.testing.assert_close(outputs.text_embeds.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(outputs.image_embeds.norm(dim=-1), torch.ones(2))
    expected = 10 * outputs.image_embeds @ outputs.text_embeds.T - 10
    torch.testing.assert_close(outputs.logits_per_image, expected)
    torch.testing.assert_close(outputs.logits_per_text, expected.T)


@pytest.mark.parametrize("name", ["distilbert, mean", "llama, last token"])
def test_padding_does_not_change_a_text(name):
    model, inputs = make_model(*TEXT_ENCODERS[name]), make_inputs()
    padded = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output[1]
    alone = model.get_text_features(inputs["input_ids"][1:, :3]).pooler_output[0]
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-6)


def test_the_last_token_is_found_on_either_side_of_the_padding():
    model, inputs = make_model(*TEXT_ENCODERS["llama, last token"]), make_inputs()
    left = inputs["attention_mask"].flip(1)
    tokens = model.text_model(input_ids=inputs["input_ids"], attention_mask=left).last_hidden_state
    pooled = model.get_text_features(inputs["input_ids"], left).pooler_output
    torch.testing.assert_close(pooled, model.text_projection(tokens[:, -1]))


def test_the_three_input_forms_agree():
    model, inputs = make_model(), make_inputs()
    image = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(2))
    padded = torch.nn.functional.pad(image, (0, 4, 0, 8))
    patches = image.reshape(3, 2, 4, 3, 4).permute(1, 3, 0, 2, 4).reshape(6, 48)
    dense = model.get_image_features(image).pooler_output
    packed = model.get_image_features(patches, image_grid_thw=torch.tensor([[1, 2, 3]])).pooler_output
    with_sizes = model.get_image_features(padded, image_sizes=torch.tensor([[8, 12]])).pooler_output
    torch.testing.assert_close(packed, dense, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(with_sizes, dense, rtol=1e-5, atol=1e-6)
    del inputs["image_grid_thw"]
    assert model(**inputs | {"pixel_values": image}).logits_per_image.shape == (1, 2)


def test_the_loss_is_that_of_training():
    model, inputs = make_model(logit_bias_init_value=-1.5), make_inputs()
    outputs = model(**inputs, return_loss=True)
    expected = siglip_loss(outputs.image_embeds, outputs.text_embeds, model.logit_scale, model.logit_bias)
    torch.testing.assert_close(outputs.loss, expected)
    assert model(**inputs).loss is None
    outputs.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(ValueError, match="as many images as texts, not 2 and 3"):
        model(**make_inputs(3), return_loss=True)


def test_embeddings_come_without_logits_on_request():
    model = make_model()
    batch = {"input_ids": torch.randint(3, 90, (3, 5)), "pixel_values": torch.randn(3, 3, 8, 8)}
    with torch.no_grad():
        whole, bare = model(**batch), model(**batch, return_logits=False)
    assert whole.logits_per_image.shape == (3, 3)
    assert bare.logits_per_image is None
    assert bare.logits_per_text is None
    torch.testing.assert_close(bare.image_embeds, whole.image_embeds, rtol=0, atol=0)
    torch.testing.assert_close(bare.text_embeds, whole.text_embeds, rtol=0, atol=0)
    with pytest.raises(ValueError, match="return_logits=False"):
        model(**batch, return_loss=True, return_logits=False)


def test_tuples_hidden_states_and_embeddings():
    model, inputs = make_model(), make_inputs()
    outputs = model(**inputs, output_hidden_states=True)
    assert len(outputs.vision_model_output.hidden_states) == 3
    assert len(outputs.text_model_output.hidden_states) == 2
    assert isinstance(model(**inputs, return_dict=False), tuple)
    assert model.get_input_embeddings() is model.text_model.get_input_embeddings()


def test_pooled_features_and_superclass_parameters_come_with_the_output():
    model, inputs = make_model(num_superclasses=11), make_inputs()
    outputs = model(**inputs)
    pixels = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    pooled = model.turingvit(**pixels).pooler_output
    torch.testing.assert_close(outputs.pooled_image_features, pooled)
    torch.testing.assert_close(
        outputs.vision_model_output.pooler_output, model.visual_projection(outputs.pooled_image_features)
    )
    assert torch.equal(outputs.superclass_weight, model.superclass_head.weight)
    assert torch.equal(outputs.superclass_bias, model.superclass_head.bias)
    logits = outputs.pooled_image_features @ outputs.superclass_weight.T + outputs.superclass_bias
    torch.testing.assert_close(logits, model.superclass_head(pooled))
    logits.logsumexp(-1).sum().backward()
    from_outputs = [parameter.grad.clone() for parameter in model.superclass_head.parameters()]
    model.zero_grad()
    model.superclass_head(model.turingvit(**pixels).pooler_output).logsumexp(-1).sum().backward()
    for actual, expected in zip(from_outputs, model.superclass_head.parameters(), strict=True):
        torch.testing.assert_close(actual, expected.grad)


def test_without_superclasses_there_is_no_head():
    model = make_model()
    outputs = model(**make_inputs())
    assert outputs.superclass_weight is None
    assert outputs.superclass_bias is None
    assert not any("superclass" in name for name in model.state_dict())


def test_the_superclass_head_starts_with_logits_of_unit_size(tmp_path):
    without = make_model()
    without.save_pretrained(tmp_path)
    # a new head on a saved model too, whose other weights stay
    loaded = AutoModel.from_pretrained(tmp_path, num_superclasses=2000)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in without.state_dict().items())
    for model in (make_model(num_superclasses=2000), loaded):
        assert model.superclass_head.weight.std().item() == pytest.approx(32**-0.5, rel=0.02)
        assert not model.superclass_head.bias.any()


def test_initial_values_are_those_of_the_configuration():
    model = make_model()
    assert model.logit_scale.item() == pytest.approx(math.log(10))
    assert model.logit_bias.item() == -10
    assert make_model(logit_bias_init_value=-3.5).logit_bias.item() == -3.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_pooling": "max"}, "text_pooling='max', allowed are"),
        ({"projection_dim": 0}, "projection_dim=0 must be at least 1"),
        ({"num_superclasses": -1}, r"num_superclasses=-1 must be 0 \(no head\) or more"),
        ({"vision_config": vision_config(vision_use_head=False)}, "needs the tower's pooling head"),
    ],
    ids=["pooling", "projection", "superclasses", "no head"],
)
def test_impossible_configurations_are_refused(options, message):
    with pytest.raises(Exception, match=message):
        TuringViTDualEncoderConfig(**options)


def test_a_missing_pooler_is_named():
    model = make_model(text_pooling="pooler")
    with pytest.raises(ValueError, match="DistilBertModel has no pooler; set text_pooling to 'mean' or 'last_token'"):
        model(**make_inputs())


@pytest.mark.parametrize("name", ["distilbert, mean", "clip, pooler"])
def test_saved_and_loaded_through_auto_classes_bit_by_bit(name, tmp_path):
    model, inputs = make_model(*TEXT_ENCODERS[name]), make_inputs()
    with torch.no_grad():
        model.logit_scale.fill_(1.25)
        model.logit_bias.fill_(-0.75)
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path).text_config) is type(model.config.text_config)
    for auto in (AutoModel, AutoModelForZeroShotImageClassification):
        loaded = auto.from_pretrained(tmp_path)
        assert isinstance(loaded, TuringViTDualEncoderModel)
        for key, value in model.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[key]), key
        assert torch.equal(loaded.eval()(**inputs).logits_per_image, model(**inputs).logits_per_image)


def test_the_tower_alone_is_a_checkpoint_of_its_own(tmp_path):
    model, inputs = make_model(), make_inputs()
    model.turingvit.save_pretrained(tmp_path)
    tower = AutoModel.from_pretrained(tmp_path).eval()
    pixels = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    assert torch.equal(tower(**pixels).pooler_output, model.turingvit(**pixels).pooler_output)
    without_head = AutoModel.from_pretrained(tmp_path, vision_use_head=False).eval()
    assert torch.equal(without_head(**pixels).last_hidden_state, tower(**pixels).last_hidden_state)
    assert without_head(**pixels).pooler_output is None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A saved dual encoder with its processor."""
    folder = tmp_path_factory.mktemp("dual-encoder")
    tokenizer = train_tokenizer(["a red star", "a blue ring"])
    processor = TuringViTProcessor(TuringViTImageProcessor(patch_size=4), tokenizer)
    make_model(small_text_config(tokenizer, hidden_size=64, num_layers=1)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_the_processor_comes_back_and_feeds_the_model(checkpoint):
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert isinstance(processor, TuringViTProcessor)
    assert isinstance(processor.image_processor, TuringViTImageProcessor)
    images = [Image.new("RGB", (16, 8), "red"), Image.new("RGB", (8, 20), "blue")]
    batch = processor(images=images, text=["a red star", "a blue ring", "a"], padding=True, return_tensors="pt")
    assert batch["image_grid_thw"].tolist() == [[1, 2, 4], [1, 5, 2]]
    assert AutoModel.from_pretrained(checkpoint)(**batch).logits_per_image.shape == (2, 3)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_zero_shot_pipeline_answers_as_the_model_does(checkpoint, batch_size):
    labels = ["red star", "blue ring", "green cross"]
    images = [Image.new("RGB", (16, 8), "red"), Image.new("RGB", (16, 8), "blue")]
    answers = pipeline("zero-shot-image-classification", model=str(checkpoint))(
        images, candidate_labels=labels, hypothesis_template="a {}", batch_size=batch_size
    )
    processor, model = AutoProcessor.from_pretrained(checkpoint), AutoModel.from_pretrained(checkpoint).eval()
    assert len(answers) == 2
    for image, answer in zip(images, answers, strict=True):
        batch = processor(images=[image], text=[f"a {label}" for label in labels], padding=True, return_tensors="pt")
        with torch.no_grad():
            probabilities = model(**batch).logits_per_image[0].softmax(-1)
        assert {entry["label"]: pytest.approx(entry["score"], abs=1e-5) for entry in answer} == dict(
            zip(labels, probabilities.tolist(), strict=True)
        )
