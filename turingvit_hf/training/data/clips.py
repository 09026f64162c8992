# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Clips for training: a few frames of a video file, and one kind of error that readers count by its reason."""

import os
from functools import partial

import numpy as np
from transformers.video_utils import VideoMetadata

from turingvit_hf.processing.geometry import uniform_frame_indices
from turingvit_hf.processing.video_files import ClipError, read_frames


def read_clip(source: str | os.PathLike | bytes, *, num_frames: int) -> list[np.ndarray]:
    """Return up to `num_frames` frames (3, H, W) uint8 at the centers of equal bins of a video, upright and in order.

    A video with fewer frames gives all it has, none twice, as `TuringViTVideoProcessor` does. A still picture is a
    video of one frame. Long files are jumped in, not decoded from their beginning.

    Args:
        source: a path, or the content of a file.
        num_frames: at least 1.

    Raises:
        ClipError: the file cannot be used; its `reason` is a short phrase to count by.
        ImportError: PyAV is not installed.
    """
    frames, _ = read_frames(source, partial(_bin_centers, num_frames=num_frames))
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise ClipError("video changes its size", f"the frames of a clip share one size, got {sorted(shapes)}")
    return [frame.transpose(2, 0, 1) for frame in frames]


def _bin_centers(metadata: VideoMetadata, num_frames: int) -> list[int]:
    return uniform_frame_indices(metadata.total_num_frames, num_frames=num_frames)
