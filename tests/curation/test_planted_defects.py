# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Planted defects are found: drawn shapes, and pieces of a photograph that comes with matplotlib."""

import random
import sys
from pathlib import Path

import pytest
from matplotlib import get_data_path
from PIL import Image

from turingvit_hf.data.shapes import generate_shapes


REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def modules():
    sys.path[:0] = [str(REPOSITORY / "examples"), str(REPOSITORY / "benchmarks")]
    try:
        import curation_defects
        import curation_planted
    finally:
        del sys.path[:2]
    return curation_defects, curation_planted


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for number, (picture, caption) in enumerate(generate_shapes(170, seed=0)):
        made.append((folder / f"shapes-{number}.png", caption))
        picture.save(made[-1][0])
    rng = random.Random(0)
    with Image.open(f"{get_data_path()}/sample_data/grace_hopper.jpg") as photograph:
        for number in range(60):
            left, top, side = rng.randrange(330), rng.randrange(420), rng.randrange(90, 180)
            made.append((folder / f"piece-{number}.jpg", f"a piece of a photograph at {left}, {top}"))
            photograph.crop((left, top, left + side, top + side)).save(made[-1][0], quality=92)
    return made


def test_planted_defects_are_found(modules, pictures, tmp_path):
    defects, planted = modules
    truth = defects.plant_defects(pictures, tmp_path / "images", seed=0, min_side=64, share=0.06)
    rows = planted.measure([tmp_path / "images" / entry.file for entry in truth])
    thresholds = planted.Thresholds(quality=planted.QualityThresholds(min_side=64))
    drops = planted.decide_all(truth, rows, thresholds)
    figures = defects.found(
        truth, {entry.file: drop and drop.reason for entry, drop in zip(truth, drops, strict=True)}
    )
    for group, values in figures.items():
        assert values["planted"] >= 9, group
        assert values["precision"] >= 0.95, (group, values)
        assert values["recall"] >= 0.95, (group, values)


def test_the_same_seed_plants_the_same(modules, pictures, tmp_path):
    defects, _ = modules
    truth = [defects.plant_defects(pictures[:80], tmp_path / name, seed=1) for name in ("a", "b")]
    assert truth[0] == truth[1]
    for entry in truth[0]:
        assert (tmp_path / "a" / entry.file).read_bytes() == (tmp_path / "b" / entry.file).read_bytes()
    assert {entry.defect for entry in truth[0]} == {"none", *defects.DEFECTS}
    swapped = [entry for entry in truth[0] if entry.defect == "swapped"]
    assert all(entry.caption != entry.true_caption for entry in swapped)
    defects.write_truth(truth[0], tmp_path / "truth.jsonl")
    assert defects.read_truth(tmp_path / "truth.jsonl") == truth[0]


def test_too_few_pictures_are_refused(modules, pictures, tmp_path):
    with pytest.raises(ValueError, match="too few to plant"):
        modules[0].plant_defects(pictures[:3], tmp_path / "images", seed=0)
