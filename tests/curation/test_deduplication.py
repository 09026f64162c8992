# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Duplicates, against comparing every pair."""

import random

import numpy as np
import pytest

from turingvit_hf.curation import deduplication as module
from turingvit_hf.curation.decisions import DuplicateThresholds
from turingvit_hf.curation.deduplication import (
    Duplicate,
    find_duplicates,
    preference,
)
from turingvit_hf.curation.picture_hashes import PictureHashes, first_of_equal


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
    return PictureHashes.of_rows(
        {
            "sample_id": f"{rng.getrandbits(64):016x}",
            "sha256": f"{rng.getrandbits(256):064x}",
            "phash": f"{p:016x}",
            "dhash": f"{d:016x}",
            "color_grid": "80" * 48,
        }
        for p, d in zip(phash, dhash, strict=True)
    )


def distance(a, b):
    return (int.from_bytes(a.tobytes()) ^ int.from_bytes(b.tobytes())).bit_count()


def near_by_all_pairs(pictures, order):
    """Sample ids of those that are kept, each row compared with all that were kept before."""
    kept = []
    for row in order:
        if not any(
            distance(*pictures.records["phash"][[row, other]]) <= THRESHOLDS.phash_distance
            and distance(*pictures.records["dhash"][[row, other]]) <= THRESHOLDS.dhash_distance
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
            assert duplicate.distance == distance(*pictures.records["phash"][[row, number[duplicate.of]]])
            assert duplicate.distance <= THRESHOLDS.phash_distance


def test_order_of_rows_plays_no_part():
    pictures = make_hashes()
    shuffled = np.random.default_rng(0).permutation(300)
    again = PictureHashes([pictures.sample_ids[row] for row in shuffled], pictures.records[shuffled])
    found = find_duplicates(pictures, preference([1] * 300, [1] * 300, pictures.sample_ids), THRESHOLDS)
    found_again = find_duplicates(again, preference([1] * 300, [1] * 300, again.sample_ids), THRESHOLDS)
    assert dict(zip(pictures.sample_ids, found, strict=True)) == dict(zip(again.sample_ids, found_again, strict=True))


def sha(row):
    return f"{row:064x}"


def few(number=3, **columns):
    plain = {
        "sample_id": [f"id{row}" for row in range(number)],
        "sha256": [sha(row) for row in range(number)],
        "phash": [f"{row:x}" * 16 for row in (1, 6, 8, 15)[:number]],
        "dhash": ["0" * 16] * number,
        "color_grid": ["80" * 48] * number,
    }
    plain |= columns
    return PictureHashes.of_rows(dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True))


def test_the_best_of_the_same_file_is_kept():
    pictures = few(sha256=[sha(1), sha(1), sha(2)])
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


def test_a_copy_of_a_file_that_is_a_near_duplicate_itself_names_the_row_that_stays():
    """Twice the same file, its hash next to that of a larger picture, and a known picture beside another file."""
    pictures = few(sha256=[sha(1), sha(2), sha(2)], phash=["0" * 16, "0" * 15 + "1", "0" * 15 + "1"])
    assert find_duplicates(pictures, [0, 1, 2], THRESHOLDS) == [
        None,
        Duplicate("id0", "near", 1),
        Duplicate("id0", "near", 1),
    ]
    known = PictureHashes.of_rows([{"sample_id": "old", "phash": "0" * 16}])
    assert find_duplicates(pictures, [1, 2], THRESHOLDS, known=known)[2] == Duplicate("old", "known", 1)


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


def thumbnail(seed, contrast=60.0, noise=0.0):
    generator = np.random.default_rng(seed)
    pixels = 128 + contrast * generator.uniform(-1, 1, 256) + noise * np.random.default_rng(99).normal(size=256)
    return np.clip(pixels, 0, 255).round().astype(np.uint8).tobytes().hex()


@pytest.mark.parametrize("block", [1, 1024])
@pytest.mark.parametrize(
    ("thumbnails", "is_copy"),
    [
        ((thumbnail(0), thumbnail(0, noise=2)), True),
        ((thumbnail(0), thumbnail(1)), False),
        ((thumbnail(0), thumbnail(0, noise=20)), False),
        ((thumbnail(0), None), False),
        # of flat pictures nothing but rounding correlates
        ((thumbnail(0, contrast=1), thumbnail(0, contrast=1)), False),
    ],
    ids=["copy", "another", "noisy", "unknown", "flat"],
)
def test_pixels_tell_copies_in_which_a_phash_is_noise(monkeypatch, block, thumbnails, is_copy):
    monkeypatch.setattr(module, "BLOCK", block)
    pair = {"phash": ["0" * 16, "0" * 8 + "f" * 8], "thumbnail": list(thumbnails)}
    expected = Duplicate("id0", "near", 32) if is_copy else None
    assert find_duplicates(few(2, **pair), [0, 1], THRESHOLDS) == [None, expected]
    red = ["ff0000" + "80" * 45, "80" * 48]
    assert find_duplicates(few(2, color_grid=red, **pair), [0, 1], THRESHOLDS) == [None, None]
    assert find_duplicates(few(2, dhash=["0" * 16, "f" * 16], **pair), [0, 1], THRESHOLDS) == [None, None]


def test_rows_without_hashes_or_out_of_the_order_take_no_part():
    pictures = few(sha256=[sha(1), sha(1), None], phash=[None, None, None])
    assert find_duplicates(pictures, [1, 2], THRESHOLDS) == [None] * 3


def test_pictures_of_an_earlier_run_are_left_out():
    known = PictureHashes.of_rows(
        [{"sample_id": "old0", "sha256": sha(0).upper()}, {"sample_id": "old1", "phash": "6" * 15 + "7"}]
    )
    found = find_duplicates(few(), [0, 1, 2], THRESHOLDS, known=known)
    assert found == [Duplicate("old0", "known", 0), Duplicate("old1", "known", 1), None]


@pytest.mark.parametrize("digits", ["0" * 14, "0" * 18, "0" * 15 + "g"])
def test_a_hash_that_is_none_is_refused(digits):
    with pytest.raises(ValueError, match=r"phash is '0+g?', not 16 hex digits"):
        few(dhash=["0" * 16] * 3, phash=[digits] * 3)


def test_looks_are_equal_where_all_hashes_but_the_file_s_are():
    pictures = few(5, phash=["1" * 16] * 5, sha256=[sha(row) for row in range(5)], dhash=[None, *["0" * 16] * 4])
    looks = pictures.looks([0, 1, 2])
    assert looks.shape == (3, 16)
    assert first_of_equal(looks).tolist() == [0, 1, 1]  # none there is not the hash of zeros


def test_first_of_equal_rows_is_that_of_a_search_from_the_front():
    values = np.random.default_rng(0).integers(0, 3, (200, 3), np.uint8)
    expected = [next(other for other in range(200) if (values[other] == row).all()) for row in values]
    assert first_of_equal(values).tolist() == expected
    assert first_of_equal(values[:0]).tolist() == []


def test_preference_is_size_then_sharpness_then_name():
    assert preference([1, 9, 9, 9], [5, 1, 2, 2], ["a", "b", "d", "c"]).tolist() == [3, 2, 1, 0]


def test_no_rows_have_no_duplicates():
    assert find_duplicates(few(0), [], THRESHOLDS) == []
