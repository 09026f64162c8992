# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The example that plants defects among real pictures, and the check of a run over them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from turingvit_hf.curation import load_config, run
from turingvit_hf.data.shapes import generate_shapes


EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(EXAMPLES))
    try:
        import prepare_curation_data
    finally:
        sys.path.remove(str(EXAMPLES))
    return prepare_curation_data


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    with (folder / "metadata.jsonl").open("w") as file:
        for number, (picture, caption) in enumerate(generate_shapes(60, seed=0)):
            picture.save(folder / f"{number}.png")
            file.write(json.dumps({"file_name": f"{number}.png", "caption": caption}) + "\n")
    return folder


def test_planted_defects_are_found_by_a_run(script, pictures, tmp_path, capsys):
    output = tmp_path / "data"
    script.main(["--output", str(output), "--pictures", str(pictures), "--share", "0.03"])
    assert sorted(path.name for path in output.iterdir()) == ["curate.yaml", "pictures", "truth.jsonl"]
    overrides = ["embed.scorer={kind: 'tests.curation.stand_ins:HashScorer'}", "score.batch_size=32"]
    outcomes = run(load_config(output / "curate.yaml", overrides), tmp_path / "run")
    truth = script.read_truth(output / "truth.jsonl")
    assert outcomes.num_rows == len(truth)
    result = script.check(truth, tmp_path / "run")
    for group in ("quality", "exact duplicates", "files"):
        assert result[group]["recall"] == 1, group
    assert 0 <= result["swapped by A"]["auc"] <= 1
    assert "swapped captions by alignment: AUC" in capsys.readouterr().out


def test_the_area_counts_pairs_and_halves_of_ties(script):
    assert script.area_under_curve(np.array([2.0, 3.0]), np.array([1.0])) == 1
    assert script.area_under_curve(np.array([1.0, 0.0]), np.array([1.0])) == 0.25


def test_what_is_missing_is_said_in_one_line(script, pictures, tmp_path):
    (tmp_path / "taken").mkdir()
    for arguments, message in (
        (["--output", tmp_path / "taken", "--pictures", pictures], "there is something at"),
        (["--output", tmp_path / "new", "--pictures", tmp_path / "taken"], "cannot read"),
        (["--output", tmp_path / "new", "--check", tmp_path / "taken"], "has no truth.jsonl"),
    ):
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            script.main([str(argument) for argument in arguments])
