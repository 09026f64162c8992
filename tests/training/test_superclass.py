# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Targets of SuperClass: which classes an image has, how rare they are, and what they weigh."""

import math

import pytest
import torch

from turingvit_hf.training.superclass import OnlineIDF, count_classes, num_labeled, unique_classes


NUM_CLASSES = 11
STEPS = [
    [[3, 3, 5, -100], [5, -100, -100, -100], [0, 1, 2, 5]],
    [[-100, -100, -100, -100], [5, 7, 7, 7]],
    [[-100, -100, -100, -100]],
    [[4, 5, 6, 4], [9, 9, 9, 9], [1, 5, 2, 5], [0, 1, 5, -100], [5, 5, 5, 5]],
]


def weights_from_scratch(steps):
    """The formula over Python's own sets and floats: w_c = ln((n + eps) / (f_c + eps)), eps = 1 / images."""
    frequency, num_steps, epsilon = [0.0] * NUM_CLASSES, 0, 1.0
    for rows in steps:
        sets = [{index for index in row if index >= 0} for row in rows]
        sets = [classes for classes in sets if classes]
        if not sets:
            continue
        num_steps, epsilon = num_steps + 1, 1 / len(sets)
        for index in range(NUM_CLASSES):
            frequency[index] += sum(index in classes for classes in sets) / len(sets)
    return [math.log((num_steps + epsilon) / (f + epsilon)) for f in frequency]


def observe(idf, rows):
    ids = unique_classes(torch.tensor(rows))
    idf.update(count_classes(ids, NUM_CLASSES), num_labeled(ids))
    return ids


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4])
def test_weights_equal_those_from_scratch(num_steps):
    idf = OnlineIDF(NUM_CLASSES)
    for rows in STEPS[:num_steps]:
        observe(idf, rows)
    expected = torch.tensor(weights_from_scratch(STEPS[:num_steps]), dtype=torch.float64)
    assert idf.weights().dtype == torch.float64
    torch.testing.assert_close(idf.weights(), expected, rtol=1e-14, atol=1e-15)
    assert (idf.weights() >= 0).all()


def test_repetitions_collapse_and_padding_is_no_class():
    ids = unique_classes(torch.tensor([[3, 3, 5, 3], [-100, 2, -100, 2], [-100] * 4]))
    assert [sorted(set(row) - {-100}) for row in ids.tolist()] == [[3, 5], [2], []]
    assert (ids == -100).sum(1).tolist() == [2, 3, 4]
    assert count_classes(ids, 6).tolist() == [0, 0, 1, 1, 0, 1]
    assert num_labeled(ids) == 2
    assert unique_classes(torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0)


def test_targets_are_shares_of_the_weights():
    idf = OnlineIDF(NUM_CLASSES)
    for rows in STEPS:
        ids = observe(idf, rows)
    weights, targets = weights_from_scratch(STEPS), idf.targets(ids)
    for row, shares in zip(ids.tolist(), targets.tolist(), strict=True):
        total = sum(weights[index] for index in row if index >= 0)
        assert shares == pytest.approx([weights[index] / total if index >= 0 else 0.0 for index in row], rel=1e-12)
        assert sum(shares) == pytest.approx(1, rel=1e-12)


def test_what_every_image_has_weighs_nothing():
    idf = OnlineIDF(NUM_CLASSES)
    ids = observe(idf, [[1, 2], [1, -100]])
    assert idf.weights()[1] == 0
    # the second image has no other class: a target of zeros, not a division by zero
    assert sorted(idf.targets(ids)[0].tolist()) == [0, 1]
    assert idf.targets(ids)[1].tolist() == [0, 0]


def test_before_the_first_step_all_classes_weigh_alike():
    idf = OnlineIDF(NUM_CLASSES)
    assert sorted(idf.targets(unique_classes(torch.tensor([[3, 4, 3, 9]])))[0].tolist()) == pytest.approx(
        [0, *[1 / 3] * 3]
    )
    observe(idf, STEPS[2])  # a step without a class is none
    assert (idf.weights() == 1).all()


def test_state_continues_exactly():
    whole, first, second = (OnlineIDF(NUM_CLASSES) for _ in range(3))
    for rows in STEPS:
        observe(whole, rows)
    for rows in STEPS[:2]:
        observe(first, rows)
    state = first.state_dict()
    assert state["frequency"].dtype == torch.float64
    second.load_state_dict(state)
    for rows in STEPS[2:]:
        observe(second, rows)
    assert torch.equal(whole.weights(), second.weights())
    assert whole.state_dict()["num_updates"] == 3
    observe(first, STEPS[3])
    assert not torch.equal(state["frequency"], first.state_dict()["frequency"])  # a state does not move afterwards


def test_a_state_that_does_not_fit_is_refused():
    state = OnlineIDF(5).state_dict()
    with pytest.raises(ValueError, match=r"\(5,\) torch.float64 does not fit 11 classes"):
        OnlineIDF(NUM_CLASSES).load_state_dict(state)
    with pytest.raises(ValueError, match=r"torch.float32 does not fit 5 classes in float64"):
        OnlineIDF(5).load_state_dict(state | {"frequency": state["frequency"].float()})


@pytest.mark.parametrize("wrong", [6, -1])
def test_ids_that_are_no_classes_are_refused(wrong):
    with pytest.raises(
        ValueError, match=f"superclass_ids holds {wrong}; there are 6 classes, ids are 0 to 5 and -100"
    ):
        count_classes(torch.tensor([[2, wrong]]), 6)
