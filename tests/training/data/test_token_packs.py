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
from turingvit_hf.training.arguments import DataRecipe
from turingvit_hf.training.data.fitting import least_patches, smaller_grid
from turingvit_hf.training.data.token_packs import TokenPool, best_subset, subsets_above


BUDGET = 50
MAX_SHRINK = DataRecipe().max_shrink
LENGTHS = st.lists(st.integers(1, BUDGET), max_size=120)


def packs_of(lengths, budget=BUDGET, num_packs=4, least=None):
    """The packs' items, and the pool with those that are left; `least` of a length is what it may be made."""
    pool, packs = TokenPool(budget, num_packs), []
    for item in enumerate(lengths):
        pool.add(item, item[1], None if least is None else least(item[1]))
        while (pack := pool.take()) is not None:
            packs.append(pack)
    return packs, pool


def items_of(packs):
    return [[item for item, _ in pack] for pack in packs]


def nine_tenths(length):
    return max(1, length - length // 10)


@given(lengths=st.lists(st.integers(1, 30), max_size=9), room=st.integers(0, 60))
def test_no_other_choice_fits_better(lengths, room):
    places = best_subset(lengths, room)
    assert len(set(places)) == len(places)
    sums = [sum(choice) for size in range(len(lengths) + 1) for choice in itertools.combinations(lengths, size)]
    assert sum(lengths[place] for place in places) == max(total for total in sums if total <= room)


@given(lengths=st.lists(st.integers(1, 30), max_size=9), room=st.integers(0, 60), more=st.integers(1, 40))
def test_the_sums_above_the_room_come_in_order(lengths, room, more):
    found = list(subsets_above(lengths, room, room + more, max_sums=5))
    sums = {sum(choice) for size in range(len(lengths) + 1) for choice in itertools.combinations(lengths, size)}
    assert [sum(lengths[place] for place in places) for places in found] == sorted(
        total for total in sums if room < total <= room + more
    )[:5]
    assert all(len(set(places)) == len(places) for places in found)


@given(lengths=LENGTHS, num_packs=st.integers(1, 6), gives=st.booleans())
def test_every_item_is_in_one_pack_and_no_pack_exceeds_the_budget(lengths, num_packs, gives):
    least = nine_tenths if gives else None
    packs, left = packs_of(lengths, num_packs=num_packs, least=least)
    items = items_of(packs)
    assert sorted([item for pack in items for item in pack] + left.items()) == list(enumerate(lengths))
    assert all(0 < sum(room for _, room in pack) <= BUDGET for pack in packs)
    assert all(pack == sorted(pack) for pack in items)
    assert sum(length for _, length in left.items()) < num_packs * BUDGET
    for pack in packs:
        for (_, length), room in pack:
            assert (nine_tenths(length) if gives else length) <= room <= length


@given(lengths=LENGTHS, gives=st.booleans())
def test_items_give_way_only_where_the_pack_would_not_be_full(lengths, gives):
    for pack in packs_of(lengths, least=nine_tenths if gives else None)[0]:
        total = sum(length for (_, length), _ in pack)
        if total > BUDGET:
            assert gives
            # all that is too much is given, and nothing else
            assert sum(room for _, room in pack) == BUDGET


@given(lengths=LENGTHS, gives=st.booleans())
def test_the_item_that_waited_longest_goes_first(lengths, gives):
    packs, left = packs_of(lengths, least=nine_tenths if gives else None)
    items = items_of(packs)
    for number, pack in enumerate(items):
        assert pack[0] == min([item for later in items[number:] for item in later] + left.items())


@given(lengths=LENGTHS, cut=st.integers(0, 120), gives=st.booleans())
def test_the_state_is_plain_and_complete(lengths, cut, gives):
    least = nine_tenths if gives else None
    whole, _ = packs_of(lengths, least=least)
    first, pool = packs_of(lengths[:cut], least=least)
    resumed = TokenPool(BUDGET, 4)
    resumed.restore(json.loads(json.dumps(pool.state(list))), tuple)
    rest = []
    for item in list(enumerate(lengths))[cut:]:
        resumed.add(item, item[1], None if least is None else least(item[1]))
        while (pack := resumed.take()) is not None:
            rest.append(pack)
    assert first + rest == whole


def grids_of(num_images, *, resolution, median_pixels):
    """Grids (rows, columns) of photographs and drawings on the web: log-normal area and aspect ratio."""
    rng = random.Random(0)
    for longer_side in draw_longer_sides(num_images, 0):
        area, aspect = median_pixels * math.exp(rng.gauss(0, 0.9)), math.exp(rng.gauss(0.1, 0.35))
        size = max(1, round(math.sqrt(area / aspect))), max(1, round(math.sqrt(area * aspect)))
        height, width = target_size(*size, resolution=resolution, longer_side=longer_side)
        yield height // 16, width // 16


@pytest.mark.parametrize(
    ("resolution", "budget", "median_pixels", "least", "most_changed"),
    [
        ("bounded", 2048, 350_000, 0.995, 0.0),
        ("bounded", 16384, 350_000, 0.995, 0.0),
        ("native", 16384, 350_000, 0.995, 0.0),
        ("native", 16384, 1_000_000, 0.99, 0.1),
        # most of these pictures take more than half of a pack, and two of the largest do not fit one
        ("native", 16384, 1_500_000, 0.985, 0.5),
        ("native", 16384, 3_000_000, 0.985, 0.9),
        ("native", 32768, 1_500_000, 0.995, 0.0),
        ("native", 32768, 3_000_000, 0.985, 0.5),
    ],
)
def test_the_budget_is_used(resolution, budget, median_pixels, least, most_changed):
    pool, used, num_changed = TokenPool(budget, 8), [], 0
    for grid in grids_of(3000, resolution=resolution, median_pixels=median_pixels):
        length = grid[0] * grid[1]
        pool.add(grid, length, least_patches(grid, MAX_SHRINK) if resolution == "native" else None)
        while (pack := pool.take()) is not None:
            sizes = [
                math.prod(grid if room == math.prod(grid) else smaller_grid(grid, room, MAX_SHRINK))
                for grid, room in pack
            ]
            used.append(sum(sizes))
            num_changed += sum(size < math.prod(grid) for size, (grid, _) in zip(sizes, pack, strict=True))
    assert max(used) <= budget
    assert sum(used) / (len(used) * budget) >= least
    assert num_changed <= most_changed * 3000


def test_many_small_items_are_chosen_among_in_time():
    packs, _ = packs_of([1] * 3000, budget=512, num_packs=4)
    assert {len(pack) for pack in packs} == {512}
    packs, _ = packs_of([1 + number % 3 for number in range(3000)], budget=511, num_packs=8)
    assert {sum(room for _, room in pack) for pack in packs} == {511}


@pytest.mark.parametrize(("budget", "num_packs"), [(0, 1), (1, 0)])
def test_impossible_budgets_are_refused(budget, num_packs):
    with pytest.raises(ValueError, match="must be at least 1"):
        TokenPool(budget, num_packs)


@pytest.mark.parametrize("length", [0, 51])
def test_items_that_fit_no_pack_are_refused(length):
    with pytest.raises(ValueError, match=f"an item of {length} tokens does not fit a pack of 50"):
        TokenPool(50, 2).add("item", length)


@pytest.mark.parametrize("least", [0, 11])
def test_items_that_cannot_be_so_short_are_refused(least):
    with pytest.raises(ValueError, match=f"an item of 10 tokens cannot have {least} at least"):
        TokenPool(50, 2).add("item", 10, least)


@given(rows=st.integers(1, 200), columns=st.integers(1, 200), share=st.floats(0, 1))
def test_a_smaller_grid_fits_and_keeps_sides_and_shape(rows, columns, share):
    least = least_patches((rows, columns), MAX_SHRINK)
    room = least + round(share * (rows * columns - least))
    found = smaller_grid((rows, columns), room, MAX_SHRINK)
    assert least <= math.prod(found) <= room
    for side, own in zip(found, (rows, columns), strict=True):
        assert math.ceil(own * (1 - MAX_SHRINK) - 1e-9) <= side <= own
    longer, shorter = max(rows, columns), min(rows, columns)
    assert abs(min(found) - shorter * max(found) / longer) < 1
    if room == rows * columns:
        assert found == (rows, columns)


def test_a_grid_is_not_made_smaller_than_it_may_be():
    with pytest.raises(ValueError, match="96 x 96 patches cannot be 8099 with sides at most 7% shorter: 8100"):
        smaller_grid((96, 96), 8099, 0.07)
