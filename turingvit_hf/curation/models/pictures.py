# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures as models behind an endpoint get them: made small here, since decoding is the servers' bottleneck."""

import asyncio
import base64
import io
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from turingvit_hf.curation.models.answers import Question


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


class DataUrls:
    """The images of a batch as JPEGs, each made when the first question about it comes, and let go after the last.

    Args:
        questions: of the batch.
        max_pixels: see `shrink`.
        quality: of the JPEGs.
    """

    def __init__(self, questions: Sequence[Question], max_pixels: int, quality: int):
        self._options = {"max_pixels": max_pixels, "quality": quality}
        self._num_open = Counter(id(image) for question in questions for image in question.images)
        self._made: dict[int, asyncio.Task[str]] = {}

    async def of(self, question: Question) -> list[str]:
        """Return the URLs of the question's images."""
        for image in question.images:
            if id(image) not in self._made:
                making = asyncio.to_thread(to_data_url, image, **self._options)
                self._made[id(image)] = asyncio.create_task(making)
        return [await self._made[id(image)] for image in question.images]

    def release(self, question: Question) -> None:
        """Take note that a question needs its images no more."""
        for image in question.images:
            self._num_open[id(image)] -= 1
            if not self._num_open[id(image)]:
                del self._made[id(image)]
