# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Dual encoders, detectors and a VLM with random weights, saved as checkpoints are, and pictures for them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    DetrImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    LlavaProcessor,
    OmDetTurboConfig,
    OmDetTurboForObjectDetection,
    OmDetTurboProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    SwinConfig,
)

from tests.integrations import tower_swap_cases as cases
from tests.towers import make_model, tiny_config
from turingvit_hf import (
    TuringViTDualEncoderConfig,
    TuringViTDualEncoderModel,
    TuringViTImageProcessor,
    TuringViTProcessor,
)


WORDS = ["a", "the", "red", "green", "blue", "dog", "cat", "kite", "boat", "tree", "sky", "on", "under", "and", "."]
WORDS += ["shiny", "button", "golden", "bell", "small"]
MAX_TOKENS = 16
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TEXT, "patch_size": 8}


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, with a mark at either end."""
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=MAX_TOKENS,
    )


def text_values() -> dict[str, int]:
    return {**TEXT, "vocab_size": 4 + len(WORDS), "max_position_embeddings": MAX_TOKENS} | {
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }


def save(model, processor, folder: Path) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text_values(), vision_config={**VISION, "image_size": 32}, projection_dim=12)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save(CLIPModel(config), CLIPProcessor(images, word_tokenizer()), folder)


def save_siglip(folder: Path) -> Path:
    torch.manual_seed(0)
    config = SiglipConfig(text_config=text_values(), vision_config={**VISION, "image_size": 32})
    images = SiglipImageProcessor(size={"height": 32, "width": 32})
    return save(SiglipModel(config), SiglipProcessor(images, word_tokenizer()), folder)


def save_dual_encoder(folder: Path) -> Path:
    torch.manual_seed(0)
    config = TuringViTDualEncoderConfig(
        vision_config=tiny_config(),
        text_config=BertConfig(**text_values()),
        projection_dim=12,
        text_pooling="mean",
    )
    model = make_model(TuringViTDualEncoderModel, config)
    return save(model, TuringViTProcessor(TuringViTImageProcessor(patch_size=4), word_tokenizer()), folder)


def save_owlv2(folder: Path) -> Path:
    torch.manual_seed(0)
    # the class head compares with text embeddings of the text encoder's width
    config = Owlv2Config(
        text_config=text_values(), vision_config={**VISION, "image_size": 32}, projection_dim=TEXT["hidden_size"]
    )
    return save(
        Owlv2ForObjectDetection(config),
        Owlv2Processor(Owlv2ImageProcessor(size={"height": 32, "width": 32}), word_tokenizer()),
        folder,
    )


def save_owlvit(folder: Path) -> Path:
    torch.manual_seed(0)
    config = OwlViTConfig(
        text_config=text_values(), vision_config={**VISION, "image_size": 32}, projection_dim=TEXT["hidden_size"]
    )
    images = OwlViTImageProcessor(size={"height": 32, "width": 32})
    return save(OwlViTForObjectDetection(config), OwlViTProcessor(images, word_tokenizer()), folder)


def swin_config(image_size: int) -> SwinConfig:
    return SwinConfig(
        image_size=image_size,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )


def save_grounding_dino(folder: Path) -> Path:
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=swin_config(32),
        text_config=BertConfig(**text_values()),
        num_queries=6,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        d_model=32,  # of 32 groups
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_text_len=MAX_TOKENS,
    )
    images = GroundingDinoImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    return save(GroundingDinoForObjectDetection(config), GroundingDinoProcessor(images, word_tokenizer()), folder)


def save_omdet_turbo(folder: Path) -> Path:
    """Needs torchvision, as everything of this model in transformers does."""
    torch.manual_seed(0)
    config = OmDetTurboConfig(
        backbone_config=swin_config(64),
        text_config=CLIPTextConfig(**text_values(), projection_dim=16),
        apply_layernorm_after_vision_backbone=False,
        image_size=64,
        text_projection_in_dim=16,
        text_projection_out_dim=16,
        task_encoder_hidden_dim=16,
        class_embed_dim=16,
        num_queries=6,
        encoder_hidden_dim=32,
        vision_features_channels=[32, 32, 32],
        encoder_in_channels=[16, 32, 64],
        encoder_dim_feedforward=16,
        encoder_attention_heads=2,
        decoder_hidden_dim=32,
        decoder_num_heads=2,
        decoder_num_layers=2,
        decoder_dim_feedforward=16,
    )
    images = DetrImageProcessor(size={"height": 64, "width": 64})
    return save(OmDetTurboForObjectDetection(config), OmDetTurboProcessor(images, word_tokenizer()), folder)


def save_vlm(folder: Path, chat_template: str | None = cases.CHAT_TEMPLATE) -> Path:
    """A LLaVA of words w8 to w98 that ends its answers after a few of them."""
    torch.manual_seed(0)
    vlm, _ = cases.make_llava()
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        images,
        cases.tiny_tokenizer(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )
    vlm.generation_config.suppress_tokens = list(range(8))
    # a random model would never end: most of the words end an answer, once it has three
    vlm.generation_config.min_new_tokens = 3
    vlm.generation_config.eos_token_id = list(range(30, 99))
    return save(vlm, processor, folder)
