# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Parts of pictures: which one is drawn, and the pixels of it."""

import math
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image

from turingvit_hf.training.arguments import ResolutionRecipe


# of a random crop to a fixed size, as in Inception and torchvision's RandomResizedCrop
CROP_ASPECTS = (3 / 4, 4 / 3)
CROP_TRIES = 10

Box = tuple[int, int, int, int]  # top, left, height, width


def draw_box(height: int, width: int, resolution: ResolutionRecipe, *, rng: random.Random | None) -> Box:
    """Return the part of an image that is taken: an area drawn from `crop_scale`, anywhere.

    For a fixed size its aspect ratio is drawn too, from `CROP_ASPECTS`; else it is the image's own.
    """
    scale = resolution.crop_scale
    if rng is None or scale == (1.0, 1.0):
        return 0, 0, height, width
    lowest, highest = (math.log(aspect) for aspect in CROP_ASPECTS)
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = width / height
        if resolution.mode == "fixed":
            aspect = math.exp(rng.uniform(lowest, highest))
        box_height, box_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = rng.randint(0, height - box_height), rng.randint(0, width - box_width)
            return top, left, box_height, box_width
    return 0, 0, height, width


def cut(pixels: np.ndarray, box: Box, flip: bool) -> np.ndarray:
    """Return the box of (3, H, W) pixels, left and right exchanged if it is flipped; a view."""
    top, left, height, width = box
    part = pixels[:, top : top + height, left : left + width]
    return part[:, :, ::-1] if flip else part


def reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Return a copy of (3, H, W) pixels, each side divided by the factor: packs of photos would take gigabytes."""
    if factor < 2 or min(pixels.shape[1:]) < 2 * factor:
        return np.ascontiguousarray(pixels)
    image = Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1))).reduce(factor)
    return np.ascontiguousarray(np.moveaxis(np.asarray(image), -1, 0))


def is_reduced(shape: Sequence[int], expected: tuple[int, int]) -> bool:
    """Return whether a decoded (height, width) is `expected` or 1/2, 1/4 or 1/8 of it, rounded up."""
    return any(tuple(shape) == tuple(-(-side // factor) for side in expected) for factor in (1, 2, 4, 8))


def is_turned(shape: Sequence[int], expected: tuple[int, int]) -> bool:
    """Return whether a decoded (height, width) is `expected` with its sides exchanged, and is not so as it is."""
    return not is_reduced(shape, expected) and is_reduced(shape, (expected[1], expected[0]))
