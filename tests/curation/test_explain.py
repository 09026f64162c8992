# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Explanations: one sample with everything that is known of it, on a terminal and as a figure."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.axes import Axes
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tests.curation.looking_cases import HARM, finished_run, rows_of
from turingvit_hf.cli import app
from turingvit_hf.curation.explain import as_table, explain, write_figure
from turingvit_hf.errors import InputError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("explained"))


def text_of(explanation, width=400):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(as_table(explanation))
    return console.export_text()


def of_kind(finished, **values):
    return next(row for row in rows_of(finished) if all(row[name] == value for name, value in values.items()))


def test_a_kept_sample_shows_its_candidates_scores_and_boxes(finished):
    row = of_kind(finished, status="kept")
    explanation = explain(finished, row["sample_id"])
    text = text_of(explanation)
    assert explanation.judged.status == "kept"
    candidates = [
        entry
        for entry in pq.read_table(finished / "candidates.parquet").to_pylist()
        if entry["sample_id"] == row["sample_id"]
    ]
    assert len(candidates) == row["num_candidates"] == 6
    for candidate in candidates:
        (line,) = [line for line in text.splitlines() if f" {candidate['text']} " in line]
        for name in ("text_quality", "alignment", "ambiguity", "overall"):
            assert f"{candidate[name]:.2f}" in line
        assert f"quality {candidate['verdict_quality']:g}" in line
        assert ("not grounded" in line) == (not candidate["grounded"])
        assert line.startswith("│ *") == candidate["is_best"]
    assert row["source_uri"] in text
    assert f"recall {row['grounding_recall']:.2f}" in text
    assert all(f"{box['phrase']} {box['score']:.2f}" in text for box in row["boxes"])


def test_a_dropped_sample_says_by_what(finished):
    row = of_kind(finished, key="tiny.png")
    text = text_of(explain(finished, row["sample_id"]))
    assert "dropped, resolution is too low: 16, threshold 32 (stage measure)" in text
    duplicate = next(row for row in rows_of(finished) if row["dup_of"])
    assert f"exact duplicate of {duplicate['dup_of']}" in text_of(explain(finished, duplicate["sample_id"]))
    broken = of_kind(finished, key="cut.jpg")
    assert "image cannot be read" in text_of(explain(finished, broken["sample_id"]))


def test_an_id_may_be_cut_short_as_long_as_it_is_one_samples(finished):
    names = [row["sample_id"] for row in rows_of(finished)]
    name = names[3]
    length = next(n for n in range(1, 17) if sum(other.startswith(name[:n]) for other in names) == 1)
    assert explain(finished, name[:length]).row["sample_id"] == name
    first = next(c for c in "0123456789abcdef" if sum(other.startswith(c) for other in names) > 1)
    with pytest.raises(InputError, match=rf"\d+ samples have an id that begins with '{first}': {first}"):
        explain(finished, first)
    for unknown in ("zz", ""):
        with pytest.raises(InputError, match=f"no sample of .* has an id that begins with '{unknown}'"):
            explain(finished, unknown)


def test_words_of_the_data_are_no_markup(finished):
    row = of_kind(finished, raw_caption=HARM)
    text = text_of(explain(finished, row["sample_id"]))
    assert HARM in text


def test_a_narrow_terminal_cuts_no_word_short(finished):
    explanation = explain(finished, of_kind(finished, raw_caption=HARM)["sample_id"])
    explanation.row["candidates"][0]["text"] = "a " + "Q" * 100
    text = text_of(explanation, width=80)
    assert text.count("Q") == 100
    assert "\u2026" not in text


def test_the_figure_has_the_picture_and_its_boxes(finished, tmp_path):
    row = next(row for row in rows_of(finished) if row["status"] == "kept" and row["boxes"])
    explanation = explain(finished, row["sample_id"])
    file = write_figure(finished, explanation, tmp_path / "with.png")
    explanation.row["boxes"] = []
    without = write_figure(finished, explanation, tmp_path / "without.png")
    first, second = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (file, without))
    assert first.shape == second.shape
    rows, columns = np.nonzero(np.abs(first - second).max(axis=2) > 60)
    assert len(rows)
    assert columns.max() < 0.5 * first.shape[1], "boxes are drawn into the picture, which stands on the left"


@pytest.mark.parametrize(
    "text",
    [
        *("word " * 400, "x" * 3000, "RED HOUSE " * 90, "$5 and $\\frac{"),
        *("\U0001f415 \u5199\u771f" * 50, "\u0643\u0644\u0628 " * 90),
    ],
    ids=["many words", "one word", "capitals", "dollars", "wide signs", "Arabic"],
)
def test_every_text_stays_in_its_cell_of_the_figure(finished, tmp_path, monkeypatch, text):
    tables, draw = [], Axes.table

    def recorded(axes, *args, **values):
        tables.append(draw(axes, *args, **values))
        return tables[0]

    monkeypatch.setattr(Axes, "table", recorded)
    explanation = explain(finished, of_kind(finished, status="kept")["sample_id"])
    first, second, *_ = explanation.row["candidates"]
    first["text"], second["captioner"] = text, "organization/captioner-of-some-length"
    write_figure(finished, explanation, tmp_path / "figure.png")
    for cell in tables[0].get_celld().values():
        outer, inner = cell.get_window_extent(), cell.get_text().get_window_extent()
        assert outer.x0 <= inner.x0
        assert inner.x1 <= outer.x1 + 1, cell.get_text().get_text()
        assert outer.y0 <= inner.y0
        assert inner.y1 <= outer.y1


def test_no_caption_steers_a_terminal(finished):
    explanation = explain(finished, of_kind(finished, status="kept")["sample_id"])
    explanation.row["candidates"][0]["text"] = "A \x1b[2J\x1b]0;title\x07kite."
    explanation.row["source_uri"] = "pictures/\x1b[31m.png"
    text = text_of(explanation)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "kite." in text


def test_a_figure_needs_the_picture(tmp_path):
    out = finished_run(tmp_path)
    row = of_kind(out, key="005.png")
    (tmp_path / "pictures" / "005.png").unlink()
    explanation = explain(out, row["sample_id"])
    assert text_of(explanation)
    with pytest.raises(InputError, match=f"picture of {row['sample_id']} cannot be read any more from .*005.png"):
        write_figure(out, explanation, tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()


def test_the_command_prints_and_draws(finished, tmp_path):
    row = of_kind(finished, status="kept")
    figure = tmp_path / "figure.png"
    arguments = ["curate", "explain", str(finished), row["sample_id"], "--figure", str(figure)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    assert row["caption"] in result.output
    with Image.open(figure) as image:
        assert image.format == "PNG"
    assert CliRunner().invoke(app, ["curate", "explain", str(finished), "zz"]).exit_code == 1


def test_the_report_command_names_its_files(finished):
    result = CliRunner().invoke(app, ["curate", "report", str(finished)])
    assert result.exit_code == 0, result.output
    assert result.output.split() == [str(finished / "report.html"), str(finished / "report.json")]
    refused = CliRunner().invoke(app, ["curate", "report", str(finished.parent)])
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")


@pytest.mark.parametrize("command", ["report", "tune", "explain"])
def test_help_has_an_example(command):
    result = CliRunner().invoke(app, ["curate", command, "--help"])
    assert result.exit_code == 0
    assert f"Example: turingvit curate {command} my-run" in " ".join(result.output.split())
    assert command in CliRunner().invoke(app, ["curate", "--help"]).output
    assert "curate" in CliRunner().invoke(app, ["--help"]).output
