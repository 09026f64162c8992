# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Semantic duplicates, of which the one with the best score is kept."""

import numpy as np
import pytest

from turingvit_hf.curation import semantic as module
from turingvit_hf.curation.decisions import DuplicateThresholds, ScoreThresholds, Thresholds
from turingvit_hf.curation.semantic import BestScores, find_semantic_duplicates, semantic_duplicates


SIMILARITY = 0.95


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
    found = find_semantic_duplicates(vectors, overall, ids, SIMILARITY)
    for row, duplicate in enumerate(found):
        best = max(range(row // 3 * 3, row // 3 * 3 + 3), key=lambda other: overall[other])
        if row == best:
            assert duplicate is None
        else:
            assert duplicate is not None
            assert (duplicate.of, duplicate.kind) == (ids[best], "semantic")
            assert SIMILARITY <= duplicate.distance <= 1
    assert find_semantic_duplicates(vectors, overall, ids, SIMILARITY) == found


def test_no_rows_have_no_duplicates():
    assert find_semantic_duplicates(np.zeros((0, 4), np.float16), [], [], SIMILARITY) == []
    assert semantic_duplicates(np.zeros((0, 4), np.float16), [], [], thresholds_of(SIMILARITY), seed=0) == []


def thresholds_of(similarity, **score):
    return Thresholds(duplicates=DuplicateThresholds(semantic_similarity=similarity), score=ScoreThresholds(**score))


def test_nothing_is_a_semantic_duplicate_until_a_similarity_is_set():
    """What a cosine of 0.95 means depends on the scorer: equal vectors are no proof either."""
    vectors = np.tile(np.array([1.0, 0.0], np.float16), (3, 1))
    scores = [BestScores(0.5, 0.3)] * 3
    assert semantic_duplicates(vectors, scores, ["a", "b", "c"], Thresholds(), seed=0) == [None] * 3
    found = semantic_duplicates(vectors, scores, ["b", "a", "c"], thresholds_of(0.99), seed=0)
    assert [duplicate and duplicate.of for duplicate in found] == ["a", None, "a"]


def test_a_row_that_is_dropped_by_its_score_takes_no_other_with_it():
    """The first has the better text and so the better score, and too low an alignment: the second stays."""
    vectors = np.tile(np.array([1.0, 0.0], np.float16), (3, 1))
    scores = [BestScores(0.9, 0.1), BestScores(0.5, 0.3), BestScores(None, None)]
    found = semantic_duplicates(vectors, scores, ["a", "b", "c"], thresholds_of(0.99, min_alignment=0.2), seed=0)
    assert found == [None] * 3
    found = semantic_duplicates(vectors, scores, ["a", "b", "c"], thresholds_of(0.99), seed=0)
    assert [duplicate and duplicate.of for duplicate in found] == [None, "a", None]


def test_an_alignment_of_nought_is_one():
    vectors = np.tile(np.array([1.0, 0.0], np.float16), (2, 1))
    scores = [BestScores(0.9, 0.0), BestScores(0.5, 0.3)]
    found = semantic_duplicates(vectors, scores, ["a", "b"], thresholds_of(0.99, min_alignment=0.0), seed=0)
    assert [duplicate and duplicate.of for duplicate in found] == [None, "a"]
