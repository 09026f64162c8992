# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Qwen2.5-VL, Qwen3-VL and its MoE: native resolution and video, tokens with positions in time, height and width.

The patch merger inside of Qwen's vision model is what other families call the projector: it stays, and with it each of
its weights whose shape does not follow from the width of the tower. Qwen puts two frames into one patch, a TuringViT
sees one at a time: a video is sampled at half the rate, and so has as many tokens, as far apart in time, as before.
"""

import copy
from math import isqrt
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin, Qwen2_5_VLProcessor, Qwen3VLProcessor

from turingvit_hf.integrations.vlm_families.adapter import SwapRequest, TowerAdapter, rebuild_module, replace_tower
from turingvit_hf.integrations.vlm_families.images import most_native_tokens, normalization_of, with_settings
from turingvit_hf.integrations.vlm_families.llava import check_processor_class
from turingvit_hf.modeling.configuration_qwen_vision import TuringViTQwenVisionConfig
from turingvit_hf.modeling.modeling_qwen_vision import (
    TuringViTQwenVisionModel,
    build_deepstack_mergers,
    build_merger,
)


# Qwen's image processor refuses what is longer than this many times its width
MOST_ELONGATED = 200


class Qwen25VLAdapter(TowerAdapter):
    """Qwen2.5-VL."""

    model_types = ("qwen2_5_vl",)
    merger = "qwen2_5_vl"
    tower_name = "model.visual"
    projector_names = ("model.visual.merger",)
    processor_class: type = Qwen2_5_VLProcessor

    def check(self, request: SwapRequest) -> None:
        """Raises ValueError for a processor of another family, and for options that have no meaning here."""
        check_processor_class(request, (self.processor_class,))
        if request.token_reduction is not None:
            raise ValueError(
                f"token_reduction={request.token_reduction!r}: the merger of a Qwen makes one token of "
                f"{request.config.vision_config.spatial_merge_size} x "
                f"{request.config.vision_config.spatial_merge_size} patches already"
            )
        if request.image_size is not None:
            raise ValueError(
                f"image_size={request.image_size}: a Qwen keeps each image's own resolution; bound it by "
                "max_image_tokens"
            )
        self.deepstack_layers(request)
        self.token_limit(request)

    def make_tower(self, request: SwapRequest) -> PreTrainedModel:
        """The tower as a Qwen wants to be spoken to; its merger has no weights yet."""
        old = request.config.vision_config
        config = TuringViTQwenVisionConfig(
            tower_config=request.tower.config,
            merger=self.merger,
            out_hidden_size=old.out_hidden_size,
            spatial_merge_size=old.spatial_merge_size,
            tokens_per_second=getattr(old, "tokens_per_second", 4),  # Qwen3-VL writes times into the text
            deepstack_visual_indexes=self.deepstack_layers(request),
        )
        config.tower_config = request.tower.config  # the very object, so that both stay in step
        with torch.device("meta"):
            visual = TuringViTQwenVisionModel(config)
        visual.turingvit = request.tower
        return visual.train(request.tower.training)

    def make_processor(self, request: SwapRequest, config: PreTrainedConfig) -> ProcessorMixin:
        """The family's own processor with the tower's patches, as many tokens for an image or a video as before."""
        old, vision = request.processor, config.vision_config
        patches = {
            "patch_size": vision.patch_size,
            "merge_size": vision.spatial_merge_size,
            "temporal_patch_size": vision.temporal_patch_size,
            **normalization_of(request.image_processor),
        }
        most = self.token_limit(request)
        unit = vision.patch_size * vision.spatial_merge_size
        fewest = min(_tokens(old.image_processor)[0], most)
        image_processor = with_settings(
            old.image_processor, size={"shortest_edge": fewest * unit**2, "longest_edge": most * unit**2}, **patches
        )
        video_processor = None
        if old.video_processor is not None:
            video_processor = with_settings(
                old.video_processor, **patches, **self.video_sizes(old.video_processor, unit), **_rates(old)
            )
        return type(old)(
            image_processor=image_processor,
            tokenizer=old.tokenizer,
            video_processor=video_processor,
            chat_template=old.chat_template,
        )

    def image_tokens(self, processor: Any, config: PreTrainedConfig) -> int:
        """Tokens of the worst image: the limit, or one row of tokens as elongated as the processor takes it."""
        fewest, most = _tokens(processor.image_processor)
        # an image below the least size is enlarged, and each of its sides rounded up
        enlarged = fewest + isqrt(MOST_ELONGATED * fewest) + isqrt(fewest) + 2
        return max(most, isqrt(MOST_ELONGATED * most), enlarged)

    def put_in(self, request: SwapRequest, tower: PreTrainedModel, changes: dict[str, Any]) -> list[str]:
        """Changes the VLM: configuration and tower; the merger stays, with what does not fit made anew."""
        visual, config = request.vlm.get_submodule(self.tower_name), tower.config
        for name, value in changes.items():
            setattr(request.config, name, value)
        replace_tower(request.vlm, self.tower_name, tower)
        tower.merger = visual.merger
        changed = rebuild_module(request.vlm, "model.visual.merger", lambda old: build_merger(config))
        if config.deepstack_visual_indexes:
            tower.deepstack_merger_list = visual.deepstack_merger_list
            name = "model.visual.deepstack_merger_list"
            changed += rebuild_module(request.vlm, name, lambda old: build_deepstack_mergers(config))
        return changed

    def deepstack_layers(self, request: SwapRequest) -> list[int]:
        """After which layers of the tower Qwen3-VL reads features; none in Qwen2.5-VL."""
        return []

    def token_limit(self, request: SwapRequest) -> int:
        """Most tokens of an image.

        Raises:
            ValueError: `max_image_tokens` is below 1 or more than the tower's image processor allows.
        """
        merge_size = request.config.vision_config.spatial_merge_size
        merged = copy.deepcopy(request.image_processor)
        merged.merge_size = merge_size
        allowed = most_native_tokens(merged)
        wanted = request.max_image_tokens
        if wanted is None:
            limits = [_tokens(request.processor.image_processor)[1], allowed]
            if request.context_length is not None:
                limits.append(request.context_length // 2)
            wanted = min(limits)
        if not 1 <= wanted <= allowed:
            raise ValueError(
                f"max_image_tokens={wanted} must be from 1 to {allowed}, the image processor's limit in blocks of "
                f"{merge_size} x {merge_size} patches"
            )
        return wanted

    def video_sizes(self, video_processor: Any, unit: int) -> dict[str, Any]:
        """The size of a frame, in the tokens that it had before."""
        fewest, most = _tokens(video_processor)
        return {"size": {"shortest_edge": fewest * unit**2, "longest_edge": most * unit**2}}


class Qwen3VLAdapter(Qwen25VLAdapter):
    """Qwen3-VL and Qwen3-VL-MoE, which also read features after some layers of the tower."""

    model_types = ("qwen3_vl", "qwen3_vl_moe")
    merger = "qwen3_vl"
    projector_names = ("model.visual.merger", "model.visual.deepstack_merger_list")
    processor_class = Qwen3VLProcessor

    def deepstack_layers(self, request: SwapRequest) -> list[int]:
        """Layers as deep in the tower, in proportion, as Qwen's own are in its vision model."""
        old, depth = request.config.vision_config, request.tower.config.num_hidden_layers
        indexes = list(old.deepstack_visual_indexes)
        layers = [max(0, round((index + 1) * depth / old.num_hidden_layers) - 1) for index in indexes]
        if len(set(layers)) < len(indexes):
            raise ValueError(
                f"Qwen3-VL reads features after layers {indexes} of its {old.num_hidden_layers}, a tower of {depth} "
                f"has no {len(indexes)} different layers as deep as these"
            )
        return layers

    def video_sizes(self, video_processor: Any, unit: int) -> dict[str, Any]:
        """The size of a whole video, in the tokens that it had before: its pixels are counted over all frames."""
        fewest, most = (tokens // video_processor.temporal_patch_size for tokens in _tokens(video_processor))
        return {"size": {"shortest_edge": max(1, fewest) * unit**2, "longest_edge": max(1, most) * unit**2}}


def _tokens(processor: Any) -> tuple[int, int]:
    """Fewest and most tokens for an image or for two frames of a video, by the pixels that a processor allows."""
    unit = processor.patch_size * processor.merge_size
    return max(1, processor.size["shortest_edge"] // unit**2), max(1, processor.size["longest_edge"] // unit**2)


def _rates(processor: ProcessorMixin) -> dict[str, Any]:
    """How many frames a video is sampled to, one where the VLM took a patch of several."""
    old = processor.video_processor
    together, rates = old.temporal_patch_size, {}
    if old.fps is not None:
        rates["fps"] = old.fps / together
    for name in ("num_frames", "min_frames", "max_frames"):
        if getattr(old, name) is not None:
            rates[name] = max(1, getattr(old, name) // together)
    return rates


ADAPTERS = (Qwen25VLAdapter(), Qwen3VLAdapter())
