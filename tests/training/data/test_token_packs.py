# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The pool loses nothing, exceeds nothing, lets nothing wait for ever, resumes exactly, and wastes few patches."""

import itertools
import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turingvit_hf.processing.geometry import draw_longer_sides, target_size
from turingvit_hf.training.data.token_packs import TokenPool, best_subset


BUDGET = 50
LENGTHS = st.lists(st.integers(1, BUDGET), max_size=120)


def packs_of(lengths, budget=BUDGET, num_packs=4):
    pool, packs = TokenPool(budget, num_packs), []
    for item in enumerate(lengths):
        pool.add(item, item[1])
        while (pack := pool.take()) is not None:
            packs.append(pack)
    return packs, pool


@given(lengths=st.lists(st.integers(1, 30), max_size=9), room=st.integers(0, 60))
def test_no_other_choice_fits_better(lengths, room):
    places = best_subset(lengths, room)
    assert len(set(places)) == len(places)
    sums = [sum(choice) for size in range(len(lengths) + 1) for choice in itertools.combinations(lengths, size)]
    assert sum(lengths[place] for place in places) == max(total for total in sums if total <= room)


@given(lengths=LENGTHS, num_packs=st.integers(1, 6))
def test_every_item_is_in_one_pack_and_no_pack_exceeds_the_budget(lengths, num_packs):
    packs, left = packs_of(lengths, num_packs=num_packs)
    assert sorted([item for pack in packs for item in pack] + left.items()) == list(enumerate(lengths))
    assert all(0 < sum(length for _, length in pack) <= BUDGET for pack in packs)
    assert all(pack == sorted(pack) for pack in packs)
    assert sum(length for _, length in left.items()) < num_packs * BUDGET


@given(lengths=LENGTHS)
def test_the_item_that_waited_longest_goes_first(lengths):
    packs, left = packs_of(lengths)
    for number, pack in enumerate(packs):
        assert pack[0] == min([item for later in packs[number:] for item in later] + left.items())


@given(lengths=LENGTHS, cut=st.integers(0, 120))
def test_the_state_is_plain_and_complete(lengths, cut):
    whole, _ = packs_of(lengths)
    first, pool = packs_of(lengths[:cut])
    resumed = TokenPool(BUDGET, 4)
    resumed.restore(json.loads(json.dumps(pool.state(list))), tuple)
    rest = []
    for item in list(enumerate(lengths))[cut:]:
        resumed.add(item, item[1])
        while (pack := resumed.take()) is not None:
            rest.append(pack)
    assert first + rest == whole


def image_sizes(num_images, *, median_pixels):
    """(height, width) as photographs and drawings on the web have them: log-normal area and aspect ratio."""
    rng = random.Random(0)
    for _ in range(num_images):
        area, aspect = median_pixels * math.exp(rng.gauss(0, 0.9)), math.exp(rng.gauss(0.1, 0.35))
        yield max(1, round(math.sqrt(area / aspect))), max(1, round(math.sqrt(area * aspect)))


@pytest.mark.parametrize(
    ("resolution", "budget", "median_pixels", "least"),
    [
        ("bounded", 2048, 350_000, 0.995),
        ("bounded", 16384, 350_000, 0.995),
        ("native", 16384, 200_000, 0.995),
        ("native", 16384, 350_000, 0.995),
        ("native", 32768, 1_500_000, 0.995),
        # most of these pictures take more than half of a pack, and two of the largest never fit one
        ("native", 16384, 1_500_000, 0.9),
    ],
)
def test_the_budget_is_used(resolution, budget, median_pixels, least):
    sizes = list(image_sizes(4000, median_pixels=median_pixels))
    lengths = []
    for size, longer_side in zip(sizes, draw_longer_sides(len(sizes), 0), strict=True):
        height, width = target_size(*size, resolution=resolution, longer_side=longer_side)
        lengths.append(height * width // 256)
    packs, _ = packs_of(lengths, budget, 8)
    fill = sum(length for pack in packs for _, length in pack) / (len(packs) * budget)
    assert fill >= least


def test_many_small_items_are_chosen_among_in_time():
    packs, _ = packs_of([1] * 3000, budget=512, num_packs=4)
    assert {len(pack) for pack in packs} == {512}
    packs, _ = packs_of([1 + number % 3 for number in range(3000)], budget=511, num_packs=8)
    assert {sum(length for _, length in pack) for pack in packs} == {511}


@pytest.mark.parametrize(("budget", "num_packs"), [(0, 1), (1, 0)])
def test_impossible_budgets_are_refused(budget, num_packs):
    with pytest.raises(ValueError, match="must be at least 1"):
        TokenPool(budget, num_packs)


@pytest.mark.parametrize("length", [0, 51])
def test_items_that_fit_no_pack_are_refused(length):
    with pytest.raises(ValueError, match=f"an item of {length} tokens does not fit a pack of 50"):
        TokenPool(50, 2).add("item", length)
