# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Video files: the right frames, upright, and a clear word where a file or PyAV is missing.

They run with both decoders.
"""

import logging
import sys
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import torch

from turingvit_hf.processing import video_files
from turingvit_hf.processing.video_files import read_frames
from turingvit_hf.processing.video_processing_turingvit import TuringViTVideoProcessor


DECODERS = ("pyav", "torchcodec")


def use_decoder(name, monkeypatch):
    """Let PyAV decode although torchcodec may be there, or skip the test if torchcodec is not."""
    if name == "pyav":
        monkeypatch.setattr(video_files, "_torchcodec_decoder", lambda: None)
    elif video_files._torchcodec_decoder() is None:
        pytest.skip("needs torchcodec, and the libraries it loads")


@pytest.fixture(autouse=True, params=DECODERS)
def decoder(request, monkeypatch):
    use_decoder(request.param, monkeypatch)
    return request.param


def write_video(path, frames, fps=10):
    av = pytest.importorskip("av", reason="video files need the video extra (PyAV)")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def counting_frames(count, height=32, width=48):
    """Frames that say which they are by their brightness, white in the upper left corner."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames += (np.arange(count) * 4 + 40).astype(np.uint8)[:, None, None, None]
    frames[:, : height // 2, : width // 2] = 235
    return frames


def frame_numbers(frames):
    return [round((float(frame[-8:, -8:].mean()) - 40) / 4) for frame in frames]


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "count.mp4"
    write_video(path, counting_frames(40))
    return path


def test_frames_of_a_file_are_the_right_ones(video, decoder):
    frames, metadata = read_frames(video)
    assert metadata.video_backend == decoder
    assert frame_numbers(frames) == list(range(40))
    assert all(frame.shape == (32, 48, 3) and frame.dtype == np.uint8 for frame in frames)
    assert (metadata.total_num_frames, metadata.fps, metadata.height, metadata.width) == (40, 10.0, 32, 48)
    assert metadata.duration == pytest.approx(4.0)
    frames, metadata = read_frames(video, lambda metadata: [3, 17, 39])
    assert frame_numbers(frames) == metadata.frames_indices == [3, 17, 39]


def test_files_are_sampled_unless_told_otherwise(video):
    processor = TuringViTVideoProcessor()
    for source in (video, str(video), [video]):
        assert processor(source).image_grid_thw.tolist() == [[8, 2, 3]]
    assert processor([video, counting_frames(3)]).image_grid_thw.tolist() == [[8, 2, 3], [3, 2, 3]]
    assert processor(video, do_sample_frames=False).image_grid_thw.tolist() == [[40, 2, 3]]
    assert TuringViTVideoProcessor(num_frames=5)(video).image_grid_thw.tolist() == [[5, 2, 3]]
    encoding = processor(video, fps=2, return_metadata=True)
    assert encoding.image_grid_thw.tolist() == [[8, 2, 3]]
    assert encoding["video_metadata"][0].frames_indices == [2, 7, 12, 17, 22, 27, 32, 37]


# display matrices in 16.16 fixed point (a, b, u, c, d, v), and how the stored frames have to be turned for them
ROTATIONS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


@pytest.mark.parametrize("clockwise", ROTATIONS)
def test_rotated_videos_stand_upright(clockwise, tmp_path):
    path = tmp_path / "turned.mp4"
    upright = counting_frames(4)
    write_video(path, np.ascontiguousarray(np.rot90(upright, k=clockwise // 90, axes=(1, 2))))
    content = bytearray(path.read_bytes())
    a, b, c, d = ROTATIONS[clockwise]
    matrix = content.index(b"tkhd") + 4 + 40
    for offset, value in ((0, a), (4, b), (12, c), (16, d)):
        content[matrix + offset : matrix + offset + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    frames, _ = read_frames(path)
    for frame, expected in zip(frames, upright, strict=True):
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).mean() < 6


def test_files_without_video_are_refused(tmp_path):
    pytest.importorskip("av", reason="video files need the video extra (PyAV)")
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for path in (text, tmp_path / "missing.mp4"):
        with pytest.raises(ValueError, match=f"clip 0: cannot read the video .*{path.name}"):
            TuringViTVideoProcessor()(path)


def test_without_pyav_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"film.mp4.*turingvit_hf\[video\]"):
        TuringViTVideoProcessor()("film.mp4")


def test_a_torchcodec_that_does_not_load_is_no_error(monkeypatch, caplog):
    monkeypatch.undo()  # the fixture's stand-in
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with caplog.at_level(logging.DEBUG, video_files.__name__):
        assert video_files._torchcodec_decoder.__wrapped__() is None
    assert "torchcodec cannot be loaded" in caplog.text


class Stumbling:
    """A decoder that refuses every file."""

    def __init__(self, source, **settings):
        raise RuntimeError("no more frames left to decode")


class Shifted:
    """A decoder that gives the frame after the one it is asked for, and says so."""

    def __init__(self, source, **settings):
        assert settings["num_ffmpeg_threads"] == 1

    def get_frames_at(self, indices):
        return FrameBatch(torch.zeros(len(indices), 32, 48, 3, dtype=torch.uint8), (torch.tensor(indices) + 1) / 10)


class FrameBatch(NamedTuple):
    data: torch.Tensor
    pts_seconds: torch.Tensor


@pytest.mark.parametrize("decoder_class", [Stumbling, Shifted])
def test_pyav_reads_what_torchcodec_cannot(decoder_class, video, monkeypatch):
    monkeypatch.setattr(video_files, "_torchcodec_decoder", lambda: decoder_class)
    frames, metadata = read_frames(video, lambda metadata: [3, 17])
    assert frame_numbers(frames) == [3, 17]
    assert metadata.video_backend == "pyav"
