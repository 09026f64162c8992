# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Chunks as clips of their own: the bytes of a small video file that any player and stage 4 of pretraining read."""

import io
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from transformers.video_utils import VideoMetadata

from turingvit_hf.curation.optional import require
from turingvit_hf.curation.video.shots import Chunk
from turingvit_hf.processing.video_files import ClipError, read_frames


# frames that are in memory at a time
BLOCK = 16
# H.264 is what everything plays; MPEG-4 Part 2 is in FFmpeg itself and so in every build
CODECS = ("libx264", "mpeg4")


def encode_chunk(video: str | bytes, chunk: Chunk, *, max_side: int | None = None, quality: int = 20) -> bytes:
    """Return a chunk as an MP4 file without sound, encoded anew, since a cut between key frames needs it.

    Args:
        video: the whole video: a path, or the content of a file.
        chunk: the stretch.
        max_side: the longer side in pixels is made at most this; None keeps it.
        quality: x264's constant rate factor, 0 (no loss) to 51; for MPEG-4 Part 2 a quantizer of the same order.

    Raises:
        ClipError: the video cannot be read, or the stretch holds no frame.
        InputError: PyAV is not installed.
    """
    av = require("av", "video")
    buffer, stream = io.BytesIO(), None
    with av.open(buffer, "w", format="mp4") as container:
        for frame in _frames(video, chunk):
            if stream is None:
                stream = _add_stream(av, container, _clip_size(frame, max_side), chunk.fps, quality)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(width=stream.width, height=stream.height, format="yuv420p")
            container.mux(stream.encode(picture))
        if stream is None:
            raise ClipError("video has no frames", f"there are no frames from {chunk.first_frame} on")
        container.mux(stream.encode())
    return buffer.getvalue()


def _frames(video: str | bytes, chunk: Chunk) -> Iterator[np.ndarray]:
    def of_block(start: int, metadata: VideoMetadata) -> list[int]:
        return list(range(start, min(start + BLOCK, after, metadata.total_num_frames)))

    after = chunk.first_frame + chunk.num_frames
    for start in range(chunk.first_frame, after, BLOCK):
        yield from read_frames(video, lambda metadata, start=start: of_block(start, metadata))[0]


def _clip_size(frame: np.ndarray, max_side: int | None) -> tuple[int, int]:
    """Width and height, both even, as 4:2:0 wants them."""
    height, width = frame.shape[:2]
    scale = min(1.0, max_side / max(height, width)) if max_side else 1.0
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def _add_stream(av, container, size: tuple[int, int], fps: float, quality: int):
    codec = next(name for name in CODECS if name in av.codecs_available)
    stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1  # with more the bytes would depend on the machine
    if codec == "libx264":
        stream.options = {"crf": str(quality), "preset": "fast"}
    else:
        stream.codec_context.qmin = stream.codec_context.qmax = max(1, round(quality / 4))
    return stream
