# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pure functions of the grid, each against a loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.towers import make_image, pack, pad
from turingvit_hf.modeling.packing import (
    cu_seqlens_from_grid,
    image_index_from_grid,
    pack_images,
    pack_padded,
    patch_centers,
    patchify,
    positions_from_grid,
    split_by_image,
)


grids = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8)


@given(grid=grids)
def test_bounds_of_frames(grid):
    bounds = [0]
    for frames, height, width in grid:
        for _ in range(frames):
            bounds.append(bounds[-1] + height * width)
    cu_seqlens = cu_seqlens_from_grid(torch.tensor(grid))
    assert cu_seqlens.tolist() == bounds
    assert cu_seqlens.dtype == torch.int32


@given(grid=grids)
def test_index_and_position_of_every_token(grid):
    tokens = [
        (image, (row + 0.5) / height * 2 - 1, (column + 0.5) / width * 2 - 1)
        for image, (frames, height, width) in enumerate(grid)
        for _ in range(frames)
        for row in range(height)
        for column in range(width)
    ]
    grid = torch.tensor(grid)
    assert image_index_from_grid(grid, len(tokens)).tolist() == [image for image, _, _ in tokens]
    positions = positions_from_grid(grid, len(tokens))
    assert positions.dtype == torch.float32
    torch.testing.assert_close(positions, torch.tensor([(y, x) for _, y, x in tokens]))


@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_patch_centers_are_symmetric_and_agree_with_the_pack(height, width):
    centers = patch_centers(height, width)
    torch.testing.assert_close(centers, -centers.flip(0))
    torch.testing.assert_close(centers, positions_from_grid(torch.tensor([[1, height, width]]), height * width))


@given(grid=grids)
def test_splitting_gives_each_image_its_tokens(grid):
    lengths = [frames * height * width for frames, height, width in grid]
    tokens = torch.arange(sum(lengths))
    parts = split_by_image(tokens, torch.tensor(grid))
    assert [len(part) for part in parts] == lengths
    assert torch.equal(torch.cat(parts), tokens)
    with pytest.raises(ValueError, match=f"describes {sum(lengths)} patches, there are {sum(lengths) + 1} tokens"):
        split_by_image(torch.arange(sum(lengths) + 1), torch.tensor(grid))


@pytest.mark.parametrize("patch_size", [1, 3, 4])
def test_patches_are_row_major_and_channel_first(patch_size):
    images = [make_image(3, 5, patch_size=patch_size), make_image(3, 5, patch_size=patch_size) + 1]
    expected = pack(images, patch_size)
    patches, grid = pack_images(torch.stack(images), patch_size)
    assert torch.equal(patches, expected["pixel_values"])
    assert torch.equal(grid, expected["image_grid_thw"])
    assert torch.equal(patchify(torch.stack(images), patch_size).flatten(0, 1), patches)


def test_padding_is_not_read():
    images = [make_image(3, 5), make_image(1, 7)]
    padded, expected = pad(images), pack(images)
    assert padded["pixel_values"].shape == (2, 3, 12, 28)
    for sizes in (padded["image_sizes"], padded["image_sizes"].tolist()):
        patches, grid = pack_padded(padded["pixel_values"], sizes, 4)
        assert torch.equal(patches, expected["pixel_values"])
        assert torch.equal(grid, expected["image_grid_thw"])


def test_bounds_made_in_inference_mode_count_their_changes():
    with torch.inference_mode():
        bounds = cu_seqlens_from_grid(torch.tensor([[2, 3, 4], [1, 1, 1]]))
    assert bounds.tolist() == [0, 12, 24, 25]
    assert not bounds.is_inference()
