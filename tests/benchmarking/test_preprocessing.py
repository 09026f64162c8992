# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A run of processors: equal output, what its files hold, ratios, that a later run goes on, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.benchmarking.tiny import script
from turingvit_hf.benchmarking import preprocessing
from turingvit_hf.benchmarking.options import PreprocessingOptions
from turingvit_hf.benchmarking.pictures import as_jpeg, choose_sizes, decode, make_pictures
from turingvit_hf.benchmarking.preprocessing import describe_budgets, run_preprocessing, table_of_budgets
from turingvit_hf.cli import app
from turingvit_hf.errors import InputError


def options(**changes):
    return PreprocessingOptions(**{"pictures": 3, "max_patches": (16,), "threads": 1, "repeats": 2, **changes})


def test_a_run_leaves_figures_a_page_and_a_picture_and_a_later_one_goes_on(tmp_path, monkeypatch):
    figures = run_preprocessing(options(out=tmp_path / "new"))
    folder = tmp_path / "new"
    assert {path.name for path in folder.iterdir()} == {f"preprocessing.{ending}" for ending in ("json", "md", "png")}
    assert json.loads((folder / "preprocessing.json").read_text()) == figures
    run = figures["runs"]["16"]
    for name in ("TuringViT, bicubic", "SigLIP2 (PIL), bilinear", "Qwen2-VL (PIL), bicubic", "JPEG decoding alone"):
        assert len(run["forms"][name]["seconds"]) == 2
        assert name in (folder / "preprocessing.md").read_text()
    assert preprocessing.LEGEND in (folder / "preprocessing.md").read_text()
    with Image.open(folder / "preprocessing.png") as picture:
        assert picture.width > 500
    measured = []
    measure = preprocessing.measure_budget
    monkeypatch.setattr(
        preprocessing, "measure_budget", lambda patches, given: measured.append(patches) or measure(patches, given)
    )
    run_preprocessing(options(out=folder, max_patches=(36, 16)))
    assert measured == [36]
    assert list(json.loads((folder / "preprocessing.json").read_text())["runs"]) == ["16", "36"]
    with pytest.raises(InputError, match="pictures=3, this run has 4"):
        run_preprocessing(options(out=folder, pictures=4))


def test_ratios_are_to_our_time_with_the_same_filter(monkeypatch):
    names = [*preprocessing.make_processors(16)]
    names += [f"{preprocessing.FLOOR}, {name}" for name in preprocessing.FILTERS] + [preprocessing.DECODING]
    seconds = dict.fromkeys(names, 1.0) | {
        "TuringViT, bicubic": 2.0,
        "TuringViT, bilinear": 1.0,
        "SigLIP2 (PIL), bicubic": 5.0,
        "SigLIP2 (PIL), bilinear": 3.0,
        "Pillow's resize alone, bicubic": 1.5,
        "JPEG decoding alone": 6.0,
    }
    script(monkeypatch, [seconds[name] for name in names])
    figures = run_preprocessing(options(repeats=1))
    run = figures["runs"]["16"]
    assert preprocessing.ratio(run, "SigLIP2 (PIL), bicubic") == 2.5
    assert preprocessing.ratio(run, "SigLIP2 (PIL), bilinear") == 3.0
    assert preprocessing.ratio(run, "JPEG decoding alone") is None
    bicubic, bilinear, decoding = describe_budgets(figures)
    assert "2.50 of SigLIP2 (PIL)" in bicubic
    assert "75 % of our time" in bicubic
    assert "3.00 of SigLIP2 (PIL)" in bilinear
    assert decoding.endswith("decoding is 75 % of both")
    (row,) = [line for line in table_of_budgets(figures).splitlines() if "16, SigLIP2 (PIL), bicubic" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["16, SigLIP2 (PIL), bicubic", "1,666.67", "1,666.67", "0 %", "0.6", "2.50"]


@pytest.mark.parametrize("patches", [36, 256])
def test_all_processors_make_the_same_number_of_pixels(patches):
    grids = preprocessing.grid_functions(patches)
    side = 16 * patches**0.5
    sizes = choose_sizes(4, 1.25 * side, 2.5 * side, grids)
    expected = [list(grids[0](*size)) for size in sizes]
    for name, processor in preprocessing.make_processors(patches).items():
        output = processor(make_pictures(sizes), return_tensors="pt")
        shapes = output["spatial_shapes"] if "spatial_shapes" in output else output["image_grid_thw"][:, 1:]
        assert shapes.tolist() == expected, name
        assert preprocessing.patches_of(output) == sum(rows * columns for rows, columns in expected)
    with pytest.raises(RuntimeError, match="0 of 1 sizes"):
        choose_sizes(1, 10, 20, [lambda height, width: (1, 1), lambda height, width: (1, 2)], tries=5)


def test_siglip2_gives_the_same_values_up_to_rounding():
    processors = preprocessing.make_processors(36)
    pictures = make_pictures(choose_sizes(2, 120, 200, preprocessing.grid_functions(36)))
    for name in preprocessing.FILTERS:
        ours = processors[f"TuringViT, {name}"](pictures, return_tensors="np")["pixel_values"]
        theirs = processors[f"SigLIP2 (PIL), {name}"](pictures, return_tensors="np")
        own = theirs["pixel_values"][theirs["pixel_attention_mask"].astype(bool)]
        channels_first = own.reshape(-1, 256, 3).transpose(0, 2, 1).reshape(-1, 768)
        np.testing.assert_allclose(ours, channels_first, rtol=0, atol=3e-7)


def test_pictures_survive_jpeg_nearly():
    (picture,) = make_pictures([(48, 80)])
    assert picture.size == (80, 48)
    difference = np.asarray(decode(as_jpeg(picture))).astype(int) - np.asarray(picture)
    assert 0 < np.abs(difference).mean() < 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"max_patches": (3,)}, "max_patches=3"), ({"device": "cuda:0"}, "device="), ({"repeats": 0}, "repeats=0")],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        run_preprocessing(options(**changes))


def test_the_command(tmp_path):
    command = ["benchmark", "preprocessing", "--pictures", "1", "--max-patches", "16", "--threads", "1"]
    result = CliRunner().invoke(app, [*command, "--repeats", "1", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "preprocessing.md").exists()
