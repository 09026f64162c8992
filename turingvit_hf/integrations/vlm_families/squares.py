# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""InternVL, Gemma 3, PaliGemma, Idefics3 and SmolVLM: every picture that reaches the tower is a square of one side.

Each is transformers' own class, and each of their projectors turns a square of tokens into a number of image tokens
that the processor knows beforehand; where it merges tokens, the side is a multiple of what it merges.
"""

import math
from typing import Any

from transformers import (
    Gemma3Processor,
    Idefics3Processor,
    InternVLProcessor,
    PaliGemmaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    SmolVLMProcessor,
)
from transformers import initialization as init

from turingvit_hf.integrations.vlm_families.adapter import SwapRequest, TowerAdapter
from turingvit_hf.integrations.vlm_families.images import normalization_of, with_settings
from turingvit_hf.integrations.vlm_families.llava import check_processor_class


class SquareAdapter(TowerAdapter):
    """What these families share: the side of the squares, which the tower has as its nominal size."""

    processors: tuple[type, ...] = ()

    def check(self, request: SwapRequest) -> None:
        """Raises ValueError for a processor of another family, a side that does not fit, and a meaningless option."""
        check_processor_class(request, self.processors)
        if request.max_image_tokens is not None:
            raise ValueError(
                f"max_image_tokens={request.max_image_tokens}: a {type(request.config).__name__} sees squares of one "
                "side; choose it by image_size"
            )
        self.side(request)

    def tokens_to_a_side(self, config: PreTrainedConfig) -> int:
        """What the number of the tower's tokens to a side must be a multiple of."""
        return 1

    def side(self, request: SwapRequest) -> int:
        """Side in pixels: the one asked for, or the next to the VLM's own of which the projector leaves no rest.

        Raises:
            ValueError: The side asked for leaves one, or the VLM's own pictures are no squares.
        """
        multiple = self.tokens_to_a_side(request.config)
        step, asked = request.unit * multiple, request.image_size
        if asked is not None:
            if asked < step or asked % step:
                raise ValueError(
                    f"image_size={asked} is no positive multiple of {step} pixels: {multiple} tokens to a side of "
                    f"{request.unit} pixels each"
                )
            return asked
        own = request.config.vision_config.image_size
        sides = {own} if isinstance(own, int) else set(own)
        if len(sides) > 1:
            raise ValueError(f"this {type(request.config).__name__} has pictures of {list(own)} pixels, not squares")
        return max(1, round(sides.pop() / step)) * step

    def make_tower(self, request: SwapRequest) -> PreTrainedModel:
        """The tower, whose nominal size is now that of the squares: the VLM reads the number of tokens from it."""
        request.tower.config.image_size = self.side(request)
        return super().make_tower(request)


class InternVLAdapter(SquareAdapter):
    """InternVL: an image as up to twelve squares and a small copy of the whole, a video as a square for each frame."""

    model_types = ("internvl",)
    processors = (InternVLProcessor,)

    def tokens_to_a_side(self, config: PreTrainedConfig) -> int:
        """Two by two tokens become one, by its usual `downsample_ratio`."""
        return int(1 / config.downsample_ratio)

    def config_changes(self, request: SwapRequest, vision_config: PreTrainedConfig) -> dict[str, Any]:
        """The last layer, all tokens, and the tokens of a square."""
        return {
            "vision_config": vision_config,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "image_seq_length": (_per_side(vision_config) // self.tokens_to_a_side(request.config)) ** 2,
        }

    def make_processor(self, request: SwapRequest, config: PreTrainedConfig) -> ProcessorMixin:
        """The family's own processor with the new squares, for images and videos."""
        old, side = request.processor, config.vision_config.image_size
        settings = {"size": {"height": side, "width": side}, **normalization_of(request.image_processor)}
        video_processor = old.video_processor
        return type(old)(
            image_processor=with_settings(old.image_processor, **settings),
            tokenizer=old.tokenizer,
            video_processor=None if video_processor is None else with_settings(video_processor, **settings),
            image_seq_length=config.image_seq_length,
            chat_template=old.chat_template,
        )

    def image_tokens(self, processor: Any, config: PreTrainedConfig) -> int:
        """The most squares, the whole beside them, and the tokens for start and end."""
        most = processor.image_processor.max_patches
        return (most + (most > 1)) * config.image_seq_length + 2


class Gemma3Adapter(SquareAdapter):
    """Gemma 3: an image as one square, averaged to a fixed number of tokens; with pan and scan as several."""

    model_types = ("gemma3",)
    processors = (Gemma3Processor,)

    def tokens_to_a_side(self, config: PreTrainedConfig) -> int:
        """The average pooling leaves as many as before."""
        return math.isqrt(config.mm_tokens_per_image)

    def make_processor(self, request: SwapRequest, config: PreTrainedConfig) -> ProcessorMixin:
        """The family's own processor with the new square."""
        old, side = request.processor, config.vision_config.image_size
        return type(old)(
            image_processor=with_settings(
                old.image_processor,
                size={"height": side, "width": side},
                **normalization_of(request.image_processor),
            ),
            tokenizer=old.tokenizer,
            chat_template=old.chat_template,
            image_seq_length=config.mm_tokens_per_image,
        )

    def image_tokens(self, processor: Any, config: PreTrainedConfig) -> int:
        """Its tokens, and those for start and end; pan and scan, which a call may ask for, has more."""
        return config.mm_tokens_per_image + 2

    def put_in(self, request: SwapRequest, tower: PreTrainedModel, changes: dict[str, Any]) -> list[str]:
        """As ever, but a new projection starts small instead of at zero.

        Gemma's own initialization is zero: pictures would say nothing at first, and no gradient would reach the tower.
        """
        changed = super().put_in(request, tower, changes)
        projector: Any = request.vlm.get_submodule(self.projector_names[0])
        if f"{self.projector_names[0]}.mm_input_projection_weight" in changed:
            init.normal_(projector.mm_input_projection_weight, mean=0.0, std=request.config.initializer_range)
        return changed


class PaliGemmaAdapter(SquareAdapter):
    """PaliGemma 1 and 2: an image as one square, each of the tower's tokens an image token."""

    model_types = ("paligemma",)
    processors = (PaliGemmaProcessor,)

    def make_tower(self, request: SwapRequest) -> PreTrainedModel:
        """The tower, in whose configuration the VLM looks for the width of its language model."""
        tower = super().make_tower(request)
        tower.config.projection_dim = request.config.projection_dim
        return tower

    def make_processor(self, request: SwapRequest, config: PreTrainedConfig) -> ProcessorMixin:
        """The family's own processor with the new square."""
        old, side = request.processor, config.vision_config.image_size
        return type(old)(
            image_processor=with_settings(
                old.image_processor,
                size={"height": side, "width": side},
                image_seq_length=_per_side(config.vision_config) ** 2,
                **normalization_of(request.image_processor),
            ),
            tokenizer=old.tokenizer,
            chat_template=old.chat_template,
        )

    def image_tokens(self, processor: Any, config: PreTrainedConfig) -> int:
        """The tower's tokens."""
        return processor.image_seq_length

    def put_in(self, request: SwapRequest, tower: PreTrainedModel, changes: dict[str, Any]) -> list[str]:
        """As ever, and the number of image tokens where this VLM keeps it."""
        changed = super().put_in(request, tower, changes)
        request.config.text_config.num_image_tokens = _per_side(tower.config) ** 2
        return changed


class Idefics3Adapter(SquareAdapter):
    """Idefics3: an image as a grid of squares and a small copy of the whole."""

    model_types = ("idefics3",)
    tower_name = "model.vision_model"
    projector_names = ("model.connector",)
    processors = (Idefics3Processor,)

    def check(self, request: SwapRequest) -> None:
        """Raises ValueError for what no square family can do, and for pixels that this one would take for padding."""
        super().check(request)
        own = request.image_processor
        if not own.do_normalize or not any(own.image_mean):
            raise ValueError(
                f"do_normalize={own.do_normalize}, image_mean={own.image_mean}: a black square would be all zeros, "
                f"which a {type(request.config).__name__} takes for padding and drops"
            )

    def tokens_to_a_side(self, config: PreTrainedConfig) -> int:
        """So many become one, by `scale_factor`."""
        return config.scale_factor

    def make_processor(self, request: SwapRequest, config: PreTrainedConfig) -> ProcessorMixin:
        """The family's own processor, with squares of the new side and as many of them."""
        old = request.processor
        return type(old)(
            image_processor=self._squares(request, config, old.image_processor),
            tokenizer=old.tokenizer,
            image_seq_len=self._square_tokens(config),
            chat_template=old.chat_template,
        )

    def image_tokens(self, processor: Any, config: PreTrainedConfig) -> int:
        """All squares with the tokens that tell their places, ends of rows, and the whole."""
        image_processor = processor.image_processor
        rows = math.ceil(image_processor.size["longest_edge"] / image_processor.max_image_size["longest_edge"])
        squares = rows**2 if image_processor.do_image_splitting and rows > 1 else 0
        return (squares + 1) * (processor.image_seq_len + 2) + rows + 2

    def put_in(self, request: SwapRequest, tower: PreTrainedModel, changes: dict[str, Any]) -> list[str]:
        """As ever, and the number of image tokens where this VLM keeps it."""
        changed = super().put_in(request, tower, changes)
        request.vlm.model.image_seq_len = self._square_tokens(request.config)
        return changed

    def _square_tokens(self, config: PreTrainedConfig) -> int:
        return (_per_side(config.vision_config) // config.scale_factor) ** 2

    def _squares(self, request: SwapRequest, config: PreTrainedConfig, processor: Any) -> Any:
        """An image or video processor with squares of the new side, the longest edge having as many as before."""
        side, old = config.vision_config.image_size, processor.max_image_size["longest_edge"]
        size = processor.size
        if size["longest_edge"]:
            size = {"longest_edge": max(1, round(size["longest_edge"] / old)) * side}
        return with_settings(
            processor, size=size, max_image_size={"longest_edge": side}, **normalization_of(request.image_processor)
        )


class SmolVLMAdapter(Idefics3Adapter):
    """SmolVLM 1 and 2: as Idefics3, and a video as a square for each frame."""

    model_types = ("smolvlm",)
    processors = (SmolVLMProcessor,)

    def make_processor(self, request: SwapRequest, config: PreTrainedConfig) -> ProcessorMixin:
        """The family's own processor, with squares of the new side and as many of them, for images and videos."""
        old = request.processor
        video_processor = old.video_processor
        return type(old)(
            image_processor=self._squares(request, config, old.image_processor),
            tokenizer=old.tokenizer,
            video_processor=None if video_processor is None else self._squares(request, config, video_processor),
            image_seq_len=self._square_tokens(config),
            chat_template=old.chat_template,
        )


def _per_side(vision_config: PreTrainedConfig) -> int:
    """The tower's tokens to a side of its nominal square."""
    return vision_config.image_size // vision_config.patch_size


ADAPTERS = (InternVLAdapter(), Gemma3Adapter(), PaliGemmaAdapter(), Idefics3Adapter(), SmolVLMAdapter())
