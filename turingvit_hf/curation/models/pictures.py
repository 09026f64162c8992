# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures as models behind an endpoint get them: made small here, since decoding is the servers' bottleneck."""

import base64
import io
import math

import numpy as np
from PIL import Image


def shrink(image: np.ndarray, max_pixels: float) -> Image.Image:
    """Return the image with at most `max_pixels` pixels and the same aspect; a smaller one as it is.

    Args:
        image: uint8 (H, W, 3).
        max_pixels: 1 or more, or infinite.
    """
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    if height * width <= max_pixels:
        return picture
    scale = math.sqrt(max_pixels / (height * width))
    # rounded down, so that the limit holds; a 1000:1 picture keeps one pixel on its short side
    width, height = (min(max(1, int(side * scale)), int(max_pixels)) for side in (width, height))
    return picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def to_data_url(image: np.ndarray, *, max_pixels: int, quality: int) -> str:
    """Return a `data:` URL with the image as a JPEG of at most `max_pixels` pixels.

    Args:
        image: uint8 (H, W, 3).
        max_pixels: see `shrink`.
        quality: of the JPEG, 1 to 95.
    """
    file = io.BytesIO()
    shrink(image, max_pixels).save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
