# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of the same scene, told by the scorer's embeddings, of which the one with the best score is kept."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from turingvit_hf.curation.decisions import Thresholds
from turingvit_hf.curation.deduplication import BLOCK, Duplicate
from turingvit_hf.curation.optional import require
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.stored import vectors_file


# SemDeDup compares within clusters; a cluster of so many is compared in a second
CLUSTER_SIZE = 10_000
KMEANS_ITERATIONS = 20


class BestScores(NamedTuple):
    """Scores of a row's best candidate; None without one."""

    overall: float | None
    alignment: float | None


def semantic_duplicates(
    embeddings: np.ndarray, best: Sequence[BestScores], sample_ids: Sequence[str], thresholds: Thresholds, *, seed: int
) -> list[Duplicate | None]:
    """Return `find_semantic_duplicates` by a run's thresholds; all None where no similarity is set.

    Rows without a candidate, or whose alignment is too low, are dropped anyway and take no others with them. A row
    with too low an overall score has only such duplicates.
    """
    similarity, least = thresholds.duplicates.semantic_similarity, thresholds.score.min_alignment
    if similarity is None or not len(sample_ids):
        return [None] * len(sample_ids)
    takes_part = [
        scores.overall is not None and (least is None or (scores.alignment is not None and scores.alignment >= least))
        for scores in best
    ]
    overall = [scores.overall if scores.overall is not None else -np.inf for scores in best]
    return find_semantic_duplicates(
        embeddings, overall, sample_ids, similarity, seed=seed, takes_part=np.array(takes_part, bool)
    )


def stored_semantic_duplicates(
    run: RunFolder, best: Mapping[str, BestScores], thresholds: Thresholds
) -> dict[str, Duplicate | None]:
    """Return the semantic duplicates by other thresholds than a run's own, from its stored embeddings.

    Args:
        run: a run that is scored.
        best: of each row that scoring had.
        thresholds: the other ones.
    """
    ids: list[str] = []
    vectors: list[np.ndarray] = []
    for shard in run.shards if best and thresholds.duplicates.semantic_similarity is not None else ():
        path = run.shard_file(shard.number, "embed.parquet")
        names = pq.read_table(path, columns=["sample_id"]).column(0).to_pylist()
        images = pq.read_table(vectors_file(path), columns=["image_embedding"]).column(0)
        for sample_id, image in zip(names, images, strict=True):
            if sample_id in best:
                ids.append(sample_id)
                vectors.append(image.values.to_numpy(zero_copy_only=False))
    if not ids:
        return dict.fromkeys(best)
    scores = [best[sample_id] for sample_id in ids]
    found = semantic_duplicates(np.stack(vectors), scores, ids, thresholds, seed=run.config.seed)
    return dict(zip(ids, found, strict=True))


def find_semantic_duplicates(
    embeddings: np.ndarray,
    overall: Sequence[float],
    sample_ids: Sequence[str],
    similarity: float,
    *,
    seed: int = 0,
    takes_part: np.ndarray | None = None,
) -> list[Duplicate | None]:
    """Return for each image what it is a semantic duplicate of, None for those that are kept.

    SemDeDup (Abbas et al., arXiv 2303.09540): images are clustered, and compared within their cluster only, so that a
    pair on both sides of a border is missed. Up to 10,000 images are one cluster, and none is missed.

    Args:
        embeddings: (N, E), of length 1.
        overall: score of each image's best caption; of duplicates the best is kept.
        sample_ids: tell equal scores apart.
        similarity: the least cosine of duplicates.
        seed: of the clustering.
        takes_part: (N,), whether an image does; one that is dropped for another reason must not take others with it.
            None: all do.

    Raises:
        InputError: faiss is not installed.
    """
    found: list[Duplicate | None] = [None] * len(sample_ids)
    order = np.lexsort((np.asarray(sample_ids), -np.asarray(overall, float)))
    if takes_part is not None:
        order = order[takes_part[order]]
    for members in _clusters(embeddings, order, seed):
        kept = np.zeros(0, np.int64)
        for start in range(0, len(members), BLOCK):
            block = members[start : start + BLOCK]
            candidates = np.concatenate([kept, block])
            cosines = _unit(embeddings[block]) @ _unit(embeddings[candidates]).T
            is_kept = np.r_[np.ones(len(kept), bool), np.zeros(len(block), bool)]
            for place, row in enumerate(block):
                near = np.flatnonzero(is_kept & (cosines[place] >= similarity))
                if len(near):
                    nearest = near[np.argmax(cosines[place, near])]
                    of = sample_ids[int(candidates[nearest])]
                    found[int(row)] = Duplicate(of, "semantic", min(1.0, float(cosines[place, nearest])))
                else:
                    is_kept[len(kept) + place] = True
            kept = candidates[is_kept]
    return found


def _clusters(embeddings: np.ndarray, order: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of each cluster, in the order that was given."""
    number = -(-len(order) // CLUSTER_SIZE)
    if number <= 1:
        yield order
        return
    faiss = require("faiss")
    kmeans = faiss.Kmeans(embeddings.shape[1], number, niter=KMEANS_ITERATIONS, seed=seed, spherical=True)
    # by row order and not by score, so that a changed score does not move the borders
    kmeans.train(_unit(embeddings[_sample(len(embeddings), seed)]))
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
