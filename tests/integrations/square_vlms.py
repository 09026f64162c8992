# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Tiny VLMs whose pictures are squares, as they come: InternVL, Gemma 3, PaliGemma, Idefics3, SmolVLM."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from tests.integrations.tower_swap_cases import IMAGE, VIDEO, WORDS, family_processor, text_config


SIDE, OLD_PATCH = 16, 2
VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": OLD_PATCH,
}
GEMMA = {
    "vocab_size": 99,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
}


def tokenizer(tokens: list[str], **names: str) -> PreTrainedTokenizerFast:
    """99 words, of which the image's special token has the id `IMAGE` and the video's `VIDEO`."""
    special = ["<pad>", "<unk>", "<s>", "</s>", *tokens]
    words = {word: index for index, word in enumerate([*special, *WORDS][:99])}
    words_of = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    words_of.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words_of,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
        extra_special_tokens=names or tokens,
    )


def make_internvl():
    """An InternVL that merges two by two tokens and cuts an image into up to four squares."""
    config = InternVLConfig(
        vision_config=VISION | {"image_size": [SIDE, SIDE], "patch_size": [OLD_PATCH, OLD_PATCH]},
        text_config=text_config(),
        image_token_id=IMAGE,
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    size = {"height": SIDE, "width": SIDE}
    processor = family_processor(
        InternVLProcessor,
        GotOcr2ImageProcessor(size=size, max_patches=4),
        tokenizer(
            ["<IMG_CONTEXT>", "<video>", "<img>", "</img>"],
            context_image_token="<IMG_CONTEXT>",
            video_token="<video>",
            start_image_token="<img>",
            end_image_token="</img>",
        ),
        lambda: InternVLVideoProcessor(size=size),
        image_seq_length=16,
    )
    return InternVLForConditionalGeneration(config), processor


def make_gemma3():
    """A Gemma 3 with four tokens for an image."""
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=GEMMA | {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]},
        image_token_index=IMAGE,
        boi_token_index=6,
        eoi_token_index=7,
        mm_tokens_per_image=4,
        tie_word_embeddings=False,
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}),
        tokenizer(
            ["<image_soft_token>", "<video>", "<start_of_image>", "<end_of_image>"],
            image_token="<image_soft_token>",
            boi_token="<start_of_image>",
            eoi_token="<end_of_image>",
        ),
        image_seq_length=4,
    )
    return Gemma3ForConditionalGeneration(config), processor


def make_paligemma():
    """A PaliGemma with 64 tokens for an image."""
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=GEMMA | {"model_type": "gemma"},
        image_token_index=IMAGE,
        projection_dim=16,
        hidden_size=16,
        tie_word_embeddings=False,
    )
    processor = PaliGemmaProcessor(
        SiglipImageProcessor(size={"height": SIDE, "width": SIDE}, image_seq_length=64),
        tokenizer(["<image>"], image_token="<image>"),
    )
    return PaliGemmaForConditionalGeneration(config), processor


IDEFICS_TOKENS = [
    "<image>",
    "<video>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *[f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)],
]


def make_idefics3():
    """An Idefics3 that merges two by two tokens and cuts an image into up to three by three squares."""
    config = Idefics3Config(
        vision_config=VISION, text_config=text_config(), image_token_id=IMAGE, tie_word_embeddings=False
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessor(size={"longest_edge": 3 * SIDE}, max_image_size={"longest_edge": SIDE}),
        tokenizer(IDEFICS_TOKENS),
        image_seq_len=16,
    )
    return Idefics3ForConditionalGeneration(config), processor


def make_smolvlm():
    """A SmolVLM with the same sizes."""
    config = SmolVLMConfig(
        vision_config=VISION, text_config=text_config(), image_token_id=IMAGE, tie_word_embeddings=False
    )
    sizes = {"size": {"longest_edge": 3 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    processor = family_processor(
        SmolVLMProcessor,
        SmolVLMImageProcessor(**sizes),
        tokenizer(IDEFICS_TOKENS),
        lambda: SmolVLMVideoProcessor(**sizes),
        image_seq_len=16,
    )
    return SmolVLMForConditionalGeneration(config), processor


FAMILIES = {
    "internvl": make_internvl,
    "gemma3": make_gemma3,
    "paligemma": make_paligemma,
    "idefics3": make_idefics3,
    "smolvlm": make_smolvlm,
}

__all__ = ["FAMILIES", "IMAGE", "SIDE", "VIDEO"]
