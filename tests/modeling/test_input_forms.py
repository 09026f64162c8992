# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""One image gives the same numbers in each input form, alone or with any others, in any order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers import TOWER_TOLERANCE, assert_close
from tests.towers import make_image, make_model, pack, pad
from turingvit_hf.modeling.packing import split_by_image
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


sides = st.one_of(st.integers(1, 5), st.integers(1, 30))
sizes = st.tuples(sides, sides)
some_sizes = st.lists(sizes, min_size=1, max_size=12)


@pytest.fixture(scope="module")
def tower():
    with torch.no_grad():
        yield make_model()


def run(tower, inputs):
    with torch.no_grad():
        outputs = tower(**inputs)
    return outputs.last_hidden_state, outputs.pooler_output


def run_packed(tower, images):
    inputs = pack(images)
    tokens, pooled = run(tower, inputs)
    assert tokens.shape == (len(inputs["pixel_values"]), 32)
    return split_by_image(tokens, inputs["image_grid_thw"]), pooled


@settings(max_examples=15)
@given(sizes=some_sizes, frames=st.lists(st.sampled_from([None, None, 1, 2, 3]), min_size=12, max_size=12))
def test_packed_is_alone(tower, sizes, frames):
    images = [make_image(*size, frames=count) for size, count in zip(sizes, frames, strict=False)]
    tokens, pooled = run_packed(tower, images)
    for image, image_tokens, image_pooled in zip(images, tokens, pooled, strict=True):
        (tokens_alone,), pooled_alone = run_packed(tower, [image])
        assert_close(image_tokens, tokens_alone, TOWER_TOLERANCE)
        assert_close(image_pooled, pooled_alone[0], TOWER_TOLERANCE)


@settings(max_examples=15)
@given(sizes=some_sizes, data=st.data())
def test_permuting_images_permutes_results(tower, sizes, data):
    images = [make_image(*size) for size in sizes]
    order = data.draw(st.permutations(range(len(images))))
    tokens, pooled = run_packed(tower, images)
    permuted_tokens, permuted_pooled = run_packed(tower, [images[i] for i in order])
    assert_close(permuted_pooled, pooled[list(order)], TOWER_TOLERANCE)
    for i, image_tokens in zip(order, permuted_tokens, strict=True):
        assert_close(image_tokens, tokens[i], TOWER_TOLERANCE)


@settings(max_examples=15)
@given(sizes=some_sizes)
def test_padded_is_packed(tower, sizes):
    images = [make_image(*size) for size in sizes]
    tokens, pooled = run_packed(tower, images)
    padded_tokens, padded_pooled = run(tower, pad(images))
    assert_close(padded_tokens, torch.cat(tokens)[None], TOWER_TOLERANCE)
    assert_close(padded_pooled, pooled, TOWER_TOLERANCE)


@settings(max_examples=15)
@given(size=sizes, num_images=st.integers(1, 5))
def test_a_batch_is_packed(tower, size, num_images):
    images = [make_image(*size) * (i + 1) for i in range(num_images)]
    tokens, pooled = run_packed(tower, images)
    batch_tokens, batch_pooled = run(tower, {"pixel_values": torch.stack(images)})
    assert_close(batch_tokens, torch.stack(tokens), TOWER_TOLERANCE)
    assert_close(batch_pooled, pooled, TOWER_TOLERANCE)


@settings(max_examples=10)
@given(size=sizes, num_frames=st.integers(1, 5))
def test_a_clip_is_its_frames(tower, size, num_frames):
    clip = make_image(*size, frames=num_frames)
    (tokens,), pooled = run_packed(tower, [clip])
    frame_tokens, frame_pooled = run_packed(tower, list(clip))
    assert_close(tokens, torch.cat(frame_tokens), TOWER_TOLERANCE)
    assert_close(pooled[0], frame_pooled.mean(0), TOWER_TOLERANCE)


PIXELS = st.tuples(st.integers(1, 700), st.integers(1, 2000))
SMALL_PIXELS = st.tuples(st.integers(1, 40), st.integers(1, 40))
MODES = {
    "native": {"resolution": "native"},
    "bounded": {"resolution": "bounded", "min_side": 16, "max_side": 64},
    "fixed": {"resolution": "fixed", "size": {"height": 24, "width": 40}},
}


@settings(max_examples=8)
@given(
    sizes=st.lists(st.one_of(SMALL_PIXELS, PIXELS), min_size=1, max_size=12),
    mode=st.sampled_from(sorted(MODES)),
    turned=st.booleans(),
)
def test_from_pictures_to_vectors(tower, sizes, mode, turned):
    processor = TuringViTImageProcessor(patch_size=4, max_patches=200, **MODES[mode])
    pictures = []
    for height, width in sizes:
        noise = np.random.default_rng(height * 3000 + width).integers(0, 256, (7, 9, 3), dtype=np.uint8)
        size = (height, width) if turned else (width, height)
        pictures.append(Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR))
    packed = processor(images=pictures, do_pack=True, return_tensors="pt")
    assert (packed["image_grid_thw"] >= 1).all()
    assert packed["image_grid_thw"].prod(-1).sum() == len(packed["pixel_values"])
    assert (packed["image_grid_thw"].prod(-1) <= 200).all()
    tokens, pooled = run(tower, packed)
    padded_tokens, padded_pooled = run(
        tower, processor(images=pictures, do_pack=False, return_image_sizes=True, return_tensors="pt")
    )
    assert_close(padded_tokens[0], tokens, TOWER_TOLERANCE)
    assert_close(padded_pooled, pooled, TOWER_TOLERANCE)
    parts = split_by_image(tokens, packed["image_grid_thw"])
    for picture, image_tokens, image_pooled in zip(pictures, parts, pooled, strict=True):
        alone = processor(images=picture, return_tensors="pt")
        assert alone["pixel_values"].dim() == 4
        tokens_alone, pooled_alone = run(tower, alone)
        assert_close(image_tokens, tokens_alone[0], TOWER_TOLERANCE)
        assert_close(image_pooled, pooled_alone[0], TOWER_TOLERANCE)
