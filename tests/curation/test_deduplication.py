# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Duplicates, against comparing every pair."""

import random

import numpy as np
import pytest

from turingvit_hf.curation import deduplication as module
from turingvit_hf.curation.decisions import DuplicateThresholds
from turingvit_hf.curation.deduplication import (
    Duplicate,
    PictureHashes,
    find_duplicates,
    find_semantic_duplicates,
    preference,
)


THRESHOLDS = DuplicateThresholds()


def flip(value, bits, rng):
    for bit in rng.sample(range(64), bits):
        value ^= 1 << bit
    return value


def make_hashes(number=300, *, seed=0):
    """Families of pictures whose pHashes differ in few bits, among strangers."""
    rng = random.Random(seed)
    phash, dhash = [], []
    while len(phash) < number:
        p, d = rng.getrandbits(64), rng.getrandbits(64)
        for _ in range(rng.randint(1, 6)):
            phash.append(flip(p, rng.randint(0, 7), rng))
            dhash.append(flip(d, rng.randint(0, 6), rng))
    phash, dhash = phash[:number], dhash[:number]
    return PictureHashes(
        sample_ids=[f"{rng.getrandbits(64):016x}" for _ in phash],
        sha256=[f"{rng.getrandbits(256):064x}" for _ in phash],
        phash=[f"{value:016x}" for value in phash],
        dhash=[f"{value:016x}" for value in dhash],
        color_grid=["80" * 48] * number,
    )


def distance(a, b):
    return (int(a, 16) ^ int(b, 16)).bit_count()


def near_by_all_pairs(pictures, order):
    """Sample ids of those that are kept, each row compared with all that were kept before."""
    kept = []
    for row in order:
        if not any(
            distance(pictures.phash[row], pictures.phash[other]) <= THRESHOLDS.phash_distance
            and distance(pictures.dhash[row], pictures.dhash[other]) <= THRESHOLDS.dhash_distance
            for other in kept
        ):
            kept.append(int(row))
    return {pictures.sample_ids[row] for row in kept}


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_near_duplicates_are_those_of_all_pairs(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    pictures = make_hashes()
    order = preference(range(300), [0.0] * 300, pictures.sample_ids)
    found = find_duplicates(pictures, order, THRESHOLDS)
    kept = {sample_id for sample_id, duplicate in zip(pictures.sample_ids, found, strict=True) if duplicate is None}
    assert kept == near_by_all_pairs(pictures, order)
    number = {sample_id: row for row, sample_id in enumerate(pictures.sample_ids)}
    for row, duplicate in enumerate(found):
        if duplicate is not None:
            # it names a row that stays, and how far that is
            assert duplicate.of in kept
            assert duplicate.distance == distance(pictures.phash[row], pictures.phash[number[duplicate.of]])
            assert duplicate.distance <= THRESHOLDS.phash_distance


def test_order_of_rows_plays_no_part():
    pictures = make_hashes()
    shuffled = np.random.default_rng(0).permutation(300)
    again = PictureHashes(
        *([column[row] for row in shuffled] for column in (pictures.sample_ids, pictures.sha256, pictures.phash)),
        *([column[row] for row in shuffled] for column in (pictures.dhash, pictures.color_grid)),
    )
    found = find_duplicates(pictures, preference([1] * 300, [1] * 300, pictures.sample_ids), THRESHOLDS)
    found_again = find_duplicates(again, preference([1] * 300, [1] * 300, again.sample_ids), THRESHOLDS)
    assert dict(zip(pictures.sample_ids, found, strict=True)) == dict(zip(again.sample_ids, found_again, strict=True))


def few(number=3, **columns):
    plain = {
        "sample_ids": [f"id{row}" for row in range(number)],
        "sha256": [f"sha{row}" for row in range(number)],
        "phash": [f"{row:x}" * 16 for row in (1, 6, 8, 15)[:number]],
        "dhash": ["0" * 16] * number,
        "color_grid": ["80" * 48] * number,
    }
    return PictureHashes(**plain | columns)


def test_the_best_of_the_same_file_is_kept():
    pictures = few(sha256=["a", "a", "b"])
    found = find_duplicates(pictures, [1, 0, 2], THRESHOLDS)
    assert found == [Duplicate("id1", "exact", 0), None, None]
    assert find_duplicates(pictures, [1, 0, 2], THRESHOLDS, exact=False) == [None] * 3


def test_equal_hashes_of_different_files_are_near_duplicates_of_one_that_stays():
    """Two equal ones beside a third that is near: all name the third, which is preferred."""
    pictures = few(phash=["0" * 15 + "1", "0" * 15 + "1", "0" * 16])
    assert find_duplicates(pictures, [2, 0, 1], THRESHOLDS) == [
        Duplicate("id2", "near", 1),
        Duplicate("id2", "near", 1),
        None,
    ]
    assert find_duplicates(pictures, [2, 0, 1], THRESHOLDS, near=False) == [None] * 3


def test_a_hash_of_gradients_or_colors_that_differs_saves_a_picture():
    same = ["0" * 16] * 3
    assert find_duplicates(few(phash=same, dhash=["0" * 16, "f" * 16, "0" * 16]), [0, 1, 2], THRESHOLDS) == [
        None,
        None,
        Duplicate("id0", "near", 0),
    ]
    red = "ff0000" + "80" * 45
    assert find_duplicates(few(phash=same, color_grid=["80" * 48, red, red]), [0, 1, 2], THRESHOLDS) == [
        None,
        None,
        Duplicate("id1", "near", 0),
    ]


def test_rows_without_hashes_or_out_of_the_order_take_no_part():
    pictures = few(sha256=["a", "a", None], phash=[None, None, None])
    assert find_duplicates(pictures, [1, 2], THRESHOLDS) == [None] * 3


def test_pictures_of_an_earlier_run_are_left_out():
    known = PictureHashes(["old0", "old1"], ["sha0", None], [None, "6" * 15 + "7"])
    found = find_duplicates(few(), [0, 1, 2], THRESHOLDS, known=known)
    assert found == [Duplicate("old0", "known", 0), Duplicate("old1", "known", 1), None]


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 values of dhash for 3"):
        few(dhash=["0" * 16] * 2)


def test_preference_is_size_then_sharpness_then_name():
    assert preference([1, 9, 9, 9], [5, 1, 2, 2], ["a", "b", "d", "c"]).tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(("cluster_size", "block"), [(10_000, 1024), (10_000, 3), (40, 7)])
def test_semantic_duplicates(monkeypatch, cluster_size, block):
    monkeypatch.setattr(module, "CLUSTER_SIZE", cluster_size)
    monkeypatch.setattr(module, "BLOCK", block)
    generator = np.random.default_rng(0)
    scenes = generator.normal(size=(40, 32))
    rows = np.repeat(np.arange(40), 3)
    vectors = scenes[rows] + 0.02 * generator.normal(size=(120, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    overall = generator.random(120)
    ids = [f"id{row:03d}" for row in range(120)]
    found = find_semantic_duplicates(vectors, overall, ids, THRESHOLDS)
    for row, duplicate in enumerate(found):
        best = max(range(row // 3 * 3, row // 3 * 3 + 3), key=lambda other: overall[other])
        if row == best:
            assert duplicate is None
        else:
            assert duplicate is not None
            assert (duplicate.of, duplicate.kind) == (ids[best], "semantic")
            assert THRESHOLDS.semantic_similarity <= duplicate.distance <= 1
    assert find_semantic_duplicates(vectors, overall, ids, THRESHOLDS) == found


def test_no_rows_have_no_duplicates():
    assert find_duplicates(few(0), [], THRESHOLDS) == []
    assert find_semantic_duplicates(np.zeros((0, 4), np.float16), [], [], THRESHOLDS) == []
