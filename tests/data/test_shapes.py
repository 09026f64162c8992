# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The shapes data: captions say what is drawn, pictures have many sizes, questions have one right answer."""

import random

import numpy as np
import pytest

from turingvit_hf.data.shapes import (
    BACKGROUNDS,
    COLORS,
    MAX_SIDE,
    MIN_SIDE,
    REGIONS,
    SHAPES,
    Group,
    Scene,
    alternatives,
    generate_shapes,
    render_scene,
    sample_size,
)


def test_sizes_cover_the_range_and_keep_the_aspect():
    rng = random.Random(0)
    sizes = [sample_size(rng) for _ in range(2000)]
    assert {MIN_SIDE, MAX_SIDE} <= {side for size in sizes for side in size}
    assert all(MIN_SIDE <= side <= MAX_SIDE for size in sizes for side in size)
    assert all(max(size) / min(size) < 2.05 for size in sizes)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_drawn_where_and_in_the_color_the_caption_says(region, shape):
    scene = Scene((Group(3, "small", "red", shape, region),), "mint", "plain")
    image = render_scene(scene, width=120, height=80, rng=random.Random(0))
    pixels = np.asarray(image).astype(int)
    is_red = np.abs(pixels - COLORS["red"]).max(-1) < 40
    is_background = np.abs(pixels - BACKGROUNDS["mint"]).max(-1) < 12
    y, x = np.nonzero(is_red)
    left, top, right, bottom = REGIONS[region]
    assert len(x) > 20
    assert left * 120 - 2 <= x.min() <= x.max() <= right * 120 + 2
    assert top * 80 - 2 <= y.min() <= y.max() <= bottom * 80 + 2
    assert is_background.mean() > 0.4


def test_captions_read_like_sentences():
    left, right = Group(1, "large", "blue", "cross", "on the left"), Group(2, "small", "pink", "heart", "on the right")
    scene = Scene((left, right), "sky", "dotted", 0)
    assert scene.describe() == (
        "one large blue cross on the left and two small pink hearts on the right on a dotted sky background"
    )
    assert Scene((left,), "sky", "dotted", 1).describe() == (
        "a dotted sky background with one large blue cross on the left"
    )


def test_alternatives_change_one_word_of_what_is_named_first():
    caption = "a plain sky background with two small pink hearts at the top and one large blue star at the bottom"
    colors = alternatives(caption, "color")
    assert colors[0] == ("pink", caption)
    assert {word for word, _ in colors} == set(COLORS)
    assert ("red", caption.replace("pink", "red")) in colors
    assert alternatives(caption, "shape")[1][1] == caption.replace("hearts", "circles")
    assert len({text for _, text in alternatives(caption, "background")}) == len(BACKGROUNDS)
    with pytest.raises(ValueError, match="no color in 'a cat'"):
        alternatives("a cat", "color")


def test_every_generated_caption_has_its_questions():
    for _, caption in generate_shapes(100, seed=5):
        for attribute in ("color", "shape", "background"):
            assert alternatives(caption, attribute)[0][1] == caption
