# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Sizes of text encoders and teachers that recipes name, so that a plan downloads nothing; and of a meta model."""

import os
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, BertConfig, CLIPTextConfig, DistilBertConfig, PreTrainedConfig

from turingvit_hf.errors import InputError
from turingvit_hf.training.arguments import TeacherRecipe, TextRecipe
from turingvit_hf.training.hog_teacher import CELLS_A_SIDE, NUM_VALUES
from turingvit_hf.training.stages.models import SMALL, SMALL_VOCABULARY


# configurations of the checkpoints' own config.json
MINILM = BertConfig(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, max_position_embeddings=512
)
TEXT_ENCODERS: dict[str, PreTrainedConfig] = {
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": CLIPTextConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, vocab_size=49408
    ),
    "openai/clip-vit-large-patch14": CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408
    ),
    "sentence-transformers/all-MiniLM-L6-v2": MINILM,
    # what the tiny recipes' preparation puts there
    "pretraining_data/text_encoder": MINILM,
}


@dataclass(frozen=True)
class TeacherSize:
    """What a teacher costs.

    Attributes:
        num_parameters: all of its vision model.
        flops_per_image: of its forward.
        size: side of its input in pixels.
        hidden_size: width of the features that it gives.
        activation_values: values that one image's forward holds at a time.
        source: where these come from, for readers of a plan.
    """

    num_parameters: int
    flops_per_image: float
    size: int
    hidden_size: int
    activation_values: int
    source: str


def vit_teacher(
    *,
    num_parameters: int | None = None,
    layers: int,
    width: int,
    mlp_matrices: int,
    mlp_width: int,
    patch: int,
    size: int,
    hidden_size: int,
    source: str,
) -> TeacherSize:
    """The size of a plain ViT, from its dimensions; without `num_parameters` norms, biases and class
    token are left out of them."""
    num_patches = (size // patch) ** 2
    matrices = layers * (4 * width**2 + mlp_matrices * width * mlp_width) + 3 * patch**2 * width
    projection = width * hidden_size if hidden_size != width else 0
    attention = 4 * width * layers * (num_patches + 1) ** 2
    flops = 2 * (num_patches + 1) * (matrices + projection) + attention
    return TeacherSize(
        num_parameters=matrices + projection if num_parameters is None else num_parameters,
        flops_per_image=flops,
        size=size,
        hidden_size=hidden_size,
        activation_values=(num_patches + 1) * (6 * width + 2 * mlp_width),
        source=source,
    )


TEACHERS = {
    "timm/eva02_enormous_patch14_clip_224": vit_teacher(
        num_parameters=4_350_556_928,
        layers=64,
        width=1792,
        mlp_matrices=2,
        mlp_width=15360,
        patch=14,
        size=224,
        hidden_size=1024,
        source="table of known sizes, assumed",
    ),
    "timm/eva02_large_patch14_clip_224": vit_teacher(
        num_parameters=304_105_152,
        layers=24,
        width=1024,
        mlp_matrices=3,
        mlp_width=2730,
        patch=14,
        size=224,
        hidden_size=768,
        source="table of known sizes, assumed",
    ),
    "google/siglip2-base-patch16-256": vit_teacher(
        layers=12,
        width=768,
        mlp_matrices=2,
        mlp_width=3072,
        patch=16,
        size=256,
        hidden_size=768,
        source="table of known sizes, assumed",
    ),
}


def text_config_of(text: TextRecipe) -> tuple[PreTrainedConfig, str]:
    """The configuration of a recipe's text encoder, and where it comes from.

    Raises:
        InputError: it is neither in the table nor on this machine.
    """
    if text.encoder == SMALL:
        config = DistilBertConfig(
            vocab_size=SMALL_VOCABULARY,
            max_position_embeddings=text.max_tokens,
            dim=192,
            hidden_dim=768,
            n_layers=2,
            n_heads=3,
        )
        return config, f"made from scratch, assumed with all of {SMALL_VOCABULARY:,} subwords"
    if os.path.isdir(text.encoder) or text.encoder not in TEXT_ENCODERS:
        return _local_config(text.encoder, "text.encoder", TEXT_ENCODERS).get_text_config(), "its own config.json"
    return TEXT_ENCODERS[text.encoder], "table of known sizes, assumed"


def teacher_size_of(teacher: TeacherRecipe, *, num_channels: int) -> TeacherSize:
    """What a recipe's teacher costs.

    Args:
        teacher: the recipe's.
        num_channels: of the pixels, which the width of HOG follows.

    Raises:
        InputError: it is neither in the table nor on this machine.
    """
    if teacher.model == "hog":
        hidden_size = CELLS_A_SIDE**2 * num_channels * NUM_VALUES
        return TeacherSize(0, 0.0, 0, hidden_size, 0, "computed, not learned; counted as nothing")
    known = TEACHERS.get(teacher.model.partition(".")[0] if teacher.model.startswith("timm/") else teacher.model)
    if known is not None and teacher.size in (None, known.size):
        return known
    config = _local_config(teacher.model, "teacher.model", TEACHERS)
    config = getattr(config, "vision_config", config)
    return _from_config(config, teacher)


def _from_config(config: Any, teacher: TeacherRecipe) -> TeacherSize:
    try:
        return vit_teacher(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            mlp_matrices=3
            if getattr(config, "use_swiglu_ffn", False) or getattr(config, "use_gated_mlp", False)
            else 2,
            mlp_width=getattr(config, "intermediate_size", 4 * config.hidden_size),
            patch=config.patch_size,
            size=teacher.size or getattr(config, "image_size", 224),
            hidden_size=config.hidden_size,
            source="its own config.json",
        )
    except AttributeError as error:
        raise InputError(f"teacher.model={teacher.model!r} cannot be planned: {error}") from error


def _local_config(name: str, key: str, known: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of a model on this machine; nothing is downloaded."""
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{key}={name!r} is not on this machine, and a plan downloads nothing; sizes are known of "
            f"{', '.join(sorted(known))}"
        ) from error
