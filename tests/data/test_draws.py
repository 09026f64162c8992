# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Draws depend on their key alone; permutations are permutations and look like random ones."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turingvit_hf.data.draws import draws, permuted, seed_of


@given(size=st.integers(1, 500), key=st.integers(0, 2**63 - 1))
def test_a_permutation_reaches_each_number_once(size, key):
    assert sorted(permuted(position, size, key) for position in range(size)) == list(range(size))


def test_a_large_permutation_needs_no_table():
    size = 850_000_000
    seen = {permuted(position, size, 3) for position in range(1000)}
    assert len(seen) == 1000
    assert 0.4 < sum(place < size / 2 for place in seen) / 1000 < 0.6


def test_each_position_goes_everywhere_equally_often():
    counts = [0] * 10
    for key in range(2000):
        counts[permuted(0, 10, seed_of(key))] += 1
    # 200 each with a standard deviation of 13
    assert all(abs(count - 200) < 65 for count in counts)


def test_other_processes_draw_the_same():
    # by its path: the package around it takes seconds to import
    path = sys.modules[draws.__module__].__file__
    code = f"import runpy; m = runpy.run_path({path!r}); print(m['seed_of']('a', 1), m['draws']('a', 1).random())"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.split() == [str(seed_of("a", 1)), str(draws("a", 1).random())]


@pytest.mark.parametrize("position", [-1, 5])
def test_positions_outside_are_refused(position):
    with pytest.raises(ValueError, match=r"is not in \[0, 5\)"):
        permuted(position, 5, 0)
