# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How much a clip moves, by dense optical flow, and how much of one thing it shows, by its frames' embeddings."""

import itertools
from collections.abc import Sequence

import numpy as np

from turingvit_hf.curation.optional import require


# the shorter side at which flow is computed; larger frames give the same shares of the diagonal, more slowly
FLOW_SIDE = 256
# the least frame that DIS flow takes
MIN_SIDE = 16


def measure_motion(frames: Sequence[np.ndarray], seconds_apart: float) -> dict[str, float]:
    """Return how fast a clip moves.

    The flow between frames that follow one another is by DIS (Kroeger et al. 2016, OpenCV's fast preset). Its mean
    length over the pixels, as a share of the diagonal and a second, is a pair's speed.

    Args:
        frames: at least one (H, W, 3) uint8, all of one size.
        seconds_apart: the time from a frame to the next, above 0. Dividing by it keeps the figures the same for a clip
            that is sampled more often.

    Returns:
        `motion`: mean speed over the pairs, in diagonals a second; 0 of a single frame. `motion_variation`: standard
        deviation over mean: a hidden cut is one fast pair among slow ones, at or above 2, steady motion is near 0; 0
        where nothing moves.

    Raises:
        ValueError: there is no frame, sizes differ, a frame's side is below 16 pixels, or the time is not above 0.
        InputError: OpenCV is not installed.
    """
    shapes = {frame.shape for frame in frames}
    if len(shapes) != 1 or min(next(iter(shapes))[:2]) < MIN_SIDE:
        raise ValueError(f"frames of one size, each side at least {MIN_SIDE} pixels, are needed; got {sorted(shapes)}")
    if not seconds_apart > 0:
        raise ValueError(f"{seconds_apart=} must be above 0")
    if len(frames) == 1:
        return {"motion": 0.0, "motion_variation": 0.0}
    cv2 = require("cv2", "curate")
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    grays = [_gray(cv2, frame) for frame in frames]
    diagonal = float(np.hypot(*grays[0].shape))
    speeds = [
        float(np.linalg.norm(flow.calc(before, after, None), axis=-1).mean()) / diagonal / seconds_apart
        for before, after in itertools.pairwise(grays)
    ]
    mean = float(np.mean(speeds))
    return {"motion": mean, "motion_variation": float(np.std(speeds)) / mean if mean > 0 else 0.0}


def measure_consistency(embeddings: np.ndarray) -> dict[str, float]:
    """Return how alike a clip's frames are.

    Args:
        embeddings: (F, E) unit vectors of its frames in order, F >= 1.

    Returns:
        Cosines: `adjacent_mean` and `adjacent_min` of frames that follow one another, `first_mean` and `first_min` of
        each later frame and the first. All 1 of a single frame. A low minimum means a cut, a high mean a still.

    Raises:
        ValueError: not such an array, or rows that are not of length 1.
    """
    vectors = np.asarray(embeddings, np.float64)
    if vectors.ndim != 2 or not len(vectors):
        raise ValueError(f"embeddings must be (F, E) with F >= 1, got {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.allclose(lengths, 1, atol=1e-2):  # half precision keeps three digits
        raise ValueError(f"embeddings must have length 1, got {lengths.min():.3f} to {lengths.max():.3f}")
    vectors = vectors / lengths[:, None]
    if len(vectors) == 1:
        return dict.fromkeys(("adjacent_mean", "adjacent_min", "first_mean", "first_min"), 1.0)
    adjacent = (vectors[1:] * vectors[:-1]).sum(1)
    first = vectors[1:] @ vectors[0]
    return {
        "adjacent_mean": float(adjacent.mean()),
        "adjacent_min": float(adjacent.min()),
        "first_mean": float(first.mean()),
        "first_min": float(first.min()),
    }


def motion_frame_indices(
    first: int, count: int, fps: float, *, rate: float, max_frames: int
) -> tuple[list[int], float]:
    """Return the frames of a stretch between which motion is measured, evenly apart, and the seconds between them.

    They follow one another without a gap over the whole stretch, so that a cut in it lies between two of them.

    Args:
        first: index of the stretch's first frame.
        count: its number of frames, at least 1.
        fps: the video's frames a second.
        rate: how many a second are wanted.
        max_frames: no more than so many, at least 2; a long stretch is sampled less often.
    """
    if count < 1 or max_frames < 2 or not fps > 0 or not rate > 0:
        raise ValueError(f"{count=} >= 1, {max_frames=} >= 2, and {fps=} and {rate=} above 0 are needed")
    step = max(1, round(fps / rate), -(-(count - 1) // (max_frames - 1)))
    return list(range(first, first + count, step)), step / fps


def _gray(cv2, frame: np.ndarray) -> np.ndarray:
    gray = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    scale = FLOW_SIDE / min(gray.shape)
    if scale < 1:
        size = (max(MIN_SIDE, round(gray.shape[1] * scale)), max(MIN_SIDE, round(gray.shape[0] * scale)))
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(gray)
