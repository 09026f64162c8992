# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The overall score of candidate captions, the best one of each image, and where an image stands among all."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from turingvit_hf.curation.decisions import CaptionThresholds
from turingvit_hf.curation.text import TOO_MANY_WORDS, is_visible


Numbers = float | Sequence[float] | np.ndarray


def overall_score(
    text_quality: Numbers,
    alignment: Numbers,
    ambiguity: Numbers,
    *,
    text_weight: float = 0.5,
    relevance_weight: float = 0.5,
    scale: float = 1.0,
) -> np.ndarray:
    """Return `text_weight * T + relevance_weight * (1 + scale * (A - G))`, float64.

    Solved from the four rows of VISTA's figure, which it gives to both decimals. Two numbers whose ideal value is 1,
    equally weighted: A - G is at most 0. `scale` is 1, or CLIPScore's 2.5, which spreads the cosines of real models.
    """
    t, a, g = (np.asarray(values, np.float64) for values in (text_quality, alignment, ambiguity))
    return text_weight * t + relevance_weight * (1 + scale * (a - g))


def is_eligible(candidate: Mapping[str, Any], thresholds: CaptionThresholds) -> bool:
    """Return whether a candidate may be chosen: not too long unless it is raw, and approved by its verifier if any.

    Args:
        candidate: with `text`, `origin`, `flags` and `verdict` (None where nothing verified it).
        thresholds: what the verdict is held against.
    """
    if not is_visible(candidate["text"]):
        return False
    if TOO_MANY_WORDS in (candidate.get("flags") or ()) and candidate.get("origin") != "raw":
        return False
    verdict = candidate.get("verdict")
    if verdict is None:
        return True
    if thresholds.require_grounded and verdict.get("grounded") is False:
        return False
    quality = verdict.get("quality")
    return thresholds.min_verdict is None or quality is None or quality >= thresholds.min_verdict


def rank_candidates(
    overall: Sequence[float | None], alignment: Sequence[float | None], eligible: Sequence[bool]
) -> list[int | None]:
    """Return the rank of each candidate of one image, 0 for the best; None if it is not eligible or has no score.

    A higher overall score is better, then a higher alignment, then the earlier candidate.
    """
    scored = [
        (-score, -cosine, index)
        for index, (score, cosine, is_allowed) in enumerate(zip(overall, alignment, eligible, strict=True))
        if is_allowed and score is not None and cosine is not None
    ]
    ranks: list[int | None] = [None] * len(overall)
    for rank, (_, _, index) in enumerate(sorted(scored)):
        ranks[index] = rank
    return ranks


def best_without_scores(candidates: Sequence[Mapping[str, Any]], thresholds: CaptionThresholds) -> int | None:
    """Return the number of the candidate that is taken where none has a score, None where none is eligible.

    It is the one with the best verdict; of several a model's before the row's own before a copy's, then the first.
    """

    def order(number: int) -> tuple[float, bool, bool, int]:
        candidate = candidates[number]
        verdict = candidate.get("verdict") or {}
        is_copied = candidate.get("copied_from") is not None
        return -(verdict.get("quality") or 0), candidate["origin"] == "raw", is_copied, number

    eligible = (number for number, candidate in enumerate(candidates) if is_eligible(candidate, thresholds))
    return min(eligible, key=order, default=None)


def better_shares(overall: Sequence[float | None], sample_ids: Sequence[str]) -> list[float | None]:
    """Return, for each image, the share of scored images that are before it; None for those without a score.

    The best has 1 / n and the last 1, so that a top fraction f keeps those with at most f: floor(f * n) images. Equal
    scores are told apart by sample id, so that the order of rows plays no part.
    """
    scored = [
        (-score, sample_id, row)
        for row, (score, sample_id) in enumerate(zip(overall, sample_ids, strict=True))
        if score is not None
    ]
    shares: list[float | None] = [None] * len(overall)
    for place, (_, _, row) in enumerate(sorted(scored), start=1):
        shares[row] = place / len(scored)
    return shares
