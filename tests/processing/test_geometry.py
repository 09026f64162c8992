# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Laws of the geometry: no grid is empty, no budget is broken, no aspect ratio moves by more than a patch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from turingvit_hf.processing.geometry import (
    bounded_size,
    draw_longer_sides,
    fixed_size,
    native_size,
    patchify,
    uniform_frame_indices,
    unpatchify,
)


sides = st.one_of(st.integers(1, 64), st.integers(1, 2000), st.integers(1, 30_000))
patch_sizes = st.sampled_from([1, 7, 14, 16, 32])
merge_sizes = st.integers(1, 4)


def assert_aspect_within_one_unit(image, size, unit):
    """There is one scale at which both exact sides lie within a unit of the result."""
    lowest = max((target - unit) / side for side, target in zip(image, size, strict=True))
    highest = min((target + unit) / side for side, target in zip(image, size, strict=True))
    assert lowest <= highest, f"{image} became {size} with units of {unit}"


@given(height=sides, width=sides, patch_size=patch_sizes, merge_size=merge_sizes, room=st.integers(1, 9216))
def test_native_size_is_whole_units_inside_the_budget(height, width, patch_size, merge_size, room):
    max_patches = room * merge_size**2
    unit = patch_size * merge_size
    size = native_size(height, width, patch_size=patch_size, merge_size=merge_size, max_patches=max_patches)
    assert all(side >= unit and side % unit == 0 for side in size)
    assert (size[0] // patch_size) * (size[1] // patch_size) <= max_patches
    assert_aspect_within_one_unit((height, width), size, unit)


@given(height=sides, width=sides, patch_size=patch_sizes)
def test_native_size_only_rounds_what_fits(height, width, patch_size):
    size = native_size(height, width, patch_size=patch_size, max_patches=10**12)
    for side, target in zip((height, width), size, strict=True):
        assert abs(side - target) <= patch_size / 2 or (side < patch_size and target == patch_size)


@given(height=sides, width=sides, max_patches=st.integers(1, 9216))
def test_native_size_never_enlarges_beyond_rounding_and_is_idempotent(height, width, max_patches):
    size = native_size(height, width, max_patches=max_patches)
    assert all(target <= max(16, side + 8) for side, target in zip((height, width), size, strict=True))
    assert native_size(*size, max_patches=max_patches) == size
    assert native_size(width, height, max_patches=max_patches) == size[::-1]


@given(height=st.integers(5000, 30_000), width=st.integers(5000, 30_000))
def test_native_size_uses_the_budget(height, width):
    rows, columns = (side // 16 for side in native_size(height, width, max_patches=9216))
    assert (rows + 1) * (columns + 1) > 9216


@pytest.mark.parametrize(
    ("image", "max_patches", "expected"),
    [
        ((1, 1), 9216, (16, 16)),
        ((1, 20_000), 64, (16, 1024)),
        ((20_000, 1), 64, (1024, 16)),
        ((1, 20_000), 9216, (16, 20_000)),
        ((20_000, 20_000), 9216, (1536, 1536)),
        ((1536, 1536), 9216, (1536, 1536)),
        ((20_000, 20_000), 1, (16, 16)),
        ((24, 1120), 120, (16, 1120)),  # 2 x 70 units after rounding: shrinking must not turn 70 columns into 74
        ((480, 640), 9216, (480, 640)),
        ((333, 500), 9216, (336, 496)),
    ],
    ids=str,
)
def test_native_size_examples(image, max_patches, expected):
    assert native_size(*image, max_patches=max_patches) == expected


@given(
    height=sides,
    width=sides,
    patch_size=patch_sizes,
    merge_size=st.integers(1, 2),
    min_side=st.integers(1, 600),
    extra=st.integers(64, 600),
    drawn=st.one_of(st.none(), st.integers(1, 2000)),
)
def test_bounded_size_keeps_longer_side_and_aspect(height, width, patch_size, merge_size, min_side, extra, drawn):
    unit, max_side = patch_size * merge_size, min_side + extra
    size = bounded_size(
        height,
        width,
        patch_size=patch_size,
        merge_size=merge_size,
        min_side=min_side,
        max_side=max_side,
        longer_side=drawn,
        max_patches=10**9,
    )
    assert all(side >= unit and side % unit == 0 for side in size)
    assert min_side <= max(size) <= max_side
    assert (size[0] >= size[1]) if height >= width else (size[0] <= size[1])
    assert_aspect_within_one_unit((height, width), size, unit)


@given(height=sides, width=sides, max_patches=st.integers(1, 1024))
def test_bounded_size_respects_the_budget(height, width, max_patches):
    rows, columns = (side // 16 for side in bounded_size(height, width, max_patches=max_patches))
    assert 1 <= rows * columns <= max_patches


@given(height=st.integers(256, 512), width=st.integers(256, 512))
def test_bounded_size_leaves_what_is_in_bounds(height, width):
    size = bounded_size(height, width)
    assert all(abs(side - target) <= 16 for side, target in zip((height, width), size, strict=True))


@given(num_images=st.integers(0, 50), seed=st.integers(0, 2**63 - 1))
def test_draw_longer_sides_is_seeded_and_in_bounds(num_images, seed):
    drawn = draw_longer_sides(num_images, seed)
    assert len(drawn) == num_images
    assert drawn == draw_longer_sides(num_images, seed)
    assert all(256 <= side <= 512 and side % 16 == 0 for side in drawn)


def test_draw_longer_sides_reaches_every_unit():
    assert set(draw_longer_sides(2000, seed=0)) == set(range(256, 513, 16))


def test_fixed_size_is_not_rounded():
    assert fixed_size(224, 448, patch_size=16) == (224, 448)
    with pytest.raises(ValueError, match="250 x 224"):
        fixed_size(250, 224)
    with pytest.raises(ValueError, match="0 x 16"):
        fixed_size(0, 16)


@pytest.mark.parametrize(
    "call",
    [
        lambda: native_size(0, 5),
        lambda: native_size(5, -1),
        lambda: native_size(5, 5, max_patches=0),
        lambda: native_size(5, 5, merge_size=4, max_patches=15),
        lambda: native_size(5, 5, patch_size=0),
        lambda: bounded_size(5, 5, min_side=500, max_side=510),
        lambda: bounded_size(5, 5, min_side=600, max_side=500),
        lambda: bounded_size(0, 5),
        lambda: draw_longer_sides(3, 0, min_side=500, max_side=510),
    ],
)
def test_bad_sizes_are_refused(call):
    with pytest.raises(ValueError, match=r"\d"):
        call()


@given(
    channels=st.integers(1, 4),
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    patch_size=st.integers(1, 5),
)
def test_unpatchify_is_the_inverse_and_order_is_row_major_channel_first(channels, rows, columns, patch_size):
    shape = (channels, rows * patch_size, columns * patch_size)
    image = np.arange(np.prod(shape)).reshape(shape)
    patches = patchify(image, patch_size)
    assert patches.shape == (rows * columns, channels * patch_size**2)
    for index, patch in enumerate(patches):
        top, left = (index // columns) * patch_size, (index % columns) * patch_size
        np.testing.assert_array_equal(patch, image[:, top : top + patch_size, left : left + patch_size].ravel())
    np.testing.assert_array_equal(unpatchify(patches, (rows, columns), patch_size), image)
    as_tensor = patchify(torch.from_numpy(image), patch_size)
    np.testing.assert_array_equal(as_tensor.numpy(), patches)
    np.testing.assert_array_equal(unpatchify(as_tensor, (rows, columns), patch_size).numpy(), image)


def test_patches_that_do_not_fit_are_refused():
    for shape in [(3, 17, 16), (3, 0, 16), (16, 16)]:
        with pytest.raises(ValueError, match="multiples of patch_size=16"):
            patchify(np.zeros(shape), 16)
    with pytest.raises(ValueError, match="grid of 2 x 2"):
        unpatchify(np.zeros((3, 768)), (2, 2), 16)
    with pytest.raises(ValueError, match="grid of 1 x 1"):
        unpatchify(np.zeros((1, 700)), (1, 1), 16)


@given(total=st.integers(1, 5000), num_frames=st.integers(1, 200))
def test_frames_are_even_and_never_repeat(total, num_frames):
    indices = uniform_frame_indices(total, num_frames=num_frames)
    assert len(indices) == min(total, num_frames)
    assert indices[0] >= 0
    assert indices[-1] < total
    gaps = np.diff([-1 - indices[0], *indices, 2 * total - 1 - indices[-1]])  # mirrored at both ends
    assert gaps.max() - gaps.min() <= 2
    assert np.all(np.diff(indices) > 0)


def test_frames_by_rate():
    assert uniform_frame_indices(240, fps=1, source_fps=24) == [12 + 24 * second for second in range(10)]
    assert uniform_frame_indices(3, fps=1, source_fps=24) == [1]
    assert uniform_frame_indices(5, fps=100, source_fps=10) == [0, 1, 2, 3, 4]
    assert uniform_frame_indices(4) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("total", "options", "message"),
    [
        (0, {}, "total_frames=0"),
        (5, {"num_frames": 0}, "num_frames=0"),
        (5, {"num_frames": 2, "fps": 1.0, "source_fps": 24.0}, "give one of them"),
        (5, {"fps": 1.0}, "source_fps=None"),
        (5, {"fps": -1.0, "source_fps": 24.0}, "fps=-1.0"),
    ],
)
def test_bad_frame_choices_are_refused(total, options, message):
    with pytest.raises(ValueError, match=message):
        uniform_frame_indices(total, **options)
