# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Which pictures are there twice: the same file, the same picture encoded anew or resized, the same scene.

Rows are taken by preference, and one is a duplicate if it is near enough to one that was kept. So each duplicate names
a row that stays and is itself within the thresholds; sets joined over chains of pairs would drop pictures that look
like none of those that are left. The order of rows plays no part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from turingvit_hf.curation.decisions import DuplicateThresholds
from turingvit_hf.curation.optional import require


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


@dataclass(frozen=True)
class PictureHashes:
    """Hashes of N pictures; a row without one is a duplicate of nothing by it.

    Attributes:
        sample_ids: each once.
        sha256: in hex.
        phash: 16 hex digits.
        dhash: 16 hex digits; empty where a list of known pictures has none, and then not held against them.
        color_grid: 96 hex digits; likewise.
        thumbnail: 512 hex digits, 16 x 16 gray pixels; a picture without is told by its hashes alone.
    """

    sample_ids: Sequence[str]
    sha256: Sequence[str | None]
    phash: Sequence[str | None]
    dhash: Sequence[str | None] = field(default_factory=list)
    color_grid: Sequence[str | None] = field(default_factory=list)
    thumbnail: Sequence[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("sha256", "phash", "dhash", "color_grid", "thumbnail"):
            column = getattr(self, name)
            if len(column) != len(self.sample_ids) and (column or name in ("sha256", "phash")):
                raise ValueError(f"{len(column)} values of {name} for {len(self.sample_ids)} sample ids")


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
        kept: dict[str, tuple[str, Kind]] = {}
        if known is not None:
            kept = {sha: (of, "known") for sha, of in zip(known.sha256, known.sample_ids, strict=True) if sha}
        for row in order:
            sha = pictures.sha256[row]
            if sha and sha in kept:
                found[row] = Duplicate(kept[sha][0], kept[sha][1], 0)
            elif sha:
                kept[sha] = (pictures.sample_ids[row], "exact")
    if near:
        rows = [int(row) for row in order if found[row] is None and pictures.phash[row]]
        _find_near(pictures, rows, thresholds, known, found)
        _follow(pictures, rows, found)
    return found


class _Signatures(NamedTuple):
    """Hashes as bytes: (n, 8), (n, 8), (n, 48), (n, 256), and whether the last three are there, (n,) each."""

    phash: np.ndarray
    dhash: np.ndarray
    colors: np.ndarray
    pixels: np.ndarray
    has_dhash: np.ndarray
    has_colors: np.ndarray
    has_pixels: np.ndarray

    def take(self, rows: Sequence[int] | np.ndarray) -> "_Signatures":
        return _Signatures(*(column[np.asarray(rows, np.int64)] for column in self))

    def joined(self, other: "_Signatures") -> "_Signatures":
        return _Signatures(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


def _find_near(
    pictures: PictureHashes,
    rows: list[int],
    thresholds: DuplicateThresholds,
    known: PictureHashes | None,
    found: list[Duplicate | None],
) -> None:
    """Adds near duplicates among rows, which stand in the order of preference, to `found`."""
    faiss = require("faiss")
    owners: list[tuple[str, Kind]] = []
    kept = _signatures(pictures, [])
    index, by_dhash = faiss.IndexBinaryFlat(HASH_BITS), faiss.IndexBinaryFlat(HASH_BITS)
    if known is not None:
        of_known = [row for row, value in enumerate(known.phash) if value]
        owners = [(known.sample_ids[row], "known") for row in of_known]
        kept = _signatures(known, of_known)
        index.add(kept.phash)
        by_dhash.add(kept.dhash)
    # pictures that all hash alike, blank pages for example, would make a pair of any two
    representatives: dict[tuple[str | None, ...], int] = {}
    for row in rows:
        signature = (
            pictures.phash[row],
            *(column[row] if column else None for column in (pictures.dhash, pictures.color_grid, pictures.thumbnail)),
        )
        first = representatives.setdefault(signature, row)
        if first != row:
            found[row] = Duplicate(pictures.sample_ids[first], "near", 0)
    different = list(representatives.values())
    for start in range(0, len(different), BLOCK):
        block = different[start : start + BLOCK]
        signatures = _signatures(pictures, block)
        new: list[int] = []
        for place, match in enumerate(_nearest_kept((index, by_dhash), kept, signatures, thresholds)):
            owner = owners[match[0]] if match is not None else None
            if match is None and (match := _nearest_new(signatures, new, place, thresholds)) is not None:
                owner = pictures.sample_ids[block[match[0]]], "near"
            if match is None or owner is None:
                new.append(place)
            else:
                found[block[place]] = Duplicate(owner[0], owner[1], match[1])
        index.add(signatures.take(new).phash)
        by_dhash.add(signatures.take(new).dhash)
        kept = kept.joined(signatures.take(new))
        owners.extend((pictures.sample_ids[block[place]], "near") for place in new)


def _follow(pictures: PictureHashes, rows: Sequence[int], found: list[Duplicate | None]) -> None:
    """Where the first of equal files or of equal signatures turned out a near duplicate, the others are so of the
    row that it is one of."""
    moved = {pictures.sample_ids[row]: found[row] for row in rows if found[row] is not None}
    for _ in range(2):  # a file's first may be the equal of another, which is a near duplicate of a third
        for row, duplicate in enumerate(found):
            if duplicate is not None and duplicate.kind != "known" and duplicate.of in moved:
                found[row] = moved[duplicate.of]


def _nearest_kept(
    indexes: tuple[Any, Any], kept: _Signatures, queries: _Signatures, thresholds: DuplicateThresholds
) -> Iterator[tuple[int, int] | None]:
    """For each query the nearest kept picture within all thresholds, the first of equal ones, and its distance."""
    # faiss' radius is exclusive, and an empty index is searched in vain
    limits, _, labels = indexes[0].range_search(queries.phash, thresholds.phash_distance + 1)
    _, by_dhash = indexes[1].search(queries.dhash, MOST_OF_DHASH)
    for place in range(len(queries.phash)):
        # of a label that is missing faiss says -1
        found = [labels[int(limits[place]) : int(limits[place + 1])], by_dhash[place][by_dhash[place] >= 0]]
        yield _nearest(queries, place, kept, np.unique(np.concatenate(found)), thresholds)


def _nearest_new(
    signatures: _Signatures, new: list[int], place: int, thresholds: DuplicateThresholds
) -> tuple[int, int] | None:
    """The same among the pictures of a block that are kept so far."""
    return _nearest(signatures, place, signatures, np.array(new, np.int64), thresholds)


def _nearest(
    queries: _Signatures, place: int, kept: _Signatures, numbers: np.ndarray, thresholds: DuplicateThresholds
) -> tuple[int, int] | None:
    """Of the kept pictures of these numbers, ascending, the nearest that is alike, with its pHash's distance."""
    others = kept.take(numbers)
    distances = _differing_bits(others.phash, queries.phash[place])
    is_alike = _agrees(queries, place, others, thresholds)
    by_pixels = np.flatnonzero(is_alike & (distances > thresholds.phash_distance))
    is_alike[by_pixels] = _correlates(queries, place, others.take(by_pixels))
    pairs = zip(distances[is_alike].tolist(), numbers[is_alike].tolist(), strict=True)
    distance, number = min(pairs, default=(0, None))
    return None if number is None else (number, distance)


def _agrees(queries: _Signatures, place: int, others: _Signatures, thresholds: DuplicateThresholds) -> np.ndarray:
    """Whether dHashes and colors of others agree with a query's, as far as both have them."""
    bits = _differing_bits(others.dhash, queries.dhash[place])
    difference = np.abs(others.colors.astype(np.int16) - queries.colors[place].astype(np.int16)).max(1, initial=0)
    is_alike = (bits <= thresholds.dhash_distance) | ~(others.has_dhash & queries.has_dhash[place])
    return is_alike & ((difference <= thresholds.color_distance) | ~(others.has_colors & queries.has_colors[place]))


def _correlates(queries: _Signatures, place: int, others: _Signatures) -> np.ndarray:
    """Whether others have a dHash, colors and pixels, and these correlate with a query's."""
    pixels = np.concatenate([queries.pixels[place : place + 1], others.pixels]).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    deviations = pixels.std(1)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)
    is_known = others.has_dhash & others.has_colors & others.has_pixels
    is_known &= queries.has_dhash[place] & queries.has_colors[place] & queries.has_pixels[place]
    is_rich = (deviations[1:] >= LEAST_DEVIATION) & (deviations[0] >= LEAST_DEVIATION)
    return is_known & is_rich & (pixels[1:] @ pixels[0] >= LEAST_CORRELATION)


def _differing_bits(hashes: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.bitwise_xor(hashes, other), axis=1).sum(1, dtype=np.int64)


def _signatures(pictures: PictureHashes, rows: Sequence[int]) -> _Signatures:
    columns = []
    for column, width in (
        (pictures.phash, 8),
        (pictures.dhash, 8),
        (pictures.color_grid, 48),
        (pictures.thumbnail, 256),
    ):
        values = [(column[row] if column else None) or "" for row in rows]
        packed = np.zeros((len(rows), width), np.uint8)
        for place, value in enumerate(values):  # one by one: joined, the digits of all would double the memory
            if value:
                packed[place] = np.frombuffer(bytes.fromhex(value), np.uint8)
        columns.append((packed, np.array([bool(value) for value in values], bool)))
    return _Signatures(*(packed for packed, _ in columns), *(is_there for _, is_there in columns[1:]))
