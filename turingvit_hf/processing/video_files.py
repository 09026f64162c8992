# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Frames out of video files, by PyAV, which is optional: only reading a file needs it.

Where torchcodec is installed as well it decodes the frames that PyAV has found, if that gives the same pixels: PyAV
keeps the videos of more than 8 bits and the interlaced ones, whose colors depend on the release of FFmpeg, and the
files that torchcodec stumbles over. Thus the frames and the errors do not depend on what is installed. The exception
are interlaced videos whose header does not say so, as in MPEG-4 Part 2: the same frames, other colors at edges.
"""

import bisect
import functools
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from transformers.video_utils import VideoMetadata


logger = logging.getLogger(__name__)

# FFmpeg's names for the order of fields in a video that has none, or does not say
WITHOUT_FIELDS = (0, 1)  # AV_FIELD_UNKNOWN, AV_FIELD_PROGRESSIVE


class ClipError(ValueError):
    """A video that gives no clip.

    Attributes:
        reason: a short phrase to count by, one of "file is missing", "file has no video stream", "video has no
            frames", "video cannot be read" and "video changes its size".
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def iterate_frames(source: str | os.PathLike | bytes) -> Iterator[np.ndarray]:
    """Yield every frame of a video file in the order it is shown, upright, (H, W, 3) uint8, one in memory at a time.

    A file that ends in the middle of a frame gives the frames before it.

    Args:
        source: a path, or the content of a file.

    Raises:
        ImportError: if PyAV is not installed.
        ClipError: if the file cannot be read, holds no video, or gives no frame.
    """
    name, av = _name_of(source), _import_av(source)
    num_frames = 0
    try:
        with _open(av, source) as container:
            for frame in container.decode(_video_stream(av, container, name)):
                num_frames += 1
                yield _upright(frame)
    except av.FFmpegError as error:
        if not num_frames:
            raise _unreadable(name, error) from error
        logger.debug("%s ends after %d frames: %s", name, num_frames, error)
    if not num_frames:
        raise ClipError("video has no frames", f"{name} has no frames")


def read_frames(
    source: str | os.PathLike | bytes, choose: Callable[..., list[int]] | None = None
) -> tuple[list[np.ndarray], VideoMetadata]:
    """Return the frames of a video file, upright, each (H, W, 3) uint8, and what the file says of itself.

    Args:
        source: a path, or the content of a file.
        choose: `choose(metadata=...)` names the indices of the frames to keep, or none; without it all are kept. Only
            what lies between them and the key frames before them is decoded, where the file gives each frame a time of
            its own.

    Raises:
        ImportError: if PyAV is not installed.
        ClipError: if the file cannot be read or holds no video; a `ValueError`.
    """
    name, av = _name_of(source), _import_av(source)
    try:
        with _open(av, source) as container:
            stream = _video_stream(av, container, name)
            packets = _Packets.of(container, stream)
            metadata = _metadata(stream, packets.num_frames)
        if packets.num_frames == 0:
            raise ClipError("video has no frames", f"{name} has no frames")
        chosen = choose(metadata=metadata) if choose else list(range(packets.num_frames))
        if not len(chosen):
            return [], metadata
        frames = _read_by_torchcodec(source, packets, chosen)
        if frames is not None:
            metadata.video_backend = "torchcodec"
        elif packets.times:
            frames = _read_by_time(av, source, packets, chosen)
        if frames is None:
            frames = _read_in_order(av, source, chosen)
    except av.FFmpegError as error:
        raise _unreadable(name, error) from error
    if not frames:
        message = f"none of the {packets.num_frames} frames of {name} can be decoded"
        raise ClipError("video cannot be read", message)
    metadata.frames_indices = list(frames)
    return list(frames.values()), metadata


def _name_of(source: str | os.PathLike | bytes) -> str:
    return "a video of bytes" if isinstance(source, bytes) else f"the video {os.fspath(source)!r}"


def _import_av(source: str | os.PathLike | bytes) -> Any:
    try:
        import av  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise ImportError(
            f"reading {_name_of(source)} needs PyAV: pip install 'turingvit_hf[video]'. Frames can be passed without "
            "it."
        ) from error
    return av


def _unreadable(name: str, error: Exception) -> ClipError:
    reason = "file is missing" if isinstance(error, FileNotFoundError) else "video cannot be read"
    return ClipError(reason, f"cannot read {name}: {error}")


@dataclass(frozen=True)
class _Packets:
    """What a file's packets say of its frames.

    They are counted, since what containers say of their frames is often missing and sometimes wrong.
    """

    num_frames: int
    times: list[int]  # of the frames in the order they are shown; empty if not each has a time of its own
    key_times: list[int]  # of those that decoding can start from, ascending
    stream_index: int
    time_base: Fraction  # seconds in a unit of time
    is_plain: bool  # 8 bits and no fields: every decoder makes the same colors of it

    @classmethod
    def of(cls, container: Any, stream: Any) -> "_Packets":
        packets = [
            (packet.pts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size > 0 and not packet.is_discard
        ]
        times = [time for time, _ in packets]
        if any(time is None for time in times) or len(set(times)) < len(times) or _counts_packets(container, stream):
            times = []
        return cls(
            num_frames=len(packets),
            times=sorted(times),
            key_times=sorted(time for time, is_key in packets if is_key) if times else [],
            stream_index=stream.index,
            time_base=stream.time_base,
            is_plain=_is_plain(stream),
        )


def _counts_packets(container: Any, stream: Any) -> bool:
    # AVI numbers what it holds in the order of decoding, which is not that of showing if frames refer to later ones
    return container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


def _is_plain(stream: Any) -> bool:
    pixels = stream.format
    if pixels is None or stream.codec_context.field_order not in WITHOUT_FIELDS:
        return False
    return all(component.bits == 8 for component in pixels.components)


def _open(av: Any, source: str | os.PathLike | bytes) -> Any:
    return av.open(io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source))


def _video_stream(av: Any, container: Any, name: str) -> Any:
    # the cover of a piece of music is a video stream to FFmpeg
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise ClipError("file has no video stream", f"{name} holds no video")
    # files are read by many processes at once, and for a short clip starting threads takes longer than decoding
    streams[0].codec_context.thread_count = 1
    return streams[0]


def _metadata(stream: Any, num_frames: int) -> VideoMetadata:
    rate = float(stream.average_rate) if stream.average_rate else None
    return VideoMetadata(
        total_num_frames=num_frames,
        fps=rate,
        width=stream.width,
        height=stream.height,
        duration=num_frames / rate if rate else None,
        video_backend="pyav",
    )


@functools.cache
def _torchcodec_decoder() -> Any | None:
    """torchcodec's class of video decoders; None where it is not installed or cannot be loaded."""
    try:
        from torchcodec.decoders import VideoDecoder  # pyrefly: ignore[missing-import]
    except (ImportError, OSError, RuntimeError) as error:  # the last two: FFmpeg's or CUDA's libraries are missing
        logger.debug("PyAV decodes videos, since torchcodec cannot be loaded: %s", error)
        return None
    logger.debug("torchcodec decodes videos")
    return VideoDecoder


def _read_by_torchcodec(
    source: str | os.PathLike | bytes, packets: _Packets, chosen: Sequence[int]
) -> dict[int, np.ndarray] | None:
    """The chosen frames by index; None if torchcodec is not there, or cannot give exactly these."""
    decoder_class = _torchcodec_decoder() if packets.times and packets.is_plain and len(chosen) > 0 else None
    if decoder_class is None:
        return None
    wanted = sorted(set(chosen))
    try:
        decoder = decoder_class(
            source if isinstance(source, bytes) else os.fspath(source),
            stream_index=packets.stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            device="cpu",
        )
        batch = decoder.get_frames_at(wanted)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        # PyAV may still read it, or else says what is wrong with it
        logger.debug("torchcodec cannot read what PyAV is asked for now: %s", error)
        return None
    times = [round(seconds / packets.time_base) for seconds in batch.pts_seconds.tolist()]
    if times != [packets.times[index] for index in wanted]:
        return None
    return dict(zip(wanted, batch.data.numpy(), strict=True))


def _read_in_order(av: Any, source: str | os.PathLike | bytes, chosen: Sequence[int]) -> dict[int, np.ndarray]:
    """The chosen frames by index, all before the last one being decoded."""
    wanted = set(chosen)
    frames = {}
    with _open(av, source) as container:
        stream = _video_stream(av, container, "it")
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                frames[index] = _upright(frame)
            if len(frames) == len(wanted):
                break
    return frames


def _read_by_time(
    av: Any, source: str | os.PathLike | bytes, packets: _Packets, chosen: Sequence[int]
) -> dict[int, np.ndarray] | None:
    """The chosen frames by index, found by their times; None if the decoder gives other times than the packets.

    From one frame to the next the file is jumped in only if a key frame lies between them.
    """
    frames = {}
    with _open(av, source) as container:
        stream = _video_stream(av, container, "it")
        decoded = container.decode(stream)
        position = packets.times[0]
        for index in sorted(set(chosen)):
            time = packets.times[index]
            before = bisect.bisect_right(packets.key_times, time)
            if before and (key_time := packets.key_times[before - 1]) > position:
                container.seek(key_time, stream=stream)
                decoded = container.decode(stream)
            for frame in decoded:
                if frame.pts is None or frame.pts >= time:
                    break
            else:
                return None
            if frame.pts != time:
                return None
            frames[index] = _upright(frame)
            position = time
    return frames


def _upright(frame: Any) -> np.ndarray:
    # one thread here as well: waiting for more takes several times as long as converting a small frame
    pixels = frame.reformat(format="rgb24", threads=1).to_ndarray()
    # the angle is how far the picture has to be turned counter-clockwise to stand upright
    return np.rot90(pixels, k=round(frame.rotation / 90))
