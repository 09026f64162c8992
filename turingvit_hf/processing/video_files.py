# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Frames out of video files, by PyAV, which is optional: only reading a file needs it."""

import os
from collections.abc import Callable

import numpy as np
from transformers.video_utils import VideoMetadata


def read_frames(
    path: str | os.PathLike, choose: Callable[..., list[int]] | None = None
) -> tuple[list[np.ndarray], VideoMetadata]:
    """Return the frames of a video file, upright, each (H, W, 3) uint8, and what the file says of itself.

    `choose(metadata=...)` names the indices of the frames to keep; without it all are kept. The file is read
    in order up to the last frame wanted: jumping to a time gives other frames in other containers.

    Raises:
        ImportError: if PyAV is not installed.
        ValueError: if the file cannot be read or holds no video.
    """
    try:
        import av  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise ImportError(
            f"reading the video file {os.fspath(path)!r} needs PyAV: pip install 'turingvit_hf[video]'. "
            "Frames can be passed without it."
        ) from error
    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{os.fspath(path)!r} holds no video")
            # counted, since what containers say of their frames is often missing and sometimes wrong
            total_num_frames = sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))
        with av.open(os.fspath(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate) if stream.average_rate else None
            metadata = VideoMetadata(
                total_num_frames=total_num_frames,
                fps=rate,
                width=stream.width,
                height=stream.height,
                duration=total_num_frames / rate if rate else None,
                video_backend="pyav",
            )
            wanted = set(choose(metadata=metadata) if choose else range(total_num_frames))
            frames = {}
            for index, frame in enumerate(container.decode(stream)):
                if index in wanted:
                    # the angle is how far the picture has to be turned counter-clockwise to stand upright
                    frames[index] = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
                if len(frames) == len(wanted):
                    break
    except av.FFmpegError as error:
        raise ValueError(f"cannot read the video {os.fspath(path)!r}: {error}") from error
    if not frames:
        raise ValueError(f"none of the {total_num_frames} frames of {os.fspath(path)!r} can be decoded")
    metadata.frames_indices = list(frames)
    return list(frames.values()), metadata
