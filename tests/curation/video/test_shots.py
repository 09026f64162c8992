# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Cuts are found to the frame, motion is none, chunks cover their shots, and clips hold the frames they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.curation.video_files import encode, noisy, pan, still, texture
from turingvit_hf.curation.video.clips import encode_chunk
from turingvit_hf.curation.video.shots import Chunk, cut_into_chunks, find_shots, read_rate
from turingvit_hf.processing.video_files import ClipError, iterate_frames, read_frames


def test_cuts_are_found_to_the_frame():
    video = encode([*pan(0, 30, 2), *still(1, 25), *noisy(2, 28)])
    assert find_shots(video) == [0, 30, 55, 83]
    assert read_rate(video) == 24


@pytest.mark.parametrize("frames", [pan(3, 40, 1), pan(3, 40, 12), still(3, 40), noisy(3, 40), [texture(3)]])
def test_motion_noise_and_stills_are_no_cuts(frames):
    assert find_shots(encode(frames)) == [0, len(frames)]


def test_files_and_bytes_are_the_same(tmp_path):
    video = encode([*still(4, 20), *still(5, 20)])
    path = tmp_path / "video.mp4"
    path.write_bytes(video)
    assert find_shots(str(path)) == find_shots(video) == [0, 20, 40]


def test_what_is_no_video_is_refused(tmp_path):
    with pytest.raises(ClipError, match=r"missing|cannot read"):
        find_shots(str(tmp_path / "none.mp4"))
    with pytest.raises(ClipError, match="cannot read"):
        find_shots(b"no video at all")


def test_a_video_that_changes_its_size_is_refused():
    """As a transport stream may, in which one program follows another."""
    video = encode(pan(6, 20, 1), form="mpegts") + encode([texture(7, 160, 160)] * 20, form="mpegts")
    assert {frame.shape for frame in iterate_frames(video)} == {(96, 128, 3), (160, 160, 3)}
    with pytest.raises(ClipError, match="160 x 160 pixels, those before 128 x 96") as raised:
        find_shots(video)
    assert raised.value.reason == "video changes its size"


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=6),
    fps=st.sampled_from([1.0, 10.0, 24.0, 29.97]),
    least=st.floats(0.05, 3),
    more=st.floats(0, 12),
)
def test_chunks_cover_their_shots(lengths, fps, least, more):
    boundaries = [0, *np.cumsum(lengths).tolist()]
    most = least + more
    chunks = cut_into_chunks(boundaries, fps, min_seconds=least, max_seconds=most)
    for shot, length in enumerate(lengths):
        own = [chunk for chunk in chunks if chunk.shot == shot]
        assert bool(own) == (length / fps >= least)
        assert sum(chunk.num_frames for chunk in own) == (length if own else 0)
        position = boundaries[shot]
        for chunk in own:
            assert chunk.first_frame == position
            position += chunk.num_frames
            assert chunk.num_frames / fps <= most + 1 / fps
            assert chunk.end_ms >= chunk.start_ms


def test_wrong_lengths_are_refused():
    for options in ({"min_seconds": 0}, {"min_seconds": 3, "max_seconds": 2}):
        with pytest.raises(ValueError, match="min_seconds"):
            cut_into_chunks([0, 10], 24.0, **options)
    with pytest.raises(ValueError, match="fps"):
        cut_into_chunks([0, 10], 0.0)


def test_a_clip_holds_the_frames_of_its_chunk():
    frames = pan(6, 50, 2)
    video = encode(frames)
    clip = encode_chunk(video, Chunk(first_frame=13, num_frames=21, fps=24.0, shot=0), quality=5)
    found, metadata = read_frames(clip)
    assert len(found) == 21
    assert metadata.fps == 24
    for index, frame in enumerate(found):
        errors = [np.abs(frame.astype(int) - other).mean() for other in frames]
        assert int(np.argmin(errors)) == 13 + index


def test_a_clip_is_the_same_twice_and_can_be_made_smaller():
    video = encode(pan(7, 20, 1))
    chunk = Chunk(first_frame=0, num_frames=20, fps=24.0, shot=0)
    assert encode_chunk(video, chunk) == encode_chunk(video, chunk)
    found, _ = read_frames(encode_chunk(video, chunk, max_side=65))
    assert found[0].shape == (48, 64, 3)
    with pytest.raises(ClipError, match="no frames from 90"):
        encode_chunk(video, Chunk(first_frame=90, num_frames=5, fps=24.0, shot=0))
