# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Sharpness and texture are told apart whatever size, contrast and noise a picture has; hashes survive encoding."""

import io
import random

import cv2
import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import Image

from turingvit_hf.curation.decisions import QualityThresholds, Thresholds, decide
from turingvit_hf.curation.steps.hashes import HashImages, hash_image
from turingvit_hf.curation.steps.quality import MeasureQuality, _peak, measure_quality, measure_shape
from turingvit_hf.data.shapes import generate_shapes


THRESHOLDS = Thresholds(quality=QualityThresholds(min_side=48))


def photograph():
    """Grace Hopper, 512 x 600, which comes with matplotlib."""
    with Image.open(f"{get_data_path()}/sample_data/grace_hopper.jpg") as picture:
        return np.asarray(picture.convert("RGB"))


def drawings(number=12):
    return [np.asarray(picture) for picture, _ in generate_shapes(number, seed=3)]


def drop_of(image):
    height, width = image.shape[:2]
    return decide(measure_quality(image) | measure_shape(width, height), THRESHOLDS)


def blurred(image, sigma):
    return cv2.GaussianBlur(image, (0, 0), sigma)


def noisy(image, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


def test_sharp_pictures_are_kept():
    for image in (photograph(), noisy(photograph(), 5), *drawings()):
        assert drop_of(image) is None


@pytest.mark.parametrize("deviation", [0, 5])
@pytest.mark.parametrize("sigma", [4, 6])
def test_blurred_pictures_are_dropped_even_with_noise(sigma, deviation):
    drop = drop_of(noisy(blurred(photograph(), sigma), deviation))
    assert drop is not None
    assert drop.reason == "image is blurred"
    # without noise: with it a drawing's blurred edges hide in it
    for image in drawings():
        drop = drop_of(blurred(image, sigma))
        assert drop is not None, measure_quality(blurred(image, sigma))


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0, 5.0])
def test_edge_width_is_the_sigma_of_the_blur(sigma):
    step = np.zeros((256, 256, 3), np.uint8)
    step[:, 128:] = 255
    for contrast in (1.0, 0.3):
        image = blurred((step * contrast).astype(np.uint8), sigma)
        assert measure_quality(image)["edge_width"] == pytest.approx(sigma, rel=0.12)


def test_contrast_and_flat_ground_change_the_laplacian_and_not_the_edge_width():
    image = photograph()
    faint = (image * 0.3 + 100).astype(np.uint8)
    lonely = np.full((1200, 1024, 3), 255, np.uint8)
    lonely[300:900, 256:768] = image
    plain = measure_quality(image, long_side=2000)
    for other in (faint, lonely):
        values = measure_quality(other, long_side=2000)
        assert values["smooth_laplacian"] < 0.5 * plain["smooth_laplacian"]
        assert values["edge_width"] < 1.2


def test_size_is_normalized_before_sharpness_is_measured():
    image = photograph()
    large = cv2.resize(image, (1536, 1800), interpolation=cv2.INTER_CUBIC)
    small, other = (measure_quality(value)["smooth_laplacian"] for value in (image, large))
    assert other == pytest.approx(small, rel=0.1)


def gradient(side=300):
    ramp = np.linspace(0, 255, side)[None, :, None]
    return np.broadcast_to(ramp, (side, side, 3)).round().astype(np.uint8)


@pytest.mark.parametrize(
    "image",
    [np.full((300, 300, 3), 90, np.uint8), noisy(np.full((300, 300, 3), 90.0), 1.5), gradient()],
    ids=["one color", "faint noise", "gradient"],
)
def test_flat_pictures_are_dropped(image):
    drop = drop_of(image)
    assert drop is not None
    assert drop.reason == "texture is too low"


def test_entropy_alone_is_no_test_of_texture():
    assert measure_quality(gradient())["gray_entropy"] > 7.9
    assert measure_quality(np.full((64, 64, 3), 90, np.uint8))["gray_entropy"] == 0
    assert measure_quality(np.full((64, 64, 3), 90, np.uint8))["edge_width"] is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (3, 2), (2000, 1)])
def test_odd_sizes_are_measured(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    measure_quality(image)
    hash_image(image)


def test_steps_leave_rows_without_an_image_alone():
    batch = {"image": [photograph(), None], "width": [512, None], "height": [600, None]}
    values = MeasureQuality()(batch) | HashImages()(batch)
    assert values["min_side"] == [512, None]
    assert values["aspect"] == [pytest.approx(600 / 512), None]
    assert all(len(column) == 2 and column[0] is not None and column[1] is None for column in values.values())
    assert [len(values[name][0]) for name in ("phash", "dhash", "color_grid")] == [16, 16, 96]


def differing_bits(left, right):
    return (int(left, 16) ^ int(right, 16)).bit_count()


@pytest.mark.parametrize("seed", range(4))
def test_hashes_survive_encoding_and_resizing(seed):
    rng = random.Random(seed)
    image = Image.fromarray(photograph()[rng.randrange(200) :, rng.randrange(100) :])
    encoded = io.BytesIO()
    scale = rng.uniform(0.5, 0.9)
    image.resize((int(image.width * scale), int(image.height * scale))).save(encoded, "JPEG", quality=60)
    with Image.open(encoded) as again:
        first, second = hash_image(np.asarray(image)), hash_image(np.asarray(again))
    assert differing_bits(first["phash"], second["phash"]) <= 4
    assert differing_bits(first["dhash"], second["dhash"]) <= 4
    colors = [np.frombuffer(bytes.fromhex(value["color_grid"]), np.uint8).astype(int) for value in (first, second)]
    assert np.abs(colors[0] - colors[1]).max() <= 4


def test_hashes_see_gray_alone_and_the_color_grid_sees_the_rest():
    image = photograph()
    turned = np.ascontiguousarray(image[..., ::-1])
    first, second = hash_image(image), hash_image(turned)
    assert differing_bits(first["phash"], second["phash"]) <= 10
    colors = [np.frombuffer(bytes.fromhex(value["color_grid"]), np.uint8).astype(int) for value in (first, second)]
    assert np.abs(colors[0] - colors[1]).max() > 12


@pytest.mark.parametrize("long_side", [100, 512, 600])
@pytest.mark.parametrize("size", [(1, 1), (90, 40), (300, 700), (1100, 900)])
def test_hashes_do_not_depend_on_what_quality_was_measured_on(size, long_side):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    batch = {"image": [image, None], "width": [size[1], None], "height": [size[0], None]}
    together = HashImages()(batch | MeasureQuality(long_side=long_side)(batch))
    assert together == HashImages()(batch)


@pytest.mark.parametrize("share", [0, 1e-4, 1e-2, 1])
@pytest.mark.parametrize("size", [1, 60, 5000, 90_001])
def test_the_peak_is_that_of_all_pixels_sorted(size, share):
    generator = np.random.default_rng(0)
    values = generator.standard_normal(size).astype(np.float32) * (generator.random(size) < share)
    assert _peak(values.reshape(1, -1)) == np.sort(np.abs(values))[size - 1 - size // 1000]
