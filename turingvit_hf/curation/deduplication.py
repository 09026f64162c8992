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
# SemDeDup compares within clusters; a cluster of so many is compared in a second
CLUSTER_SIZE = 10_000
KMEANS_ITERATIONS = 20

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
    """

    sample_ids: Sequence[str]
    sha256: Sequence[str | None]
    phash: Sequence[str | None]
    dhash: Sequence[str | None] = field(default_factory=list)
    color_grid: Sequence[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("sha256", "phash", "dhash", "color_grid"):
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
    return found


def find_semantic_duplicates(
    embeddings: np.ndarray,
    overall: Sequence[float],
    sample_ids: Sequence[str],
    thresholds: DuplicateThresholds,
    *,
    seed: int = 0,
) -> list[Duplicate | None]:
    """Return for each image what it is a semantic duplicate of, None for those that are kept.

    SemDeDup (Abbas et al., arXiv 2303.09540): images are clustered, and compared within their cluster only, so that a
    pair on both sides of a border is missed. Up to 10,000 images are one cluster, and none is missed.

    Args:
        embeddings: (N, E), of length 1.
        overall: score of each image's best caption; of duplicates the best is kept.
        sample_ids: tell equal scores apart.
        thresholds: `semantic_similarity` is the least cosine of duplicates.
        seed: of the clustering.

    Raises:
        InputError: faiss is not installed.
    """
    found: list[Duplicate | None] = [None] * len(sample_ids)
    order = np.lexsort((np.asarray(sample_ids), -np.asarray(overall, float)))
    for members in _clusters(embeddings, order, seed):
        kept = np.zeros(0, np.int64)
        for start in range(0, len(members), BLOCK):
            block = members[start : start + BLOCK]
            candidates = np.concatenate([kept, block])
            cosines = _unit(embeddings[block]) @ _unit(embeddings[candidates]).T
            is_kept = np.r_[np.ones(len(kept), bool), np.zeros(len(block), bool)]
            for place, row in enumerate(block):
                near = np.flatnonzero(is_kept & (cosines[place] >= thresholds.semantic_similarity))
                if len(near):
                    nearest = near[np.argmax(cosines[place, near])]
                    of = sample_ids[int(candidates[nearest])]
                    found[int(row)] = Duplicate(of, "semantic", min(1.0, float(cosines[place, nearest])))
                else:
                    is_kept[len(kept) + place] = True
            kept = candidates[is_kept]
    return found


class _Signatures(NamedTuple):
    """Hashes as bytes: (n, 8), (n, 8), (n, 48), and whether the last two are there, (n,) each."""

    phash: np.ndarray
    dhash: np.ndarray
    colors: np.ndarray
    has_dhash: np.ndarray
    has_colors: np.ndarray

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
    index = faiss.IndexBinaryFlat(HASH_BITS)
    if known is not None:
        of_known = [row for row, value in enumerate(known.phash) if value]
        owners = [(known.sample_ids[row], "known") for row in of_known]
        kept = _signatures(known, of_known)
        index.add(kept.phash)
    # pictures that all hash alike, blank pages for example, would make a pair of any two
    representatives: dict[tuple[str | None, ...], int] = {}
    for row in rows:
        signature = (
            pictures.phash[row],
            *(column[row] if column else None for column in (pictures.dhash, pictures.color_grid)),
        )
        first = representatives.setdefault(signature, row)
        if first != row:
            found[row] = Duplicate(pictures.sample_ids[first], "near", 0)
    different = list(representatives.values())
    for start in range(0, len(different), BLOCK):
        block = different[start : start + BLOCK]
        signatures = _signatures(pictures, block)
        new: list[int] = []
        for place, match in enumerate(_nearest_kept(index, kept, signatures, thresholds)):
            owner = owners[match[0]] if match is not None else None
            if match is None and (match := _nearest_new(signatures, new, place, thresholds)) is not None:
                owner = pictures.sample_ids[block[match[0]]], "near"
            if match is None or owner is None:
                new.append(place)
            else:
                found[block[place]] = Duplicate(owner[0], owner[1], match[1])
        index.add(signatures.take(new).phash)
        kept = kept.joined(signatures.take(new))
        owners.extend((pictures.sample_ids[block[place]], "near") for place in new)
    _follow(pictures, representatives, found)


def _follow(
    pictures: PictureHashes, representatives: dict[tuple[str | None, ...], int], found: list[Duplicate | None]
) -> None:
    """Where the first of equal signatures turned out a duplicate, the others are so of the same row."""
    moved = {pictures.sample_ids[row]: found[row] for row in representatives.values() if found[row] is not None}
    for row, duplicate in enumerate(found):
        if duplicate is not None and duplicate.kind == "near" and duplicate.of in moved:
            found[row] = moved[duplicate.of]


def _nearest_kept(
    index: Any, kept: _Signatures, queries: _Signatures, thresholds: DuplicateThresholds
) -> Iterator[tuple[int, int] | None]:
    """For each query the nearest kept picture within all thresholds, the first of equal ones, and its distance."""
    # faiss' radius is exclusive, and an empty index is searched in vain
    limits, distances, labels = index.range_search(queries.phash, thresholds.phash_distance + 1)
    for place in range(len(queries.phash)):
        hits = slice(int(limits[place]), int(limits[place + 1]))
        near = labels[hits]
        is_alike = _confirmed(queries, place, kept.take(near), thresholds)
        pairs = zip(distances[hits][is_alike].tolist(), near[is_alike].tolist(), strict=True)
        distance, row = min(pairs, default=(0, None))
        yield None if row is None else (row, int(distance))


def _nearest_new(
    signatures: _Signatures, new: list[int], place: int, thresholds: DuplicateThresholds
) -> tuple[int, int] | None:
    """The same among the pictures of a block that are kept so far."""
    others = signatures.take(new)
    distances = _differing_bits(others.phash, signatures.phash[place])
    allowed = (distances <= thresholds.phash_distance) & _confirmed(signatures, place, others, thresholds)
    distance, number = min(
        zip(distances[allowed].tolist(), np.flatnonzero(allowed).tolist(), strict=True), default=(0, None)
    )
    return None if number is None else (new[number], int(distance))


def _confirmed(queries: _Signatures, place: int, others: _Signatures, thresholds: DuplicateThresholds) -> np.ndarray:
    """Whether dHashes and colors of others agree with a query's, as far as both have them."""
    bits = _differing_bits(others.dhash, queries.dhash[place])
    difference = np.abs(others.colors.astype(np.int16) - queries.colors[place].astype(np.int16)).max(1, initial=0)
    is_alike = (bits <= thresholds.dhash_distance) | ~(others.has_dhash & queries.has_dhash[place])
    return is_alike & ((difference <= thresholds.color_distance) | ~(others.has_colors & queries.has_colors[place]))


def _differing_bits(hashes: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.bitwise_xor(hashes, other), axis=1).sum(1, dtype=np.int64)


def _signatures(pictures: PictureHashes, rows: Sequence[int]) -> _Signatures:
    columns = []
    for column, width in ((pictures.phash, 8), (pictures.dhash, 8), (pictures.color_grid, 48)):
        values = [(column[row] if column else None) or "" for row in rows]
        joined = "".join(value or "00" * width for value in values)
        packed = np.frombuffer(bytes.fromhex(joined), np.uint8).reshape(len(rows), width)
        columns.append((packed, np.array([bool(value) for value in values], bool)))
    (phash, _), (dhash, has_dhash), (colors, has_colors) = columns
    return _Signatures(phash, dhash, colors, has_dhash, has_colors)


def _clusters(embeddings: np.ndarray, order: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of each cluster, in the order that was given."""
    number = -(-len(order) // CLUSTER_SIZE)
    if number <= 1:
        yield order
        return
    faiss = require("faiss")
    kmeans = faiss.Kmeans(embeddings.shape[1], number, niter=KMEANS_ITERATIONS, seed=seed, spherical=True)
    # by row order and not by score, so that a changed score does not move the borders
    kmeans.train(_unit(embeddings[_sample(len(order), seed)]))
    assigned = np.concatenate(
        [
            kmeans.index.search(_unit(embeddings[start : start + 65_536]), 1)[1][:, 0]
            for start in range(0, len(embeddings), 65_536)
        ]
    )[order]
    for cluster in range(number):
        yield order[assigned == cluster]


def _sample(number: int, seed: int) -> np.ndarray:
    """At most 100,000 row numbers, ascending: centers need no more."""
    if number <= 100_000:
        return np.arange(number)
    return np.sort(np.random.default_rng(seed).choice(number, 100_000, replace=False))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """As float32 of length 1, which 16 bits hold to three digits only."""
    values = np.asarray(vectors, np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
