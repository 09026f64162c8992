# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Recall at k against brute force over all orders, and chance against simulation."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from turingvit_hf.evaluation import retrieval
from turingvit_hf.evaluation.retrieval import chance_at_k, embed_pairs, recall_at_k, retrieval_metrics


def recall_by_orders(similarity, query_groups, candidate_groups, k):
    """The mean over queries of the share of orders that the scores allow with a right candidate in the first k."""
    shares = []
    for scores, group in zip(similarity.tolist(), query_groups.tolist(), strict=True):
        hits = [
            any(candidate_groups[place] == group for place in order[:k])
            for order in itertools.permutations(range(len(scores)))
            if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
        ]
        shares.append(sum(hits) / len(hits))
    return sum(shares) / len(shares)


@settings(max_examples=60)
@given(data=st.data())
def test_recall_matches_brute_force_with_ties_and_several_right_ones(data):
    num_candidates = data.draw(st.integers(1, 5))
    groups = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=num_candidates, max_size=num_candidates)))
    queries = torch.tensor(data.draw(st.lists(st.sampled_from(groups.tolist()), min_size=1, max_size=4)))
    # few different values, so that many tie
    row = st.lists(st.integers(0, 2), min_size=num_candidates, max_size=num_candidates)
    scores = torch.tensor([data.draw(row) for _ in queries], dtype=torch.float32)
    k = data.draw(st.integers(1, 6))
    assert recall_at_k(scores, queries, groups, k=k) == pytest.approx(recall_by_orders(scores, queries, groups, k))
    constant = torch.zeros_like(scores)
    assert chance_at_k(queries, groups, k=k) == pytest.approx(recall_at_k(constant, queries, groups, k=k))


def test_chance_is_what_random_scores_reach():
    groups = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 5, 6])
    generator = torch.Generator().manual_seed(0)
    runs = [recall_at_k(torch.rand(10, 10, generator=generator), groups, groups, k=2) for _ in range(400)]
    assert sum(runs) / len(runs) == pytest.approx(chance_at_k(groups, groups, k=2), abs=0.02)
    # a query of group 0 has 3 right candidates of 10: it misses with (7 choose 2) / (10 choose 2)
    assert chance_at_k(groups[:1], groups, k=2) == pytest.approx(1 - math.comb(7, 2) / math.comb(10, 2))


def test_many_queries_are_taken_in_parts(monkeypatch):
    scores, groups = torch.rand(7, 7, generator=torch.Generator().manual_seed(0)), torch.arange(7)
    whole = recall_at_k(scores, groups, groups, k=3)
    monkeypatch.setattr(retrieval, "QUERIES_AT_ONCE", 2)
    assert recall_at_k(scores, groups, groups, k=3) == pytest.approx(whole)


def test_equal_captions_are_one_text():
    embeds = torch.eye(4)
    captions = ["a cat", "a dog", "a cat", "a cow"]
    texts = embeds[[0, 1, 0, 3]]
    metrics = retrieval_metrics(embeds, texts, captions, ks=(1,))
    # the second cat is at a right angle to its text, like two of the other texts: one of three that tie
    assert metrics["image_to_text_R@1"] == pytest.approx((3 + 1 / 3) / 4)
    assert metrics["image_to_text_chance@1"] == pytest.approx(1 / 3)
    assert metrics["text_to_image_R@1"] == 1.0
    assert metrics["text_to_image_chance@1"] == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)


def test_a_collapsed_model_is_at_the_level_of_guessing():
    metrics = retrieval_metrics(torch.ones(6, 3), torch.ones(6, 3), list("abcdef"), ks=(1, 5))
    for direction in ("image_to_text", "text_to_image"):
        for k in (1, 5):
            assert metrics[f"{direction}_R@{k}"] == pytest.approx(k / 6)
            assert metrics[f"{direction}_chance@{k}"] == pytest.approx(k / 6)


def test_bad_input_is_an_error():
    groups = torch.arange(2)
    with pytest.raises(ValueError, match="k must be 1 or more, not 0"):
        recall_at_k(torch.eye(2), groups, groups, k=0)
    with pytest.raises(ValueError, match="not finite"):
        recall_at_k(torch.full((2, 2), torch.nan), groups, groups, k=1)
    with pytest.raises(ValueError, match="no candidate has group 7"):
        recall_at_k(torch.eye(2), torch.tensor([0, 7]), groups, k=1)


def test_embed_pairs_keeps_order_and_mode():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, values):
            assert not self.training
            return type("Output", (), {"image_embeds": values * self.weight, "text_embeds": -values * self.weight})

    model = Model()
    batches = [{"values": torch.tensor([[1.0], [2.0]])}, {"values": torch.tensor([[3.0]])}]
    images, texts = embed_pairs(model, batches)
    assert images.flatten().tolist() == [1, 2, 3]
    assert texts.flatten().tolist() == [-1, -2, -3]
    assert model.training
