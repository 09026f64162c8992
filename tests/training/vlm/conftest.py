# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the tests of VLM training share: a LLaVA with a TuringViT that takes milliseconds, and its processor."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.smolvlm import processing_smolvlm

from turingvit_hf import TuringViTConfig, TuringViTImageProcessor, TuringViTLlavaProcessor
from turingvit_hf.training.vlm.chat_template import TURN_END, TURN_START, chat_template


SPECIAL = ["<pad>", "</s>", "<image>", TURN_START, TURN_END]


@pytest.fixture
def number_words(monkeypatch):
    """SmolVLM's processor writes the number of frames as a word, by a package that is not needed for anything here."""
    monkeypatch.setattr(processing_smolvlm, "num2words", str)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = models.BPE({token: index for index, token in enumerate([*SPECIAL, *alphabet])}, merges=[])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token=TURN_START,
        eos_token=TURN_END,
        additional_special_tokens=["<image>", "</s>"],
        padding_side="left",
    )


@pytest.fixture
def processor(tokenizer) -> TuringViTLlavaProcessor:
    """Patches of 4 pixels, ChatML with images."""
    image_processor = TuringViTImageProcessor(patch_size=4, return_image_sizes=True)
    return TuringViTLlavaProcessor(image_processor, tokenizer, chat_template=chat_template())


@pytest.fixture
def make_vlm(tokenizer) -> Callable[[], LlavaForConditionalGeneration]:
    """Makes a LLaVA of two layers each, the same weights at each call."""

    def make() -> LlavaForConditionalGeneration:
        torch.manual_seed(0)
        vision_config = TuringViTConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            patch_size=4,
            layer_types=["linear_attention", "full_attention"],
            pos_embed_rescale=2.0,
            vision_use_head=False,
        )
        text_config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=1024,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        return LlavaForConditionalGeneration(
            LlavaConfig(
                vision_config=vision_config,
                text_config=text_config,
                image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
                vision_feature_layer=-1,
                vision_feature_select_strategy="full",
                tie_word_embeddings=False,
            )
        )

    return make


@pytest.fixture
def picture_folder(tmp_path) -> Path:
    """Four pictures of different sizes, and one that is cut off behind its header."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for index, (height, width) in enumerate([(8, 20), (12, 12), (24, 8), (16, 16)]):
        Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    whole = (folder / "3.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def rows() -> list[dict]:
    """LLaVA's JSON with one image and two, chat messages with two turns, and a text alone."""
    return [
        {
            "image": "0.png",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": "A wide one."},
            ],
        },
        {
            "image": ["1.png", "2.png"],
            "conversations": [
                {"from": "human", "value": "<image>\n<image>\nCompare."},
                {"from": "gpt", "value": "One is tall."},
            ],
        },
        {
            "images": ["3.png"],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
                {"role": "assistant", "content": "A square."},
                {"role": "user", "content": "Sure?"},
                {"role": "assistant", "content": [{"type": "text", "text": "Yes, été."}]},
            ],
        },
        {
            "messages": [
                {"role": "user", "content": "Two and two?"},
                {"role": "assistant", "content": "Four."},
            ]
        },
    ]
