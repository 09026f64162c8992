# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Overall scores, on VISTA's figure; the best candidate and the top fraction."""

import pytest

from turingvit_hf.curation.decisions import CaptionThresholds, ScoreThresholds, Thresholds, decide
from turingvit_hf.curation.selection import better_shares, is_eligible, overall_score, rank_candidates


def test_overall_scores_of_the_figure():
    scores = overall_score([0.20, 0.90, 0.70, 0.78], [0.88, 0.94, 0.82, 0.78], [1.30, 1.10, 1.04, 1.02])
    assert [f"{score:.2f}" for score in scores] == ["0.39", "0.87", "0.74", "0.77"]


def test_weights_and_scale():
    assert overall_score(0.5, 0.3, 0.5, text_weight=0.2, relevance_weight=0.8, scale=2.5) == pytest.approx(0.5)


def test_best_candidate_by_score_then_alignment_then_index():
    everyone = [True] * 4
    assert rank_candidates([0.1, 0.4, 0.4, 0.2], [0.9, 0.2, 0.3, 0.1], everyone) == [3, 1, 0, 2]
    assert rank_candidates([0.4, 0.4], [0.3, 0.3], everyone[:2]) == [0, 1]
    assert rank_candidates([0.9, None, 0.1], [0.1, 0.5, 0.2], [False, True, True]) == [None, None, 0]
    assert rank_candidates([], [], []) == []


@pytest.mark.parametrize(
    ("change", "eligible"),
    [
        ({}, True),
        ({"text": "  "}, False),
        ({"text": "\u200b\u200f \n"}, False),
        ({"text": "\u200f🐕"}, True),
        ({"flags": ["too many words"]}, False),
        ({"flags": ["too many words"], "origin": "raw"}, True),
        ({"flags": ["few nouns"]}, True),
        ({"verdict": {"grounded": True, "quality": 3}}, True),
        ({"verdict": {"grounded": True, "quality": 2}}, False),
        ({"verdict": {"grounded": False, "quality": 5}}, False),
        ({"verdict": {"grounded": False, "quality": 5}, "origin": "raw"}, False),
    ],
)
def test_eligible_candidates(change, eligible):
    candidate = {"text": "A dog", "origin": "model", "flags": [], "verdict": None} | change
    assert is_eligible(candidate, CaptionThresholds()) is eligible


def test_top_fraction_keeps_its_share_of_scored_rows():
    overall = [0.5, None, 0.9, 0.1, 0.5]
    shares = better_shares(overall, ["d", "x", "b", "c", "a"])
    assert shares == [0.75, None, 0.25, 1.0, 0.5]
    thresholds = Thresholds(score=ScoreThresholds(top_fraction=0.5))
    kept = [decide({"better_share": share}, thresholds) is None for share in shares]
    assert kept == [False, True, True, False, True]
