# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Tuning: what other thresholds would keep is what a run with them keeps."""

import shutil
from collections import Counter

import pytest
from typer.testing import CliRunner

from tests.curation.looking_cases import finished_run, lenient, rows_of, whole_config
from turingvit_hf.cli import app
from turingvit_hf.curation.runs import run, status
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.tune import apply, tune
from turingvit_hf.errors import InputError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("tuned"))


def run_with(finished, tmp_path, thresholds):
    """The rows of a run of its own with other thresholds."""
    folder = finished.parent
    config = whole_config(folder / "pictures", folder / "log", thresholds={"quality": lenient()} | thresholds)
    run(config, tmp_path / "fresh")
    return rows_of(tmp_path / "fresh")


def outcomes(rows):
    return {row["sample_id"]: (row["status"], row["drop_stage"], row["drop_reason"], row["caption"]) for row in rows}


def overall_of(finished, share):
    scores = sorted(row["overall"] for row in rows_of(finished) if row["status"] == "kept")
    return scores[int(share * len(scores))]


def cases(finished):
    middle = overall_of(finished, 0.4)
    return {
        "overall": {"score": {"min_overall": middle}},
        "fraction": {"score": {"top_fraction": 0.5}},
        "alignment": {"score": {"min_alignment": 0.3}},
        "verdict": {"captions": {"min_verdict": 5}},
        "grounded": {"captions": {"require_grounded": False, "min_verdict": None}},
        "both": {"captions": {"min_verdict": 4}, "score": {"top_fraction": 0.6}},
        "recall": {"grounding": {"min_recall": 0.1}},
        "semantic": {"duplicates": {"semantic_similarity": 0.5}},
        "semantic and verdict": {"duplicates": {"semantic_similarity": 0.5}, "captions": {"min_verdict": 5}},
        "semantic and alignment": {"duplicates": {"semantic_similarity": 0.3}, "score": {"min_alignment": 0.1}},
    }


SEMANTIC = ["semantic", "semantic and verdict", "semantic and alignment"]


@pytest.mark.parametrize(
    "name", ["overall", "fraction", "alignment", "verdict", "grounded", "both", "recall", *SEMANTIC]
)
def test_tuning_equals_a_run_of_its_own(finished, tmp_path, name):
    thresholds = cases(finished)[name]
    values = {f"{section}.{key}": value for section, entry in thresholds.items() for key, value in entry.items()}
    result = tune(finished, values)
    before, after = outcomes(rows_of(finished)), outcomes(run_with(finished, tmp_path, thresholds))
    assert before.keys() == after.keys()
    assert result.before == Counter(entry[0] for entry in before.values())
    assert result.after == Counter(entry[0] for entry in after.values())
    assert result.crossed == Counter(
        (before[key][0], after[key][0]) for key in before if before[key][0] != after[key][0]
    )
    found = {reason: counts for reason, counts in result.reasons.items() if any(counts)}
    assert {reason: counts[1] for reason, counts in found.items() if counts[1]} == Counter(
        entry[1:3] for entry in after.values() if entry[0] == "dropped"
    )
    for kind, names in result.examples.items():
        assert {(before[key][0], after[key][0]) for key in names} == {kind}
    assert result.chosen_anew == sum(
        before[key][3] != after[key][3] and None not in (before[key][3], after[key][3]) for key in before
    )
    assert result.unmeasured == result.freed == 0
    assert before != after
    assert ("score", "semantic duplicate") in found or name not in SEMANTIC
    if name in SEMANTIC:
        asked = thresholds["duplicates"]["semantic_similarity"]
        counts = [result.semantic[similarity] for similarity in sorted(result.semantic)]
        assert result.semantic[asked] >= result.reasons["score", "semantic duplicate"][1]
        assert counts == sorted(counts, reverse=True)


def test_quality_equals_a_run_where_no_duplicate_is_freed(finished, tmp_path):
    """The first stage decides row by row; what later ones compare with each other is a run's."""
    result = tune(finished, {"quality.max_aspect": 1.0, "quality.min_side": 97})
    fresh = run_with(finished, tmp_path, {"quality": lenient(max_aspect=1.0, min_side=97)})
    reason = ("measure", "resolution is too low")
    assert result.reasons[reason][1] == sum((row["drop_stage"], row["drop_reason"]) == reason for row in fresh)
    assert result.after["kept"] == 0
    assert result.freed == sum("duplicate" in (row["drop_reason"] or "") for row in rows_of(finished)) > 0 or (
        result.reasons[reason][1] > 14
    )


def test_rows_that_would_be_taken_up_again_are_said_to_be_unmeasured(tmp_path):
    out = finished_run(tmp_path, thresholds={"quality": lenient(min_side=4000)})
    result = tune(out, {"quality.min_side": 32})
    assert result.before["kept"] == 0
    assert result.unmeasured == result.after["kept"] == result.crossed["dropped", "kept"] > 10
    apply(out, result)
    outcomes_after = run(RunFolder(out).config, out)
    # now duplicates are found as well, and verdicts and scores are there
    assert 0 < outcomes_after.num_kept <= result.after["kept"]


def test_applied_thresholds_are_what_the_next_run_goes_on_with(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    asked = len((finished.parent / "log").read_text().splitlines())
    result = tune(out, {"score.top_fraction": 0.5, "captions.min_verdict": 4})
    assert RunFolder(out).config == RunFolder(finished).config
    apply(out, result)
    assert RunFolder(out).config.thresholds == result.thresholds
    assert not status(out)["is_finished"]
    ended = run(RunFolder(out).config, out)
    assert (ended.num_kept, ended.num_dropped) == (result.after["kept"], result.after["dropped"])
    assert len((finished.parent / "log").read_text().splitlines()) == asked
    assert tune(out, {"score.top_fraction": 0.5}).changes == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quality.minside": 3}, "no threshold 'quality.minside'; did you mean quality.min_side"),
        ({"nonsense": 3}, "no threshold 'nonsense'; there are quality.min_side, .*score.top_fraction"),
        (
            {"duplicates.phash_distance": 3},
            "decides what a run measures or asks for.*thresholds.duplicates.phash_dist",
        ),
        ({"captions.max_words": 3}, "decides what a run measures or asks for"),
        ({"score.top_fraction": 2.0}, "thresholds.score.top_fraction=2.0: it must be less than or equal to 1"),
        ({"motion.floor": 2.0}, "nothing lies between 2.0 and 1.0"),
    ],
)
def test_what_cannot_be_tuned_is_refused(finished, values, message):
    with pytest.raises(InputError, match=message):
        tune(finished, values)


def test_the_command_shows_what_changes_and_applies_it(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)

    def invoke(*arguments):
        return CliRunner().invoke(app, ["curate", "tune", str(out), *arguments], env={"COLUMNS": "300"})

    shown = invoke("--set", "thresholds.quality.min_side=97")
    assert shown.exit_code == 0, shown.output
    result = tune(out, {"quality.min_side": 97})
    for part in (
        "quality.min_side",
        "32",
        "97",
        "from kept to dropped",
        "resolution is too low",
        "nothing is changed",
    ):
        assert part in shown.output
    assert all(name in shown.output for name in result.examples["kept", "dropped"])
    assert RunFolder(out).config.thresholds.quality.min_side == 32
    assert "are the thresholds of the run already" in invoke("--set", "quality.min_side=32").output
    applied = invoke("--set", "quality.min_side=null", "--apply")
    assert applied.exit_code == 0
    assert f"next: turingvit curate run {out}" in applied.output
    assert RunFolder(out).config.thresholds.quality.min_side is None
    refused = invoke("--set", "quality.min_side")
    assert refused.exit_code == 1
    assert (
        refused.stderr == "error: --set quality.min_side: it must read SECTION.NAME=VALUE, such as "
        "quality.min_side=128\n"
    )
    assert "no threshold is given" in invoke().stderr
