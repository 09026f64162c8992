# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Perceptual hashes, by which pictures are found that were encoded anew or resized."""

import numpy as np
from PIL import Image

from turingvit_hf.curation.optional import require
from turingvit_hf.curation.steps.base import Batch, Step
from turingvit_hf.curation.steps.quality import reduced_gray


# a hash is read off 32 x 32 pixels; Pillow's filter, on which it depends, takes 5 ms from a megapixel and 1 from this
LONG_SIDE = 512
COLOR_FIELDS = 4
THUMBNAIL = 16
NAMES = ("phash", "dhash", "color_grid", "thumbnail")


class HashImages(Step):
    """Hashes images by what they look like.

    New columns, None where there is no image: `phash` and `dhash`, 64 bits as 16 hex digits, by ImageHash;
    `color_grid`, the mean colors of 4 x 4 fields as 96 hex digits, since both hashes see gray alone; `thumbnail`,
    16 x 16 gray pixels as 512 hex digits, for pictures in which a pHash is noise.

    Raises:
        InputError: ImageHash or OpenCV is not installed.
    """

    name = "hashes"
    reads = ("image",)

    def __call__(self, batch: Batch) -> Batch:
        """Return the new columns of a batch."""
        grays = batch.get("gray") or [None] * len(batch["image"])
        rows = [
            hash_image(image, gray) if image is not None else {}
            for image, gray in zip(batch["image"], grays, strict=True)
        ]
        return {name: [row.get(name) for row in rows] for name in NAMES}


def hash_image(image: np.ndarray, gray: np.ndarray | None = None) -> dict[str, str]:
    """Return the hashes of an RGB image (H, W, 3), uint8, in hex.

    `phash`: signs of the 8 x 8 lowest cosine coefficients against their median. `dhash`: whether each of 8 x 8 pixels
    is darker than its right neighbor. Both of the gray image at a long side of at most 512. `color_grid`: red, green
    and blue of 4 x 4 fields, row by row, one byte each. `thumbnail`: 16 x 16 gray pixels likewise.

    `gray` is the image as `MeasureQuality` has reduced it, which saves doing so again and changes nothing.
    """
    imagehash, cv2 = require("imagehash"), require("cv2")
    # what quality was measured on is the same picture where it was reduced to the same size
    is_reduced_alike = gray is not None and max(gray.shape) == min(LONG_SIDE, max(image.shape[:2]))
    reduced = gray if is_reduced_alike else reduced_gray(image, LONG_SIDE)
    picture = Image.fromarray(reduced)
    grid = cv2.resize(image, (COLOR_FIELDS, COLOR_FIELDS), interpolation=cv2.INTER_AREA)
    return {
        "phash": str(imagehash.phash(picture)),
        "dhash": str(imagehash.dhash(picture)),
        "color_grid": grid.tobytes().hex(),
        "thumbnail": cv2.resize(reduced, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).tobytes().hex(),
    }
