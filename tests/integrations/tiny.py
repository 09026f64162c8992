# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tower, a classifier and a LLaVA small enough for tests, and inputs for them."""

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from turingvit_hf import TuringViTConfig, TuringViTImageProcessor
from turingvit_hf.modeling.packing import pack_images


PATCH = 4
IMAGE_TOKEN, PAD_TOKEN, VOCABULARY = 1, 0, 99


def tiny_config(**changes) -> TuringViTConfig:
    """A tower of three layers with both kinds of attention."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    layer_types = ["linear_attention", "full_attention", "linear_attention"]
    return TuringViTConfig(**{"patch_size": PATCH, "image_size": 16, "layer_types": layer_types} | sizes | changes)


def tiny_processor(**changes) -> TuringViTImageProcessor:
    """An image processor that cuts the tiny tower's patches."""
    return TuringViTImageProcessor(patch_size=PATCH, **changes)


def tiny_llava(**changes) -> LlavaForConditionalGeneration:
    """An unmodified LLaVA of transformers on the tiny tower without its head."""
    return LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=tiny_text_config(),
            vision_config=tiny_config(vision_use_head=False, **changes),
            image_token_index=IMAGE_TOKEN,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=False,
        )
    )


def tiny_mistral3() -> Mistral3ForConditionalGeneration:
    """An unmodified Mistral3, which merges two by two tokens, on the tiny tower without its head."""
    return Mistral3ForConditionalGeneration(
        Mistral3Config(
            text_config=tiny_text_config(),
            vision_config=tiny_config(vision_use_head=False),
            image_token_index=IMAGE_TOKEN,
            vision_feature_layer=-1,
            spatial_merge_size=2,
        )
    )


def mistral3_inputs() -> dict[str, torch.Tensor]:
    """A text with an image of 2 times 4 patches, which become 1 times 2 tokens."""
    return {
        "input_ids": torch.tensor([[IMAGE_TOKEN, IMAGE_TOKEN, 5, 17]]),
        "pixel_values": torch.rand(1, 3, 2 * PATCH, 4 * PATCH),
        "image_sizes": torch.tensor([[2 * PATCH, 4 * PATCH]]),
    }


def tiny_text_config() -> LlamaConfig:
    """A language model of two layers."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=PAD_TOKEN,
        bos_token_id=2,
        eos_token_id=3,
    )


def tiny_llava_processor() -> LlavaProcessor:
    """LLaVA's own processor with the tower's images and a vocabulary of <image> and w4 to w98."""
    words = {"<pad>": PAD_TOKEN, "<image>": IMAGE_TOKEN, "<s>": 2, "</s>": 3} | {
        f"w{i}": i for i in range(4, VOCABULARY)
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return LlavaProcessor(
        tiny_processor(return_image_sizes=True),
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", additional_special_tokens=["<image>"]),
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
    )


def dense_inputs(num_images: int = 2) -> dict[str, torch.Tensor]:
    """A batch of images of one size, 3 rows and 4 columns of patches each."""
    return {"pixel_values": torch.rand(num_images, 3, 3 * PATCH, 4 * PATCH)}


def packed_inputs() -> dict[str, torch.Tensor]:
    """Three packed images of different sizes."""
    grids = torch.tensor([[1, 2, 5], [1, 3, 3], [1, 1, 1]])
    return {"pixel_values": torch.rand(int(grids.prod(1).sum()), 3 * PATCH**2), "image_grid_thw": grids}


def packed_form_of(dense: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same images, packed."""
    patches, grid = pack_images(dense["pixel_values"], PATCH)
    return {"pixel_values": patches, "image_grid_thw": grid}


def pictures(sizes: list[tuple[int, int]]) -> list[Image.Image]:
    """Noise of these (width, height)."""
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes]
