# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Every threshold drops on its own side, and names what it saw."""

import pytest
from pydantic import TypeAdapter, ValidationError

from turingvit_hf.curation.decisions import RULES, Drop, Thresholds, decide, threshold_names
from turingvit_hf.curation.stages import STAGES


# those of clips are measured by the stage motion
ORDER = ("measure", "motion", "consistency", "judge", "score", "ground")
GOOD = {
    "width": 640,
    "min_side": 480,
    "aspect": 1.3,
    "edge_width": 0.8,
    "smooth_laplacian": 20.0,
    "laplacian": 900.0,
    "gray_entropy": 7.0,
    "edge_share": 0.05,
    "dup_of": None,
    "adjacent_min": 0.9,
    "adjacent_mean": 0.95,
    "motion": 0.05,
    "motion_variation": 0.5,
    "judge_quality": 0.9,
    "judge_relevance": 0.9,
    "judge_consistency": 0.9,
    "judge_mean": 0.9,
    "best": 0,
    "alignment": 0.3,
    "overall": 0.7,
    "better_share": 0.1,
    "grounding_recall": 0.9,
}


def thresholds(**sections):
    return TypeAdapter(Thresholds).validate_python(sections)


def test_good_rows_and_rows_without_values_are_kept():
    strict = thresholds(
        quality={"min_smooth_laplacian": 3, "min_gray_entropy": 2},
        score={"min_overall": 0.5, "top_fraction": 0.2, "min_alignment": 0.2},
        grounding={"min_recall": 0.5},
    )
    assert decide(GOOD, strict) is None
    assert decide({}, strict) is None
    assert decide(dict.fromkeys(GOOD) | {"best": 0}, strict) is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.section}.{rule.threshold}")
def test_every_rule_drops_below_or_above_its_threshold_and_not_at_it(rule):
    # a section with two bounds on one value has only the one here
    pairs = {"motion": ("floor", "ceiling"), "consistency": ("low", "high")}
    others = dict.fromkeys(pairs.get(rule.section, ()))
    limit = (
        1.0 if rule.threshold == "max_aspect" else 0.4 if rule.threshold not in ("min_side", "min_gray_entropy") else 4
    )
    bounds = thresholds(**{rule.section: others | {rule.threshold: limit}})
    step = -0.01 if rule.least else 0.01
    at, beyond = GOOD | {rule.value: limit}, GOOD | {rule.value: limit + step}
    # values other than this rule's pass the defaults
    found = decide({rule.value: beyond[rule.value], "best": 0}, bounds)
    assert found == Drop(rule.stage, rule.reason, limit + step, limit)
    assert decide({rule.value: at[rule.value], "best": 0}, bounds) is None
    assert (
        decide({rule.value: beyond[rule.value]}, thresholds(**{rule.section: others | {rule.threshold: None}})) is None
    )


@pytest.mark.parametrize(
    ("values", "drop"),
    [
        (
            {"fault": "image cannot be read", "fault_detail": "x", "min_side": 1},
            Drop("measure", "image cannot be read", "x"),
        ),
        ({"opt_out": True}, Drop("measure", "owner opted out")),
        ({"edge_share": 0.0, "gray_entropy": 0.0}, Drop("measure", "texture is too low", 0.0, 4.0)),
        ({"edge_share": 0.0, "smooth_laplacian": 0.01}, Drop("measure", "texture is too low", 0.01, 0.1)),
        ({"dup_of": "a", "dup_kind": "exact", "dup_distance": 0}, Drop("deduplicate", "exact duplicate", 0)),
        ({"dup_of": "a", "dup_kind": "near", "dup_distance": 3}, Drop("deduplicate", "near duplicate", 3, 10)),
        (
            {"dup_of": "a", "dup_kind": "known", "dup_distance": 3},
            Drop("deduplicate", "in an earlier run or an evaluation set", 3, 10),
        ),
        (
            {"dup_of": "a", "dup_kind": "semantic", "dup_distance": 0.97},
            Drop("score", "semantic duplicate", 0.97),
        ),
        (
            {"best": None, "candidates": [{"overall": 0.5}, {"overall": 0.4}]},
            Drop("score", "no candidate caption is left", "of 2 candidates"),
        ),
        (
            {"best": None, "candidates": [{"verdict": {"grounded": False}}, {}]},
            Drop("verify", "no candidate caption is left", "of 2 candidates"),
        ),
        ({"best": None, "candidates": [{}]}, Drop("caption", "no candidate caption is left", "of 1 candidates")),
        ({"candidates": []}, Drop("caption", "no caption")),
        ({"candidates": None}, Drop("caption", "no caption")),
    ],
    ids=lambda value: value.reason if isinstance(value, Drop) else "",
)
def test_what_is_no_plain_comparison(values, drop):
    assert decide(GOOD | values, Thresholds()) == drop


@pytest.mark.parametrize("fault", [{"error": "500"}, {"errors": {"caption": "500"}}])
def test_a_row_that_waits_for_another_try_is_not_dropped_for_want_of_a_caption(fault):
    assert decide(GOOD | {"candidates": [], "best": None} | fault, Thresholds()) is None


def test_rows_need_a_caption_only_where_captions_are_made():
    assert decide(GOOD, Thresholds()) is None
    assert decide(GOOD | {"candidates": [{}]}, Thresholds()) is None, "which one is best is not known yet"


def test_soft_pictures_with_few_edges_and_many_grays_are_kept():
    assert decide(GOOD | {"edge_share": 0.0}, Thresholds()) is None


def test_scores_that_are_no_numbers_pass_nothing():
    drop = decide(GOOD | {"overall": float("nan")}, thresholds(score={"min_overall": 0.5}))
    assert drop is not None
    assert drop.reason == "overall score is too low"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"quality": {"min_sides": 3}}, "min_sides"),
        ({"quality": {"max_aspect": 0.5}}, "greater than or equal to 1"),
        ({"motion": {"floor": 2.0, "ceiling": 1.0}}, "nothing lies between 2.0 and 1.0"),
        ({"consistency": {"low": 0.9, "high": 0.9}}, "nothing lies between"),
        ({"score": {"top_fraction": 0.0}}, "greater than 0"),
    ],
)
def test_impossible_thresholds_are_refused(sections, message):
    with pytest.raises(ValidationError, match=message):
        thresholds(**sections)


def test_every_rule_reads_a_threshold_that_exists():
    names = threshold_names()
    assert {f"{rule.section}.{rule.threshold}" for rule in RULES} <= set(names)
    assert "captions.max_words" in names


def test_a_row_is_dropped_by_the_first_stage_that_it_fails():
    """As a run does, which takes it to no later one."""
    assert list(dict.fromkeys(rule.stage for rule in RULES)) == list(ORDER)
    assert [name for name in STAGES if name in ORDER] == list(ORDER)
    bad = GOOD | {"motion": 0.0, "adjacent_min": -0.5, "judge_mean": 0.1}
    assert decide(bad, Thresholds()).stage == "motion"
    assert decide(bad | {"motion": 0.05}, Thresholds()).stage == "consistency"
