# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A stage's model: a pretrained text encoder, frozen; a masked image model from a tower; limits that are told."""

import pytest
import torch
from transformers import AutoModel

from turingvit_hf.errors import InputError
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.recipes import load_recipe
from turingvit_hf.training.stages.models import (
    find_start,
    load_tokenizer,
    make_dual_encoder,
    make_image_processor,
    make_masked_image_model,
)
from turingvit_hf.training.text import small_text_config, train_tokenizer


MODEL = "model={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 6, num_attention_heads: 2, patch_size: 8}"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The folder of a text encoder that takes 16 tokens, with its tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = train_tokenizer(["a red square", "a blue circle"], vocab_size=300, max_length=16)
    tokenizer.save_pretrained(folder)
    AutoModel.from_config(small_text_config(tokenizer, hidden_size=64, num_layers=1)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    """The folder of a tower with unusual pixels, as someone else may have trained it."""
    folder = tmp_path_factory.mktemp("tower")
    config = TuringViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=2, patch_size=8
    )
    TuringViTModel(config).save_pretrained(folder)
    TuringViTImageProcessor(patch_size=8, image_mean=[0.4] * 3, image_std=[0.2] * 3).save_pretrained(folder)
    return folder


def recipe_with(*overrides, name="tiny/stage2"):
    return load_recipe(name, [MODEL, *overrides])


def test_a_pretrained_text_encoder_is_taken_over_and_frozen(encoder):
    recipe = recipe_with(f"text={{encoder: {encoder}, max_tokens: 16, frozen: true, projection_dim: 8}}")
    tokenizer = load_tokenizer(recipe, None)
    model = make_dual_encoder(recipe, None, tokenizer=tokenizer, num_superclasses=len(tokenizer))
    saved = AutoModel.from_pretrained(encoder).state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in model.text_model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.text_model.parameters())
    assert model.text_projection.weight.requires_grad
    assert model.superclass_head.out_features == len(tokenizer)
    assert model.logit_bias.item() == pytest.approx(-10)


def test_more_tokens_than_the_text_encoder_takes_are_refused(encoder):
    recipe = recipe_with(f"text={{encoder: {encoder}, max_tokens: 17}}")
    with pytest.raises(InputError, match=r"text\.max_tokens=17 is above the 16 tokens"):
        make_dual_encoder(recipe, None, tokenizer=load_tokenizer(recipe, None), num_superclasses=0)


def test_a_tower_is_continued_with_its_pixels(tower):
    recipe = recipe_with(f"init_from={tower}", name="tiny/stage1")
    start = find_start(recipe)
    assert not start.is_dual_encoder
    processor = make_image_processor(recipe, start)
    assert (processor.patch_size, processor.image_mean, processor.image_std) == (8, (0.4,) * 3, (0.2,) * 3)
    assert (processor.resolution, processor.size["height"]) == ("fixed", 128)
    model = make_masked_image_model(recipe, start, teacher_hidden_size=5)
    assert model.decoder.out_features == 5
    saved = TuringViTModel.from_pretrained(tower).state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in model.turingvit.state_dict().items())


def test_what_is_no_turingvit_is_refused(encoder):
    with pytest.raises(InputError, match="holds a 'distilbert' model, not a TuringViT"):
        find_start(recipe_with(f"init_from={encoder}"))
