# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Open packs lose nothing, exceed nothing, let nothing wait for ever, resume exactly, and waste few patches."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turingvit_hf.processing.geometry import draw_longer_sides, target_size
from turingvit_hf.training.token_packs import PATIENCE, OpenPacks


BUDGET = 50
LENGTHS = st.lists(st.integers(1, BUDGET), max_size=200)


def packs_of(lengths, budget=BUDGET, num_open=4):
    open_packs, packs = OpenPacks(budget, num_open), []
    for item in enumerate(lengths):
        open_packs.add(item, item[1])
        while (pack := open_packs.take()) is not None:
            packs.append(pack)
    return packs, open_packs


@given(lengths=LENGTHS, num_open=st.integers(1, 6))
def test_every_item_is_in_one_pack_and_no_pack_exceeds_the_budget(lengths, num_open):
    packs, left = packs_of(lengths, num_open=num_open)
    assert sorted([item for pack in packs for item in pack] + left.items()) == list(enumerate(lengths))
    assert all(0 < sum(length for _, length in pack) <= BUDGET for pack in packs)
    assert all(pack == sorted(pack) for pack in packs)


@given(lengths=LENGTHS, num_open=st.integers(1, 6))
def test_no_item_waits_longer_than_promised(lengths, num_open):
    packs, left = packs_of(lengths, num_open=num_open)
    place = {item: number for number, pack in enumerate(packs) for item in pack}
    for item in left.items():
        place[item] = len(packs)
    finished_before = 0
    for item in enumerate(lengths):
        # packs that hold only earlier items were finished by then at the latest
        finished_before = sum(1 for pack in packs if pack[-1] < item)
        assert place[item] - finished_before <= (PATIENCE + 1) * num_open + 1


@given(lengths=LENGTHS, cut=st.integers(0, 200))
def test_the_state_is_plain_and_complete(lengths, cut):
    whole, _ = packs_of(lengths)
    first, open_packs = packs_of(lengths[:cut])
    state = json.loads(json.dumps(open_packs.state(list)))
    resumed = OpenPacks(BUDGET, 4)
    resumed.restore(state, tuple)
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
    ("resolution", "budget", "median_pixels"),
    [
        ("bounded", 2048, 350_000),
        ("bounded", 16384, 350_000),
        ("native", 16384, 200_000),
        ("native", 16384, 350_000),
        ("native", 32768, 1_500_000),
    ],
)
def test_at_least_97_percent_of_the_budget_is_used(resolution, budget, median_pixels):
    sizes = list(image_sizes(5000, median_pixels=median_pixels))
    lengths = []
    for size, longer_side in zip(sizes, draw_longer_sides(len(sizes), 0), strict=True):
        height, width = target_size(*size, resolution=resolution, longer_side=longer_side)
        lengths.append(height * width // 256)
    packs, _ = packs_of(lengths, budget, 8)
    fill = sum(length for pack in packs for _, length in pack) / (len(packs) * budget)
    assert fill >= 0.97


@pytest.mark.parametrize(("budget", "num_open"), [(0, 1), (1, 0)])
def test_impossible_budgets_are_refused(budget, num_open):
    with pytest.raises(ValueError, match="must be at least 1"):
        OpenPacks(budget, num_open)


@pytest.mark.parametrize("length", [0, 51])
def test_items_that_fit_no_pack_are_refused(length):
    with pytest.raises(ValueError, match=f"an item of {length} tokens does not fit a pack of 50"):
        OpenPacks(50, 2).add("item", length)
