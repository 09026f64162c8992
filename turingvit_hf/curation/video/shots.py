# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Temporal decomposition: a video into shots by PySceneDetect, a shot into chunks of nearly equal length."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from turingvit_hf.curation.optional import require
from turingvit_hf.processing.video_files import ClipError, iterate_frames, read_frames


# the shorter side of the frames that are compared; what differs between shots is seen at this size
COMPARED_SIDE = 128


@dataclass(frozen=True)
class Chunk:
    """A stretch of one shot.

    Attributes:
        first_frame: the index of its first frame in the video.
        num_frames: how many frames it has.
        fps: the video's frames a second.
        shot: the index of the shot it is part of.
    """

    first_frame: int
    num_frames: int
    fps: float
    shot: int

    @property
    def start_ms(self) -> int:
        """Its beginning in milliseconds, at a constant rate of frames."""
        return round(1000 * self.first_frame / self.fps)

    @property
    def end_ms(self) -> int:
        """Its end in milliseconds, exclusive."""
        return round(1000 * (self.first_frame + self.num_frames) / self.fps)


def find_shots(video: str | bytes, *, adaptive_threshold: float = 3.0, min_shot_frames: int = 8) -> list[int]:
    """Return the boundaries of a video's shots: 0, the first frame of each later shot, and the number of frames.

    A cut is where a frame's difference from the one before it, in hue, saturation and lightness, is
    `adaptive_threshold` times that of its neighbors (PySceneDetect's `AdaptiveDetector`), so that fast motion is none.
    Every frame is decoded once.

    Args:
        video: a path, or the content of a file.
        adaptive_threshold: how much larger a cut's difference is, above 0.
        min_shot_frames: a shot is not cut before it has so many frames.

    Raises:
        ClipError: the file gives no frame, or frames of several sizes, which nothing after this could compare.
        InputError: PySceneDetect or OpenCV is not installed.
    """
    cv2 = require("cv2", "curate")
    scenedetect = require("scenedetect", "curate-video")
    detector = scenedetect.AdaptiveDetector(adaptive_threshold=adaptive_threshold, min_scene_len=min_shot_frames)
    cuts, num_frames, last, size = [], 0, None, None
    for frame in iterate_frames(video):
        size = size or frame.shape[:2]
        if frame.shape[:2] != size:
            (height, width), (new_height, new_width) = size, frame.shape[:2]
            message = f"frame {num_frames} has {new_width} x {new_height} pixels, those before {width} x {height}"
            raise ClipError("video changes its size", message)
        # the detector counts frames alone, so any rate will do
        last = scenedetect.FrameTimecode(num_frames, fps=25.0)
        cuts += detector.process_frame(last, _small(cv2, frame))
        num_frames += 1
    cuts += detector.post_process(last)
    inner = sorted({cut.frame_num for cut in cuts if 0 < cut.frame_num < num_frames})
    return [0, *inner, num_frames]


def cut_into_chunks(
    boundaries: list[int], fps: float, *, min_seconds: float = 1.0, max_seconds: float = 10.0
) -> list[Chunk]:
    """Return the chunks of shots, in order: each shot in as few equal parts as `max_seconds` allows.

    Args:
        boundaries: what `find_shots` returned.
        fps: frames a second.
        min_seconds: a shorter shot gives none.
        max_seconds: the longest chunk, at least `min_seconds`.

    Raises:
        ValueError: a rate or length that is not above 0, or `max_seconds` below `min_seconds`.
    """
    if not fps > 0 or not 0 < min_seconds <= max_seconds:
        raise ValueError(f"0 < {min_seconds=} <= {max_seconds=} and {fps=} above 0 are needed")
    chunks = []
    for shot, (start, end) in enumerate(itertools.pairwise(boundaries)):
        if (end - start) / fps < min_seconds:
            continue
        parts = math.ceil((end - start) / fps / max_seconds)
        edges = [start + round(part * (end - start) / parts) for part in range(parts + 1)]
        chunks += [Chunk(first, after - first, fps, shot) for first, after in itertools.pairwise(edges)]
    return chunks


def read_rate(video: str | bytes, *, default: float = 25.0) -> float:
    """Return a video's frames a second by its header; `default` where it names none."""
    _, metadata = read_frames(video, lambda metadata: [])
    return metadata.fps or default


def _small(cv2, frame: np.ndarray) -> np.ndarray:
    """A frame as the detector wants it: (h, w, 3) BGR, the shorter side at most `COMPARED_SIDE`."""
    scale = COMPARED_SIDE / min(frame.shape[:2])
    if scale < 1:
        size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR)
