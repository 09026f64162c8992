# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Dual encoders of transformers and ours give through an encoder what they give when called directly."""

import string

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoProcessor,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Processor,
    Siglip2Tokenizer,
)

from tests.curation import tiny_models
from tests.helpers import assert_close
from tests.towers import make_model, tiny_config
from turingvit_hf import TuringViTImageProcessor, TuringViTModel
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.encoders import TransformersEncoder


TEXTS = ["a red dog", "a cat on a tree", "sky"]
# float32, vectors of length 1 times a scale of at most 14
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
FAMILIES = ("clip", "siglip", "siglip2", "turingvit")


def pictures() -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (3, *size), dtype=np.uint8) for size in [(40, 80), (64, 33), (20, 20), (7, 5)]]


def save_siglip2(folder):
    """With a tokenizer of letters, which is read back as the class that SigLIP 2 has; any other would not be.

    As those of published checkpoints it pads on the right and makes no mask.
    """
    torch.manual_seed(0)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocabulary = {token: index for index, token in enumerate([*special, "▁", *string.ascii_lowercase, "."])}
    tokenizer = Siglip2Tokenizer(
        vocab=vocabulary, padding_side="right", model_input_names=["input_ids"], model_max_length=64
    )
    values = tiny_models.VISION | {"num_patches": 16}
    texts = tiny_models.text_values() | {"vocab_size": len(vocabulary), "max_position_embeddings": 64}
    texts |= {"eos_token_id": 1, "bos_token_id": 2}
    config = Siglip2Config(text_config=texts, vision_config=values)
    images = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    return tiny_models.save(Siglip2Model(config), Siglip2Processor(images, tokenizer), folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    tiny_models.save_clip(folder / "clip")
    tiny_models.save_siglip(folder / "siglip")
    save_siglip2(folder / "siglip2")
    tiny_models.save_dual_encoder(folder / "turingvit")
    tiny_models.save(
        make_model(TuringViTModel, tiny_config()), TuringViTImageProcessor(patch_size=4), folder / "tower"
    )
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_model_called_directly(folders, family):
    encoder = TransformersEncoder(str(folders / family))
    logits = encoder.logits(encoder.image_features(pictures()), encoder.text_features(TEXTS))
    model, processor = (kind.from_pretrained(folders / family) for kind in (AutoModel, AutoProcessor))
    padding = "max_length" if family.startswith("siglip") else True
    length = 64 if family == "siglip2" else 16
    texts = processor.tokenizer(TEXTS, padding=padding, truncation=True, max_length=length, return_tensors="pt")
    images = processor.image_processor(pictures(), return_tensors="pt", input_data_format="channels_first")
    names = {"input_ids"} if family == "siglip2" else {"input_ids", "attention_mask"}
    with torch.inference_mode():
        direct = model(**{name: texts[name] for name in names}, **images).logits_per_image
    assert logits.shape == (4, 3)
    torch.testing.assert_close(logits, direct, **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["embedding", "pooled", "mean"])
def test_batches_change_nothing(folders, family, kind):
    whole = TransformersEncoder(str(folders / family)).image_features(pictures(), kind)
    single = TransformersEncoder(str(folders / family), tokens_per_batch=1).image_features(pictures(), kind)
    # of each vector as a whole: what is next to nought in it has the rounding of the products it comes from
    for batched, alone in zip(whole, single, strict=True):
        assert_close(batched, alone, 5e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_is_over_patches_alone(folders, family):
    """Of one image the tower's tokens, without class token and padding."""
    encoder = TransformersEncoder(str(folders / family))
    picture = pictures()[:1]
    inputs = encoder.prepare_images(picture)
    with torch.inference_mode():
        tokens = encoder.network.get_image_features(**inputs).last_hidden_state
    tokens = tokens.reshape(-1, tokens.shape[-1])
    if family == "clip":
        tokens = tokens[1:]
    if family == "siglip2":
        tokens = tokens[inputs["pixel_attention_mask"][0].bool()]
    torch.testing.assert_close(encoder.image_features(picture, "mean")[0], tokens.mean(0), **TOLERANCE)


def test_our_own_is_native_or_fixed_and_batched_by_tokens(folders):
    native = TransformersEncoder(str(folders / "turingvit"), tokens_per_batch=150)
    images = [np.zeros((3, *size), np.uint8) for size in [(40, 80), (20, 20), (20, 40), (4, 4)]]
    assert [len(batch) for batch in native._batches(images)] == [1, 3]
    assert native.prepare_images(images)["image_grid_thw"].tolist() == [[1, 10, 20], [1, 5, 5], [1, 5, 10], [1, 1, 1]]
    fixed = TransformersEncoder(str(folders / "turingvit"), image_size=16)
    assert fixed.prepare_images(images)["image_grid_thw"].tolist() == [[1, 4, 4]] * 4
    small = TransformersEncoder(str(folders / "turingvit"), max_patches=50)
    assert small.prepare_images(images)["image_grid_thw"].prod(-1).max() <= 50


def test_a_tower_by_itself_has_features_and_no_embedding(folders):
    encoder = TransformersEncoder(str(folders / "tower"))
    assert encoder.image_features(pictures(), "pooled").shape == encoder.image_features(pictures(), "mean").shape
    with pytest.raises(InputError, match="no text encoder"):
        encoder.image_features(pictures())
    with pytest.raises(InputError, match="no text encoder"):
        encoder.text_features(TEXTS)


def test_bad_options_are_errors_of_one_line(folders, tmp_path):
    with pytest.raises(InputError, match="cannot load"):
        TransformersEncoder(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="image_size=32 is for TuringViT"):
        TransformersEncoder(str(folders / "clip"), image_size=32)
    with pytest.raises(InputError, match="max_patches=4 is for towers of native resolution"):
        TransformersEncoder(str(folders / "clip"), max_patches=4)
    with pytest.raises(InputError, match="give one of them"):
        TransformersEncoder(str(folders / "turingvit"), max_patches=4, image_size=32)
    with pytest.raises(InputError, match="features='all'"):
        TransformersEncoder(str(folders / "clip")).image_features(pictures(), "all")
    bert = AutoModel.from_pretrained(folders / "turingvit").text_model
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="no image encoder"):
        TransformersEncoder(str(tmp_path / "bert"))
