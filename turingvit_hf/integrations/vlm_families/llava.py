# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""LLaVA-1.5 and Pixtral in native resolution, LLaVA-NeXT and LLaVA-OneVision in squares, and Mistral3.

All are transformers' own classes. They read the tower's last hidden state, after the final norm, and every token of
it: a TuringViT has no class token that would have to be dropped.
"""

from typing import Any

from transformers import (
    LlavaNextProcessor,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    PixtralProcessor,
    PreTrainedConfig,
    ProcessorMixin,
)

from turingvit_hf.integrations.vlm_families.adapter import SwapRequest, TowerAdapter
from turingvit_hf.integrations.vlm_families.images import (
    most_native_tokens,
    native_image_processor,
    normalization_of,
    scaled_pinpoints,
    square_side,
    with_settings,
)
from turingvit_hf.processing.processing_llava import TuringViTLlavaProcessor


class LlavaAdapter(TowerAdapter):
    """LLaVA-1.5, and Pixtral, which is a LLaVA with another processor: each image in its own resolution."""

    model_types = ("llava",)
    processors: tuple[type, ...] = (LlavaProcessor, TuringViTLlavaProcessor, PixtralProcessor)
    min_tokens = 1

    def check(self, request: SwapRequest) -> None:
        """Raises ValueError for a processor of another family, and for an option that has no meaning here."""
        check_processor_class(request, self.processors)
        if request.image_size is not None:
            raise ValueError(
                f"image_size={request.image_size}: a {type(request.config).__name__} with a TuringViT keeps each "
                "image's own resolution; bound it by max_image_tokens"
            )

    def config_changes(self, request: SwapRequest, vision_config: PreTrainedConfig) -> dict[str, Any]:
        """The last layer, all tokens, and a nominal number of them."""
        return {
            "vision_config": vision_config,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "image_seq_length": max(1, vision_config.image_size // vision_config.patch_size) ** 2,
        }

    def make_processor(self, request: SwapRequest, config: PreTrainedConfig) -> ProcessorMixin:
        """One that counts tokens image by image, with the tokens that end rows where the VLM has them."""
        old = request.processor
        image_break_token = getattr(old, "image_break_token", None)
        return TuringViTLlavaProcessor(
            native_image_processor(
                request,
                merge_size=request.merge_size * self.projector_merge_size(config),
                fewest=self.min_tokens,
                # in the worst case, a column of tokens, there are as many ends of rows as tokens
                share=2 if image_break_token is None else 4,
            ),
            old.tokenizer,
            chat_template=old.chat_template,
            image_token=old.image_token,
            image_break_token=image_break_token,
            image_end_token=getattr(old, "image_end_token", None),
            min_tokens=self.min_tokens,
            context_length=request.context_length,
        )

    def projector_merge_size(self, config: PreTrainedConfig) -> int:
        """How many of the tower's tokens to a side the projector merges."""
        return 1

    def image_tokens(self, processor: Any, config: PreTrainedConfig) -> int:
        """The merged patches of the largest image, and as many ends of rows if it is a column of them."""
        features = most_native_tokens(processor.image_processor)
        return features if processor.image_break_token is None else 2 * features


class Mistral3Adapter(LlavaAdapter):
    """Mistral3: native resolution, and a projector that merges two by two tokens with a matrix of its own."""

    model_types = ("mistral3",)
    processors = (PixtralProcessor, TuringViTLlavaProcessor)
    # transformers 5.23 squeezes a batch of one token away: Mistral3Model.get_image_features
    min_tokens = 2

    def config_changes(self, request: SwapRequest, vision_config: PreTrainedConfig) -> dict[str, Any]:
        """The last layer."""
        return {"vision_config": vision_config, "vision_feature_layer": -1}

    def projector_merge_size(self, config: PreTrainedConfig) -> int:
        """Its `spatial_merge_size`."""
        return config.spatial_merge_size


class SquaresAdapter(TowerAdapter):
    """What LLaVA-NeXT and LLaVA-OneVision share: an image as a whole and in parts, all squares of one side."""

    processors: tuple[type, ...] = ()

    def check(self, request: SwapRequest) -> None:
        """Raises ValueError for a processor of another family, a side that does not fit, and a meaningless option."""
        check_processor_class(request, self.processors)
        if request.max_image_tokens is not None:
            raise ValueError(
                f"max_image_tokens={request.max_image_tokens}: a {type(request.config).__name__} cuts images into "
                "squares; choose their side by image_size"
            )
        scaled_pinpoints(request, square_side(request))

    def make_tower(self, request: SwapRequest):
        """The tower, whose nominal size is now that of the squares: the VLM reads the number of tokens from it."""
        request.tower.config.image_size = square_side(request)
        return super().make_tower(request)

    def config_changes(self, request: SwapRequest, vision_config: PreTrainedConfig) -> dict[str, Any]:
        """The last layer, all tokens, and sizes in squares of the new side."""
        return {
            "vision_config": vision_config,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "image_grid_pinpoints": scaled_pinpoints(request, vision_config.image_size),
        }

    def image_tokens(self, processor: Any, config: PreTrainedConfig) -> int:
        """The whole, every part, and a token for the end of each row."""
        side = config.vision_config.image_size
        per_side = side // config.vision_config.patch_size
        parts = [(height // side, width // side) for height, width in config.image_grid_pinpoints]
        return max(
            per_side**2 + int(min(rows * columns, self.most_parts(config)) * per_side**2) + rows * per_side
            for rows, columns in parts
        )

    def most_parts(self, config: PreTrainedConfig) -> float:
        """Where the family shrinks what has more parts than this."""
        return float("inf")


class LlavaNextAdapter(SquaresAdapter):
    """LLaVA-NeXT (1.6)."""

    model_types = ("llava_next",)
    processors = (LlavaNextProcessor,)

    def config_changes(self, request: SwapRequest, vision_config: PreTrainedConfig) -> dict[str, Any]:
        """Those of all squares, and the tokens of one."""
        tokens = (vision_config.image_size // vision_config.patch_size) ** 2
        return super().config_changes(request, vision_config) | {"image_seq_length": tokens}

    def make_processor(self, request: SwapRequest, config: PreTrainedConfig) -> ProcessorMixin:
        """The family's own processor with the new squares."""
        old, side = request.processor, config.vision_config.image_size
        image_processor = with_settings(
            old.image_processor,
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=config.image_grid_pinpoints,
            **normalization_of(request.image_processor),
        )
        return type(old)(
            image_processor=image_processor,
            tokenizer=old.tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy="full",
            chat_template=old.chat_template,
            image_token=old.image_token,
            num_additional_image_tokens=0,
        )


class LlavaOnevisionAdapter(SquaresAdapter):
    """LLaVA-OneVision: one image in squares, several images each as one square, and video."""

    model_types = ("llava_onevision",)
    processors = (LlavaOnevisionProcessor,)

    def most_parts(self, config: PreTrainedConfig) -> float:
        """What is more than 1.1² times the number in `vision_aspect_ratio` is shrunk to that number."""
        return 1.1**2 * int(config.vision_aspect_ratio.removeprefix("anyres_max_"))

    def make_processor(self, request: SwapRequest, config: PreTrainedConfig) -> ProcessorMixin:
        """The family's own processor with the new squares, for images and videos."""
        old, side = request.processor, config.vision_config.image_size
        settings = {"size": {"height": side, "width": side}, **normalization_of(request.image_processor)}
        return type(old)(
            image_processor=with_settings(
                old.image_processor, image_grid_pinpoints=config.image_grid_pinpoints, **settings
            ),
            tokenizer=old.tokenizer,
            video_processor=None if old.video_processor is None else with_settings(old.video_processor, **settings),
            num_image_tokens=(side // config.vision_config.patch_size) ** 2,
            vision_feature_select_strategy="full",
            chat_template=old.chat_template,
            image_token=old.image_token,
            video_token=old.video_token,
            vision_aspect_ratio=config.vision_aspect_ratio,
        )


def check_processor_class(request: SwapRequest, processors: tuple[type, ...]) -> None:
    """Raises ValueError for a processor of another family."""
    if not isinstance(request.processor, processors):
        raise ValueError(
            f"a {type(request.config).__name__} goes with {' or '.join(kind.__name__ for kind in processors)}, got a "
            f"{type(request.processor).__name__}"
        )


ADAPTERS = (LlavaAdapter(), Mistral3Adapter(), LlavaNextAdapter(), LlavaOnevisionAdapter())
