# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Stands in for transformers' cache of test files: pictures of random pixels in place of those on the hub."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image


PICTURE_SIZES = {"000000039769.jpg": (640, 480), "coco_sample.png": (640, 480)}


@cache
def picture_folder() -> tempfile.TemporaryDirectory:
    """A folder with a picture for each name in `PICTURE_SIZES`, removed when the process ends."""
    folder = tempfile.TemporaryDirectory()
    generator = np.random.default_rng(0)
    for name, (width, height) in PICTURE_SIZES.items():
        pixels = generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path(folder.name) / name)
    return folder


def url_to_local_path(url: str, return_url_if_not_found: bool = True) -> str | None:
    """The path of our picture of that name; for any other file the url itself, or None if not wanted."""
    name = url.rsplit("/", 1)[-1]
    if name in PICTURE_SIZES:
        return str(Path(picture_folder().name) / name)
    return url if return_url_if_not_found else None
