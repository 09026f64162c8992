# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures equal plain references of a few lines, to the last digit."""

import math

import numpy as np
import pytest
import torch

from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.figures import classification_figures, retrieval_figures, zero_shot_figures
from turingvit_hf.evaluation.linear_probe import PENALTIES, fit_linear_probe, sweep_linear_probe
from turingvit_hf.evaluation.neighbors import nearest_neighbor_scores
from turingvit_hf.evaluation.prompts import TEMPLATES, canonical, make_prompts
from turingvit_hf.evaluation.retrieval import retrieval_hits
from turingvit_hf.evaluation.statistics import bootstrap_interval
from turingvit_hf.evaluation.tasks import few_shots


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_zero_shot_equals_a_plain_reference():
    images, prompts = noise(200, 8), noise(10 * 3, 8, seed=1)
    labels = torch.randint(10, (200,), generator=torch.Generator().manual_seed(2))
    figures = zero_shot_figures(images, prompts, labels, num_classes=10)
    classes = unit(unit(prompts.numpy()).reshape(10, 3, 8).mean(1))
    order = np.argsort(-unit(images.numpy()) @ classes.T, axis=1)
    for k in (1, 5):
        expected = np.mean([label in row[:k] for row, label in zip(order, labels.tolist(), strict=True)])
        assert figures[f"top{k}"]["value"] == expected
        assert figures[f"top{k}"]["chance"] == k / 10
    per_class = [np.mean(order[labels.numpy() == c, 0] == c) for c in range(10)]
    assert figures["mean_per_class"]["value"] == pytest.approx(np.mean(per_class), abs=1e-15)


def test_retrieval_equals_a_plain_reference():
    """Several captions an image, another number for each."""
    images = noise(40, 6)
    image_of_text = torch.tensor([image for image in range(40) for _ in range(1 + image % 4)])
    texts = images[image_of_text] + 1.5 * noise(len(image_of_text), 6, seed=1)
    figures = retrieval_figures(images, texts, image_of_text)
    scores = unit(images.numpy()) @ unit(texts.numpy()).T
    owner = image_of_text.numpy()
    for k in (1, 5, 10):
        to_text = np.mean([i in owner[np.argsort(-scores[i])[:k]] for i in range(40)])
        to_image = np.mean([owner[j] in np.argsort(-scores[:, j])[:k] for j in range(len(owner))])
        assert 0 < to_text < 1
        assert figures[f"image_to_text_R@{k}"]["value"] == pytest.approx(to_text, abs=1e-15)
        assert figures[f"text_to_image_R@{k}"]["value"] == pytest.approx(to_image, abs=1e-15)
        counts = np.bincount(owner)
        guessed = np.mean([1 - math.comb(len(owner) - c, k) / math.comb(len(owner), k) for c in counts])
        assert figures[f"image_to_text_R@{k}"]["chance"] == pytest.approx(guessed)
        assert figures[f"text_to_image_R@{k}"]["chance"] == pytest.approx(k / 40)


def test_chunks_change_nothing():
    images, texts, owner = noise(50, 6), noise(100, 6, seed=1), torch.arange(100) // 2
    whole = retrieval_hits(images, texts, owner, ks=(1, 5), queries_at_once=1000)
    for some, all_at_once in zip(
        retrieval_hits(images, texts, owner, ks=(1, 5), queries_at_once=7), whole, strict=True
    ):
        assert torch.equal(some, all_at_once)


def test_captions_come_in_any_order():
    images, owner = noise(20, 6), torch.arange(60) // 3
    texts = images[owner] + noise(60, 6, seed=1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    of_images, of_texts = retrieval_hits(images, texts, owner, ks=(1, 5))
    for mixed, expected in zip(
        retrieval_hits(images, texts[order], owner[order], ks=(1, 5), queries_at_once=7),
        (of_images, of_texts[:, order]),
        strict=True,
    ):
        assert torch.equal(mixed, expected)


def test_equal_captions_of_different_images_tie_wherever_they_stand():
    images, texts = noise(7, 768), noise(1003, 768, seed=1)
    texts[:7] = images + 0.1 * noise(7, 768, seed=2)
    texts[-7:] = texts[:7]
    owner = torch.arange(1003) % 7
    owner[-7:] = torch.arange(7).roll(1)
    of_images, _ = retrieval_hits(images, texts, owner, ks=(1, 2))
    assert of_images.tolist() == [[0.5] * 7, [1.0] * 7]


def test_a_model_that_tells_nothing_apart_gets_the_level_of_guessing():
    figures = retrieval_figures(torch.ones(20, 4), torch.ones(60, 4), torch.arange(60) // 3)
    for figure in figures.values():
        assert figure["value"] == pytest.approx(figure["chance"])
    flat = classification_figures(torch.zeros(30, 10), torch.arange(30) % 10)
    for figure in flat.values():
        assert figure["value"] == pytest.approx(figure["chance"])


def test_images_without_captions_and_other_mismatches_are_refused():
    with pytest.raises(ValueError, match="image 2 has no caption"):
        retrieval_hits(noise(3, 4), noise(2, 4), torch.tensor([0, 1]), ks=(1,), queries_at_once=2)
    with pytest.raises(ValueError, match="images 0 to 1, not"):
        retrieval_hits(noise(2, 4), noise(3, 4), torch.tensor([0, 1, 2]), ks=(1,))
    with pytest.raises(ValueError, match="2 texts and the images of 3"):
        retrieval_hits(noise(3, 4), noise(2, 4), torch.tensor([0, 1, 2]), ks=(1,))
    with pytest.raises(ValueError, match="not finite"):
        retrieval_hits(torch.full((1, 4), torch.nan), noise(1, 4), torch.tensor([0]), ks=(1,))


def test_neighbors_equal_a_plain_reference():
    known, queries = noise(60, 5), noise(30, 5, seed=1)
    labels = torch.arange(60) % 4
    scores = nearest_neighbor_scores(queries, known, labels, num_classes=4, k=7, queries_at_once=8)
    cosines = unit(queries.double().numpy()) @ unit(known.double().numpy()).T
    for row, cosine in zip(scores, cosines, strict=True):
        votes = np.zeros(4)
        for place in np.argsort(-cosine)[:7]:
            votes[place % 4] += np.exp(cosine[place] / 0.07)
        np.testing.assert_allclose(row, votes, rtol=1e-5)
        assert int(row.argmax()) == votes.argmax()
    all_of_them = nearest_neighbor_scores(queries, known[:3], labels[:3], num_classes=4, k=20)
    assert (all_of_them > 0).sum(1).tolist() == [3] * 30
    with pytest.raises(ValueError, match="k=0"):
        nearest_neighbor_scores(queries, known, labels, num_classes=4, k=0)


def test_a_linear_probe_is_at_the_minimum():
    """The objective has one minimum, where its gradient, written out here, is zero."""
    features = noise(80, 5) * torch.tensor([1.0, 10.0, 0.1, 1.0, 0.0]) + 3
    labels = (features[:, 0] > 3).long() + (features[:, 1] > 3).long()
    probe = fit_linear_probe(features, labels, num_classes=3, penalty=0.01)
    x = features.double().numpy()
    deviation = x.std(0)
    x = (x - x.mean(0)) / np.where(deviation > 0, deviation, 1)
    logits = x @ probe.weight.numpy().T + probe.bias.numpy()
    wrong = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[labels.numpy()]
    np.testing.assert_allclose(wrong.T @ x / 80 + 0.01 * probe.weight.numpy(), 0, atol=1e-6)
    np.testing.assert_allclose(wrong.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(probe.scores(features), logits, atol=1e-6)


def test_the_sweep_chooses_by_what_is_held_out_and_is_the_same_each_time():
    labels = torch.arange(120) % 3
    features = torch.cat([nn_one_hot(labels) + 0.8 * noise(120, 3), noise(120, 100, seed=1)], dim=1)
    probe, shares = sweep_linear_probe(features, labels, num_classes=3)
    again, _ = sweep_linear_probe(features, labels, num_classes=3)
    assert torch.equal(probe.weight, again.weight)
    assert set(shares) == set(PENALTIES)
    best = max(penalty for penalty in shares if shares[penalty] == max(shares.values()))
    alone = fit_linear_probe(features, labels, num_classes=3, penalty=best)
    assert torch.equal(probe.weight, alone.weight)
    with pytest.raises(ValueError, match="do not fit"):
        fit_linear_probe(features, labels, num_classes=2, penalty=0.0)


def nn_one_hot(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels).float()


def test_intervals_cover_the_truth_as_often_as_they_say():
    draws = np.random.default_rng(0)
    covered = 0
    for repetition in range(200):
        low, high = bootstrap_interval(draws.random(100) < 0.6, seed=repetition, num_resamples=300)
        covered += low <= 0.6 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_intervals_draw_clusters_whole():
    values = np.repeat([0.0, 1.0] * 20, 25)
    low, high = bootstrap_interval(values)
    clustered_low, clustered_high = bootstrap_interval(values, np.arange(1000) // 25)
    assert clustered_high - clustered_low > 3 * (high - low)
    assert (low, high) == bootstrap_interval(values)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(values, level=1.5)
    with pytest.raises(ValueError, match="3 values and 2 clusters"):
        bootstrap_interval([1, 2, 3], [0, 1])


def test_the_interval_of_a_mean_per_class_draws_images():
    """Classes differ by much, but which of them there are is no matter of chance."""
    labels = torch.arange(900) % 3
    scores = torch.zeros(900, 3)
    scores[:, 0] = 1  # class 0 is always right, the others never
    scores[:30] = torch.nn.functional.one_hot(labels[:30], 3).float()
    figures = classification_figures(scores, labels)
    low, high = figures["mean_per_class"]["interval"]
    assert low < figures["mean_per_class"]["value"] < high
    # within the classes there is next to no chance, and where these are as large as each other little is left to it
    assert high - low < figures["top1"]["interval"][1] - figures["top1"]["interval"][0]
    draws = np.random.default_rng(1)
    covered = 0
    for repetition in range(200):
        groups = np.repeat([0, 1, 2], [90, 30, 30])
        values = draws.random(150) < np.array([0.9, 0.5, 0.1])[groups]
        low, high = bootstrap_interval(values, groups=groups, seed=repetition, num_resamples=300)
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.99
    with pytest.raises(ValueError, match="3 values and 2 groups"):
        bootstrap_interval([1, 2, 3], groups=[0, 1])


def test_shots_are_so_many_of_each_class():
    labels = torch.tensor([0, 1, 0, 1, 0, 2, 2, 1])
    chosen = few_shots(labels, 2)
    assert torch.bincount(labels[chosen]).tolist() == [2, 2, 2]
    assert len(set(chosen.tolist())) == 6
    assert few_shots(labels, None).tolist() == list(range(8))
    with pytest.raises(InputError, match="class 2 has 2"):
        few_shots(labels, 3)


def test_prompts_and_their_canonical_form():
    assert canonical("  A photo of a St._Bernard's, dog!") == "a photo of a st bernards dog"
    assert make_prompts(["Cat", "dog"], ["a {}.", "{}"]) == ["a Cat.", "Cat", "a dog.", "dog"]
    assert make_prompts(["Cat"], ["A {}."], canonicalize=True) == ["a cat"]
    assert {name: len(templates) for name, templates in TEMPLATES.items()} == {
        "name": 1,
        "photo": 1,
        "clip-7": 7,
        "siglip": 8,
    }
    with pytest.raises(InputError, match="where the name goes"):
        make_prompts(["cat"], ["a photo"])
