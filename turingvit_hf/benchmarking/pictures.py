# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures to measure with: sizes of common photographs, and something like a photograph in them."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image


# width : height of common photographs, half of them upright
ASPECTS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16)
JPEG_QUALITY = 90


def draw_size(generator: np.random.Generator, shortest: float, longest: float) -> tuple[int, int]:
    """(height, width) with a longer side uniform in [shortest, longest], in one of the common aspects."""
    side, aspect = generator.uniform(shortest, longest), generator.choice(ASPECTS)
    return max(1, round(side / max(aspect, 1))), max(1, round(side * min(aspect, 1)))


def choose_sizes(
    num_pictures: int,
    shortest: float,
    longest: float,
    grids: Sequence[Callable[[int, int], tuple[int, int]]],
    *,
    tries: int = 20_000,
) -> list[tuple[int, int]]:
    """Sizes for which all `grids` agree: each is rows and columns of patches that a processor gives (height, width).

    Raises:
        RuntimeError: so many tries have not found enough of them.
    """
    generator = np.random.default_rng(0)
    sizes: list[tuple[int, int]] = []
    for _ in range(tries):
        if len(sizes) == num_pictures:
            return sizes
        size = draw_size(generator, shortest, longest)
        if len({tuple(grid(*size)) for grid in grids}) == 1:
            sizes.append(size)
    raise RuntimeError(f"{len(sizes)} of {num_pictures} sizes found in {tries} tries")


def make_pictures(sizes: Sequence[tuple[int, int]]) -> list[Image.Image]:
    """RGB pictures of these (height, width): smooth colors with a little noise."""
    generator = np.random.default_rng(0)
    pictures = []
    for height, width in sizes:
        coarse = generator.integers(0, 256, (-(-height // 24), -(-width // 24), 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        noise = generator.integers(-6, 7, (height, width, 3), dtype=np.int16)
        pictures.append(Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)))
    return pictures


def as_jpeg(picture: Image.Image) -> bytes:
    """The picture as the bytes of a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def decode(jpeg: bytes) -> Image.Image:
    """The RGB picture in a JPEG file."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return image.convert("RGB")
