# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How images reach the tower: in their own resolution, or cut into squares of one side."""

import copy
import math
from typing import Any

from turingvit_hf.integrations.vlm_families.adapter import SwapRequest
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


def native_image_processor(
    request: SwapRequest, *, merge_size: int, fewest: int = 1, share: int = 2
) -> TuringViTImageProcessor:
    """The tower's image processor for a VLM of native resolution: sizes told, sides and limit in merged patches.

    Args:
        request: What was asked for; without `max_image_tokens` an image gets what the tower's image processor allows,
            and at most one `share`-th of the language model's context.
        merge_size: How many patches to a side end in one token of the VLM.
        fewest: Tokens that the smallest image has.
        share: See `request`.

    Raises:
        ValueError: `max_image_tokens` is fewer than a square of `fewest` needs, or more than the image processor
            allows.
    """
    allowed = request.image_processor.max_patches // merge_size**2
    wanted = request.max_image_tokens
    if wanted is None:
        context = request.context_length
        wanted = allowed if context is None else min(allowed, context // share)
    least = (math.isqrt(fewest - 1) + 1) ** 2
    if not least <= wanted <= allowed:
        raise ValueError(
            f"max_image_tokens={wanted} must be from {least} to {allowed}, the image processor's max_patches="
            f"{request.image_processor.max_patches} in blocks of {merge_size} x {merge_size}"
        )
    image_processor = copy.deepcopy(request.image_processor)
    image_processor.do_pack = None
    image_processor.return_image_sizes = True
    image_processor.merge_size = merge_size
    image_processor.max_patches = wanted * merge_size**2
    # options that do not fit together, such as a fixed size that is no multiple of the merged patch, are refused here
    image_processor.get_number_of_image_patches(1, 1)
    return image_processor


def most_native_tokens(image_processor: TuringViTImageProcessor) -> int:
    """Most merged patches that an image has after this image processor."""
    unit = image_processor.patch_size * image_processor.merge_size
    if image_processor.resolution == "fixed":
        rows, columns = image_processor.get_grid(1, 1)
        return (rows // image_processor.merge_size) * (columns // image_processor.merge_size)
    limit = image_processor.max_patches // image_processor.merge_size**2
    if image_processor.resolution == "bounded":
        return min(limit, (image_processor.max_side // unit) ** 2)
    return limit


def square_side(request: SwapRequest) -> int:
    """Side in pixels of the squares that the VLM cuts: the one asked for, or the one next to the VLM's own that whole
    tokens fill.

    Raises:
        ValueError: The side asked for is no multiple of a token's side.
    """
    unit, asked = request.unit, request.image_size
    if asked is not None:
        if asked < unit or asked % unit:
            raise ValueError(
                f"image_size={asked} is no positive multiple of {unit} pixels, the side of one token "
                f"(patch_size {request.tower.config.patch_size} times {request.merge_size})"
            )
        return asked
    return max(1, round(request.config.vision_config.image_size / unit)) * unit


def scaled_pinpoints(request: SwapRequest, side: int) -> list[list[int]]:
    """The (height, width) that images are brought to before they are cut, in squares of the new side.

    Raises:
        ValueError: One is no whole number of the VLM's squares.
    """
    old = request.config.vision_config.image_size
    for pinpoint in request.config.image_grid_pinpoints:
        if any(length % old for length in pinpoint):
            raise ValueError(f"image_grid_pinpoints has {list(pinpoint)}, no multiples of the squares' side {old}")
    return [[length // old * side for length in pinpoint] for pinpoint in request.config.image_grid_pinpoints]


def with_settings(processor: Any, **changes: Any) -> Any:
    """A new image or video processor of the same class with these settings changed."""
    return type(processor).from_dict(processor.to_dict() | changes)


def normalization_of(image_processor: TuringViTImageProcessor) -> dict[str, Any]:
    """How the tower's pixels are scaled, for image and video processors of transformers."""
    names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample", "do_convert_rgb")
    return {name: getattr(image_processor, name) for name in names}
