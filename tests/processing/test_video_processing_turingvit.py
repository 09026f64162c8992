# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Laws of the video processor: a clip is its frames, processed as images and packed one after the other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.video_utils import VideoMetadata

from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.processing.video_processing_turingvit import TuringViTVideoProcessor


def noise_clip(frames, height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def counting_clip(frames):
    """A clip whose frames say which they are: frame i is filled with the value i."""
    return np.repeat(np.arange(frames, dtype=np.uint8), 16 * 16 * 3).reshape(frames, 16, 16, 3)


def frame_numbers(encoding):
    """Which frames of a counting clip came out."""
    return np.rint((encoding.pixel_values[:, 0] + 1) * 127.5).astype(int).tolist()


def grid_of(encoding):
    return [tuple(row) for row in encoding["image_grid_thw"].tolist()]


@given(
    clips=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4),
    merge_size=st.integers(1, 2),
)
def test_a_clip_is_its_frames_as_images(clips, merge_size):
    videos = [noise_clip(*shape, seed=index) for index, shape in enumerate(clips)]
    encoding = TuringViTVideoProcessor(merge_size=merge_size)(videos, return_tensors="pt")
    frames = [frame for video in videos for frame in video]
    images = TuringViTImageProcessor(merge_size=merge_size, do_pack=True)(frames, return_tensors="pt")
    torch.testing.assert_close(encoding.pixel_values, images.pixel_values, rtol=0, atol=0)
    grid = encoding.image_grid_thw
    assert grid.dtype == torch.int64
    assert grid[:, 0].tolist() == [frames for frames, _, _ in clips]
    per_frame = grid[:, 1:].repeat_interleave(grid[:, 0], dim=0)
    torch.testing.assert_close(per_frame, images.image_grid_thw[:, 1:])


def test_kinds_of_clips_agree():
    clip = noise_clip(3)
    processor = TuringViTVideoProcessor()
    expected = processor(clip)
    assert list(expected) == ["image_grid_thw", "pixel_values"]
    assert set(processor.model_input_names) == set(expected)
    for video in (
        list(clip),
        [Image.fromarray(frame) for frame in clip],
        [torch.from_numpy(frame) for frame in clip],
        clip.transpose(0, 3, 1, 2),
        torch.from_numpy(clip),
        clip[None],
        [clip],
        [[clip]],
        [[Image.fromarray(frame) for frame in clip]],
    ):
        encoding = processor(video)
        assert grid_of(encoding) == [(3, 3, 4)]
        np.testing.assert_array_equal(encoding.pixel_values, expected.pixel_values)
    gray = processor([frame[:, :, 0] for frame in clip])
    assert grid_of(gray) == [(3, 3, 4)]
    assert grid_of(processor(Image.fromarray(clip[0]))) == [(1, 3, 4)]


def test_nested_clips_come_out_in_order():
    clips = [counting_clip(frames) for frames in (2, 3, 1)]
    encoding = TuringViTVideoProcessor()([[clips[0], clips[1]], [], [list(clips[2])]])
    assert grid_of(encoding) == [(2, 1, 1), (3, 1, 1), (1, 1, 1)]
    assert frame_numbers(encoding) == [0, 1, 0, 1, 2, 0]


def test_frames_are_sampled_only_on_request():
    clip, processor = counting_clip(32), TuringViTVideoProcessor()
    assert frame_numbers(processor(clip)) == list(range(32))
    assert frame_numbers(processor(clip, do_sample_frames=True)) == [2 + 4 * index for index in range(8)]
    assert frame_numbers(processor(clip, num_frames=4)) == [4, 12, 20, 28]
    assert frame_numbers(processor(list(clip), num_frames=4)) == [4, 12, 20, 28]
    assert frame_numbers(processor(clip, fps=2, video_metadata={"fps": 16, "total_num_frames": 32})) == [4, 12, 20, 28]
    assert frame_numbers(processor(clip, num_frames=4, do_sample_frames=False)) == list(range(32))
    assert frame_numbers(processor(counting_clip(3), num_frames=8)) == [0, 1, 2]


def test_stored_sampling_and_the_other_way_to_ask():
    clip = counting_clip(32)
    processor = TuringViTVideoProcessor(num_frames=16, do_sample_frames=True)
    assert len(frame_numbers(processor(clip))) == 16
    metadata = VideoMetadata(total_num_frames=32, fps=16.0)
    encoding = processor([clip, clip], fps=2, video_metadata=[metadata, metadata], return_metadata=True)
    assert grid_of(encoding) == [(4, 1, 1)] * 2
    assert [list(entry.frames_indices) for entry in encoding["video_metadata"]] == [[4, 12, 20, 28]] * 2


def test_bounded_draws_one_size_per_clip():
    videos = [noise_clip(2, 100, 50, seed) for seed in range(12)]
    processor = TuringViTVideoProcessor(resolution="bounded", min_side=32, max_side=96)
    assert grid_of(processor(videos)) == [(2, 6, 3)] * 12
    drawn = grid_of(processor(videos, seed=1))
    assert drawn == grid_of(processor(videos, seed=1))
    assert len(set(drawn)) > 2
    assert all(frames == 2 and 2 <= rows <= 6 for frames, rows, _ in drawn)


def test_fixed_size_and_leaving_it():
    processor = TuringViTVideoProcessor(resolution="fixed", size=64)
    assert grid_of(processor(noise_clip(2))) == [(2, 4, 4)]
    assert grid_of(processor(noise_clip(2), resolution="native")) == [(2, 3, 4)]
    assert grid_of(processor(noise_clip(2), resolution="native", max_patches=6)) == [(2, 2, 3)]


@pytest.mark.parametrize(
    ("videos", "options", "message"),
    [
        ([], {}, "at least one clip"),
        ([[]], {}, "at least one clip"),
        (np.zeros((0, 8, 8, 3), np.uint8), {}, "clip 0: there are no frames"),
        (5, {}, "expected clips"),
        ([None], {}, "expected clips"),
        (np.zeros(3), {}, r"\(3,\)"),
        ([[noise_clip(1)[0], noise_clip(1, 30, 60)[0]]], {}, "clip 0, frame 1 has .*share one size"),
        ([noise_clip(2), np.zeros((2, 8, 8, 5), np.uint8)], {}, r"clip 1, frame 0: .*\(8, 8, 5\)"),
        (noise_clip(2), {"do_resize": False}, "clip 0, frame 0 has 40 x 60"),
        (noise_clip(4), {"fps": 1.0}, "clip 0: fps=1.0 needs"),
        (noise_clip(4), {"fps": 1.0, "num_frames": 2}, "give one of them"),
        ([noise_clip(4)] * 2, {"video_metadata": [{"fps": 2.0, "total_num_frames": 4}]}, "2 clips, but .* for 1"),
        (noise_clip(2), {"resolution": "fixed"}, "needs size"),
        (noise_clip(2), {"size": 32}, "resolution='fixed'"),
    ],
    ids=lambda value: None if isinstance(value, np.ndarray | list) else str(value),
)
def test_clips_and_options_that_cannot_be_are_refused(videos, options, message):
    with pytest.raises(ValueError, match=message):
        TuringViTVideoProcessor()(videos, **options)


def test_non_finite_frames_are_refused_on_request():
    clip = np.full((2, 3, 16, 16), 0.5, np.float32)
    clip[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="clip 0, frame 1 has 1 non-finite"):
        TuringViTVideoProcessor(check_finite=True)(clip, do_rescale=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_frames": 4, "do_sample_frames": True},
        {"fps": 2.0, "resolution": "bounded", "min_side": 32, "max_side": 64, "seed": 3},
        {"resolution": "fixed", "size": {"height": 32, "width": 64}, "image_mean": [0.1, 0.2, 0.3]},
    ],
    ids=str,
)
def test_saving_changes_nothing(options, tmp_path):
    processor = TuringViTVideoProcessor(**options)
    processor.save_pretrained(tmp_path)
    loaded = TuringViTVideoProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    encoding, expected = loaded(noise_clip(8)), processor(noise_clip(8))
    for key in expected:
        np.testing.assert_array_equal(encoding[key], expected[key])


def test_it_lives_beside_an_image_processor(tmp_path):
    TuringViTImageProcessor(max_patches=64, do_pack=True).save_pretrained(tmp_path)
    assert TuringViTVideoProcessor.from_pretrained(tmp_path).max_patches == 64  # falls back to the image settings
    TuringViTVideoProcessor(max_patches=32).save_pretrained(tmp_path)
    assert TuringViTVideoProcessor.from_pretrained(tmp_path).max_patches == 32
    assert TuringViTImageProcessor.from_pretrained(tmp_path).max_patches == 64
