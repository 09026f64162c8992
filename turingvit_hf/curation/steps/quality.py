# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How sharp and how rich in texture a picture is, as numbers; `decisions.py` says which are too low."""

import math
from types import ModuleType
from typing import Any

import numpy as np

from turingvit_hf.curation.optional import require
from turingvit_hf.curation.steps.base import Batch, Step


# sigmas of the Gaussians before the Laplacian, in pixels: noise is gone at the first, and edges still differ by width
FINE, COARSE = 1.5, 3.0
# the sharpest edges are the thousandth part of the pixels with the largest Laplacian
SHARPEST = 1e-3
# a coarse Laplacian below is rounding of 8-bit pixels: there is no edge whose width could be measured
NO_EDGE = 0.05
# an edge that is no steeper at the fine scale than at the coarse one: wider than can be told apart
WIDEST = 16.0
# hysteresis thresholds of Canny's edges, of the Sobel operator, which takes a step of 25 gray levels to 100; at twice
# that a flag in red and green would have none
CANNY = (50, 100)


class MeasureQuality(Step):
    """Measures size, sharpness and texture of images.

    New columns, all None where there is no image: `min_side` (pixels), `aspect` (longer over shorter side),
    `smooth_laplacian`, `laplacian`, `edge_width`, `gray_entropy` and `edge_share`, as `measure_quality` has them; and
    `gray`, the reduced gray images that they are measured on.

    Args:
        long_side: pixels that larger images are reduced to before they are measured. Sharpness depends on it: a
            picture's Laplacian falls to a quarter from 128 to 512 pixels.

    Raises:
        InputError: OpenCV is not installed.
    """

    name = "quality"
    reads = ("image", "width", "height")
    drafts = ("gray",)

    def __init__(self, *, long_side: int = 512):
        self.long_side = long_side

    def __call__(self, batch: Batch) -> Batch:
        """Return the new columns of a batch; `width` and `height` are the file's, `image` may have been reduced."""
        grays = [None if image is None else reduced_gray(image, self.long_side) for image in batch["image"]]
        rows = [
            measure_gray(gray) | measure_shape(width, height) if gray is not None else {}
            for gray, width, height in zip(grays, batch["width"], batch["height"], strict=True)
        ]
        return {name: [row.get(name) for row in rows] for name in COLUMNS} | {"gray": grays}


COLUMNS = ("min_side", "aspect", "smooth_laplacian", "laplacian", "edge_width", "gray_entropy", "edge_share")


def measure_shape(width: int, height: int) -> dict[str, Any]:
    """Return `min_side`, the shorter side in pixels, and `aspect`, the longer side over the shorter one."""
    return {"min_side": min(width, height), "aspect": max(width, height) / min(width, height)}


def measure_quality(image: np.ndarray, *, long_side: int = 512) -> dict[str, float | None]:
    """Return how sharp and how rich in texture an image is.

    Args:
        image: RGB, (H, W, 3) uint8.
        long_side: it is reduced to this if larger, and never enlarged: that would blur it.

    Returns:
        `laplacian`: variance of the Laplacian of the gray image. `smooth_laplacian`: the same after a Gaussian of
        sigma 1.5, which noise cannot raise. `edge_width`: sigma in pixels of the blur of the sharpest edges, 0 to 16,
        None without edges. `gray_entropy`: Shannon entropy of the 256 gray levels in bits. `edge_share`: share of
        pixels that Canny's detector finds on an edge.

    Raises:
        InputError: OpenCV is not installed.
    """
    return measure_gray(reduced_gray(image, long_side))


def measure_gray(gray: np.ndarray) -> dict[str, float | None]:
    """Return what `measure_quality` does, of a gray image (H, W), uint8."""
    cv2 = require("cv2")
    pixels = gray.astype(np.float32)
    fine = _laplacian(cv2, pixels, FINE)
    coarse = _laplacian(cv2, pixels, COARSE)
    return {
        "laplacian": float(cv2.Laplacian(gray, cv2.CV_32F).var()),
        "smooth_laplacian": float(fine.var()),
        "edge_width": edge_width(fine, coarse),
        "gray_entropy": gray_entropy(gray),
        "edge_share": float(cv2.countNonZero(cv2.Canny(gray, *CANNY)) / gray.size),
    }


def reduced_gray(image: np.ndarray, long_side: int) -> np.ndarray:
    """Return an RGB image (H, W, 3) in gray (H', W'), uint8, its longer side at most `long_side`, by area."""
    cv2 = require("cv2")
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = gray.shape
    scale = long_side / max(height, width)
    if scale >= 1:
        return gray
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA)


def edge_width(fine: np.ndarray, coarse: np.ndarray) -> float | None:
    """Return the sigma, in pixels, of the blur that an image's sharpest edges have.

    A step that was blurred with sigma s and is smoothed with sigma a has a Laplacian that peaks in proportion to
    1 / (s^2 + a^2). The peaks at two scales a give s, whatever the height of the step is. Both images' peaks are read
    at the same quantile, so neither the share of the image that is flat nor its contrast matters, and noise, which
    the coarse scale removes, only little.

    Args:
        fine: Laplacian after a Gaussian of sigma 1.5.
        coarse: Laplacian after a Gaussian of sigma 3.

    Returns:
        0 to 16; None if the image has no edge.
    """
    sharp, soft = _peak(fine), _peak(coarse)
    if soft < NO_EDGE:
        return None
    ratio = sharp / soft
    if ratio <= 1:
        return WIDEST
    squared = (COARSE**2 - FINE**2 * ratio) / (ratio - 1)
    return min(math.sqrt(max(0.0, squared)), WIDEST)


def gray_entropy(gray: np.ndarray) -> float:
    """Return the Shannon entropy of an image's 256 gray levels in bits: 0 of one level, at most 8."""
    counts = np.bincount(gray.ravel(), minlength=256)
    shares = counts[counts > 0] / gray.size
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _laplacian(cv2: ModuleType, pixels: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.Laplacian(cv2.GaussianBlur(pixels, (0, 0), sigma), cv2.CV_32F)


def _peak(laplacian: np.ndarray) -> float:
    """The least of the thousandth part of the pixels with the largest magnitude."""
    magnitudes = np.abs(laplacian).ravel()
    rank = int(magnitudes.size * SHARPEST) + 1
    # a bound that some hundredth of the pixels pass, read off every 61st: sorting those alone gives the same pixel
    sample = magnitudes[::61]
    bound = np.partition(sample, -1 - sample.size // 100)[-1 - sample.size // 100]
    above = magnitudes[magnitudes >= bound]
    candidates = above if above.size >= rank else magnitudes
    return float(np.partition(candidates, candidates.size - rank)[candidates.size - rank])
