# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Which pictures are there twice: the same file, the same picture encoded anew or resized, the same scene.

Rows are taken by preference, and one is a duplicate if it is near enough to one that was kept. So each duplicate names
a row that stays and is itself within the thresholds; sets joined over chains of pairs would drop pictures that look
like none of those that are left. The order of rows plays no part.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from turingvit_hf.curation.decisions import DuplicateThresholds
from turingvit_hf.curation.optional import require
from turingvit_hf.curation.picture_hashes import PictureHashes, first_of_equal


HASH_BITS = 64
# rows compared with those that were kept, and then with each other, at a time
BLOCK = 1024
# Half of a pHash's bits are signs of nothing in a symmetric picture: its copies differ in up to 31 of them. So a pair
# whose dHashes agree is looked at as well, and is one where the pixels of its thumbnails correlate so far, which those
# of copies do to 0.999, and vary at all, by this standard deviation of 255.
LEAST_CORRELATION = 0.99
LEAST_DEVIATION = 2.0
# kept pictures of the nearest dHashes that are looked at; flat drawings have the dHash 0 in thousands
MOST_OF_DHASH = 64

Kind = Literal["exact", "near", "semantic", "known"]


class Duplicate(NamedTuple):
    """What a row is a duplicate of.

    Attributes:
        of: the sample id of the row that is kept.
        kind: `"known"` is one of an earlier run or of an evaluation set, whether exact or near.
        distance: bits in which the pHashes differ, 0 of exact ones; of semantic ones the cosine.
    """

    of: str
    kind: Kind
    distance: float


def preference(pixels: Sequence[float], sharpness: Sequence[float], sample_ids: Sequence[str]) -> np.ndarray:
    """Return the numbers of rows, the one to keep first: by pixels, then by sharpness, then by sample id."""
    return np.lexsort((np.asarray(sample_ids), -np.asarray(sharpness, float), -np.asarray(pixels, float)))


def find_duplicates(
    pictures: PictureHashes,
    order: Sequence[int] | np.ndarray,
    thresholds: DuplicateThresholds,
    *,
    exact: bool = True,
    near: bool = True,
    known: PictureHashes | None = None,
) -> list[Duplicate | None]:
    """Return for each picture what it is a duplicate of, None for those that are kept.

    Args:
        pictures: their hashes.
        order: the numbers of those that take part, the one to keep first. Rows that are dropped already stay away, or
            they would take others with them.
        thresholds: how alike near duplicates are.
        exact: whether the same file twice is a duplicate.
        near: whether the same picture in another encoding or size is.
        known: pictures of an earlier run or an evaluation set, all of which were kept.

    Raises:
        InputError: faiss is not installed.
    """
    found: list[Duplicate | None] = [None] * len(pictures.sample_ids)
    if exact:
        _find_exact(pictures, order, known, found)
    if near:
        rows = [int(row) for row in order if found[row] is None and pictures.records["has_phash"][row]]
        _find_near(pictures, rows, thresholds, known, found)
        _follow(pictures, rows, found)
    return found


def _find_exact(
    pictures: PictureHashes,
    order: Sequence[int] | np.ndarray,
    known: PictureHashes | None,
    found: list[Duplicate | None],
) -> None:
    """Adds rows whose file a known picture or an earlier row has to `found`."""
    rows = [int(row) for row in order if pictures.records["has_sha256"][row]]
    owners: list[tuple[str, Kind]] = []
    digests = pictures.records["sha256"][rows]
    if known is not None:
        of_known = np.flatnonzero(known.records["has_sha256"]).tolist()
        owners.extend((known.sample_ids[row], "known") for row in of_known)
        digests = np.concatenate([known.records["sha256"][of_known], digests])
    num_known = len(owners)
    owners.extend((pictures.sample_ids[row], "exact") for row in rows)
    for place, first in enumerate(first_of_equal(digests)[num_known:].tolist()):
        if first != num_known + place:
            of, kind = owners[first]
            found[rows[place]] = Duplicate(of, kind, 0)


def _find_near(
    pictures: PictureHashes,
    rows: list[int],
    thresholds: DuplicateThresholds,
    known: PictureHashes | None,
    found: list[Duplicate | None],
) -> None:
    """Adds near duplicates among rows, which stand in the order of preference, to `found`."""
    # pictures that all hash alike, blank pages for example, would make a pair of any two
    first = first_of_equal(pictures.looks(rows))
    for place in np.flatnonzero(first != np.arange(len(rows))):
        found[rows[place]] = Duplicate(pictures.sample_ids[rows[first[place]]], "near", 0)
    different = [row for row in rows if found[row] is None]

    # known ones come first: numbers of records count on from them
    num_known = len(known.sample_ids) if known is not None else 0
    records = np.concatenate([known.records, pictures.records]) if known is not None else pictures.records
    kept = _Kept(records)
    if known is not None:
        of_known = np.flatnonzero(known.records["has_phash"])
        kept.add(of_known, [(known.sample_ids[row], "known") for row in of_known.tolist()])
    for start in range(0, len(different), BLOCK):
        block = np.array(different[start : start + BLOCK], np.int64)
        queries = pictures.records[block]
        new: list[int] = []
        for place, match in enumerate(kept.nearest(queries, thresholds)):
            owner = kept.owners[match[0]] if match is not None else None
            if match is None and (match := _nearest(queries[place], queries[new], thresholds)) is not None:
                owner = pictures.sample_ids[block[new[match[0]]]], "near"
            if match is None or owner is None:
                new.append(place)
            else:
                found[block[place]] = Duplicate(owner[0], owner[1], match[1])
        kept.add(num_known + block[new], [(pictures.sample_ids[row], "near") for row in block[new]])


class _Kept:
    """Pictures that stay, to be looked up by their hashes.

    Args:
        records: of these and of others; they are not copied.

    Attributes:
        owners: the sample id of each that stays, and what a copy of it is called.
    """

    def __init__(self, records: np.ndarray):
        faiss = require("faiss")
        self.owners: list[tuple[str, Kind]] = []
        self._records = records
        self._numbers = array("q")
        self._by_phash, self._by_dhash = faiss.IndexBinaryFlat(HASH_BITS), faiss.IndexBinaryFlat(HASH_BITS)

    def add(self, numbers: np.ndarray, owners: Sequence[tuple[str, Kind]]) -> None:
        """Adds pictures by the numbers of their records; none may be a copy of another."""
        self.owners.extend(owners)
        self._numbers.extend(numbers.tolist())
        self._by_phash.add(self._records["phash"][numbers])
        self._by_dhash.add(self._records["dhash"][numbers])

    def nearest(self, queries: np.ndarray, thresholds: DuplicateThresholds) -> Iterator[tuple[int, int] | None]:
        """For each query the nearest picture within all thresholds, the first of equal ones, and its distance."""
        # faiss' radius is exclusive, and an empty index is searched in vain
        limits, _, labels = self._by_phash.range_search(
            np.ascontiguousarray(queries["phash"]), thresholds.phash_distance + 1
        )
        _, by_dhash = self._by_dhash.search(np.ascontiguousarray(queries["dhash"]), MOST_OF_DHASH)
        for place, query in enumerate(queries):
            # of a label that is missing faiss says -1
            found = [labels[int(limits[place]) : int(limits[place + 1])], by_dhash[place][by_dhash[place] >= 0]]
            candidates = np.unique(np.concatenate(found)).tolist()
            others = self._records[[self._numbers[candidate] for candidate in candidates]]
            match = _nearest(query, others, thresholds)
            yield None if match is None else (candidates[match[0]], match[1])


def _follow(pictures: PictureHashes, rows: Sequence[int], found: list[Duplicate | None]) -> None:
    """Where the first of equal files or of equal signatures turned out a near duplicate, the others are so of the
    row that it is one of."""
    moved = {pictures.sample_ids[row]: found[row] for row in rows if found[row] is not None}
    for _ in range(2):  # a file's first may be the equal of another, which is a near duplicate of a third
        for row, duplicate in enumerate(found):
            if duplicate is not None and duplicate.kind != "known" and duplicate.of in moved:
                found[row] = moved[duplicate.of]


def _nearest(query: np.void, others: np.ndarray, thresholds: DuplicateThresholds) -> tuple[int, int] | None:
    """The first of the nearest of others that are alike, and its pHash's distance."""
    distances = _differing_bits(others["phash"], query["phash"])
    is_alike = _agrees(query, others, thresholds)
    by_pixels = np.flatnonzero(is_alike & (distances > thresholds.phash_distance))
    is_alike[by_pixels] = _correlates(query, others[by_pixels])
    alike = np.flatnonzero(is_alike)
    if not len(alike):
        return None
    place = int(alike[np.argmin(distances[alike])])
    return place, int(distances[place])


def _agrees(query: np.void, others: np.ndarray, thresholds: DuplicateThresholds) -> np.ndarray:
    """Whether dHashes and colors of others agree with a query's, as far as both have them."""
    bits = _differing_bits(others["dhash"], query["dhash"])
    difference = np.abs(others["color_grid"].astype(np.int16) - query["color_grid"].astype(np.int16)).max(1, initial=0)
    is_alike = (bits <= thresholds.dhash_distance) | ~(others["has_dhash"] & query["has_dhash"])
    return is_alike & (
        (difference <= thresholds.color_distance) | ~(others["has_color_grid"] & query["has_color_grid"])
    )


def _correlates(query: np.void, others: np.ndarray) -> np.ndarray:
    """Whether others have a dHash, colors and pixels, and these correlate with a query's."""
    pixels = np.concatenate([query["thumbnail"][None], others["thumbnail"]]).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    deviations = pixels.std(1)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)
    is_known = np.ones(len(others), bool)
    for name in ("has_dhash", "has_color_grid", "has_thumbnail"):
        is_known &= others[name] & query[name]
    is_rich = (deviations[1:] >= LEAST_DEVIATION) & (deviations[0] >= LEAST_DEVIATION)
    return is_known & is_rich & (pixels[1:] @ pixels[0] >= LEAST_CORRELATION)


def _differing_bits(hashes: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.bitwise_xor(hashes, other), axis=1).sum(1, dtype=np.int64)
