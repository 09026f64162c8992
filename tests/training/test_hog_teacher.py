# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""HOG as a teacher: it sees where edges run and colors, each image by itself, and always gives a direction."""

import math

import numpy as np
import pytest
import torch

from turingvit_hf.errors import InputError
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.arguments import ResolutionRecipe, TeacherRecipe
from turingvit_hf.training.hog_teacher import FLATNESS, NUM_ORIENTATIONS, NUM_VALUES, HogTeacher
from turingvit_hf.training.teachers import load_teacher


PROCESSOR = TuringViTImageProcessor(patch_size=16)


def pack_of(*images):
    return PROCESSOR.preprocess(list(images), do_pack=True, return_tensors="pt")


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stripes(angle, size=48):
    """Waves whose gradient points along `angle`, in degrees."""
    rows, columns = np.mgrid[:size, :size]
    direction = math.radians(angle)
    wave = np.sin(0.8 * (np.cos(direction) * columns + np.sin(direction) * rows))
    return np.repeat((127 + 100 * wave).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("angle", [0, 20, 60, 90, 120, 160])
def test_the_strongest_orientation_is_that_of_the_gradient(angle):
    teacher = HogTeacher(PROCESSOR)
    features = teacher.features(pack_of(stripes(angle)), "cpu")
    middle = features[4].unflatten(0, (4, 3, NUM_VALUES))[..., :NUM_ORIENTATIONS]
    assert (middle.argmax(-1) == round(angle / 20) % 9).all()


def test_every_histogram_has_a_direction_and_a_flat_one_says_so():
    teacher = HogTeacher(PROCESSOR)
    features = teacher.features(pack_of(noise(32, 48), np.full((16, 16, 3), 200, np.uint8)), "cpu")
    assert features.shape == (7, teacher.hidden_size) == (7, 132)
    histograms, brightness = features.unflatten(1, (12, NUM_VALUES)).split([NUM_ORIENTATIONS + 1, 1], dim=-1)
    torch.testing.assert_close(histograms.sum(-1), torch.zeros(7, 12))
    assert (histograms.norm(dim=-1) > 0.1).all()
    torch.testing.assert_close(histograms[6], torch.tensor([-0.1] * 9 + [0.9]).expand(12, -1))
    torch.testing.assert_close(brightness[6], torch.full((12, 1), 2 * 200 / 255 - 1))


def test_images_do_not_see_each_other_and_keep_their_order():
    teacher = HogTeacher(PROCESSOR)
    images = [noise(32, 48, 1), noise(16, 16, 2), noise(32, 48, 3), noise(48, 32, 4)]
    together = teacher.features(pack_of(*images), "cpu")
    alone = torch.cat([teacher.features(pack_of(image), "cpu") for image in images])
    torch.testing.assert_close(together, alone)


def test_histograms_and_colors_equal_a_loop_over_pixels():
    teacher = HogTeacher(PROCESSOR)
    image = noise(32, 32, 5)
    found = teacher.features(pack_of(image), "cpu").unflatten(0, (2, 2)).unflatten(2, (2, 2, 3, NUM_VALUES))
    pixels = np.pad(image.astype(np.float64) / 255, ((1, 1), (1, 1), (0, 0)), mode="edge")
    # the cell of rows 8 to 15 and columns 16 to 23, channel 1: patch (0, 1), cell (1, 0)
    votes = np.zeros(NUM_ORIENTATIONS)
    for row in range(8, 16):
        for column in range(16, 24):
            across = (pixels[row + 1, column + 2, 1] - pixels[row + 1, column, 1]) / 2
            down = (pixels[row + 2, column + 1, 1] - pixels[row, column + 1, 1]) / 2
            place = math.atan2(down, across) % math.pi * NUM_ORIENTATIONS / math.pi
            left, share = int(place), place % 1
            votes[left % 9] += math.hypot(across, down) * (1 - share) / 64
            votes[(left + 1) % 9] += math.hypot(across, down) * share / 64
    expected = np.append(votes, FLATNESS) / math.sqrt((votes**2).sum() + FLATNESS**2)
    np.testing.assert_allclose(found[0, 1, 1, 0, 1, :-1], expected - expected.mean(), atol=2e-6)
    np.testing.assert_allclose(found[0, 1, 1, 0, 1, -1], 2 * image[8:16, 16:24, 1].mean() / 255 - 1, atol=2e-6)


def test_clips_and_odd_patches_are_refused():
    pack = pack_of(noise(16, 32))
    pack["image_grid_thw"] = torch.tensor([[2, 1, 1]])
    with pytest.raises(ValueError, match="still images"):
        HogTeacher(PROCESSOR).features(pack, "cpu")
    with pytest.raises(InputError, match="patch_size=7 must be even"):
        HogTeacher(TuringViTImageProcessor(patch_size=7))


def test_it_is_loaded_by_name():
    resolution = ResolutionRecipe()
    assert isinstance(
        load_teacher(TeacherRecipe("hog"), student_processor=PROCESSOR, resolution=resolution), HogTeacher
    )
    with pytest.raises(InputError, match="size=224"):
        load_teacher(TeacherRecipe("hog", size=224), student_processor=PROCESSOR, resolution=resolution)
