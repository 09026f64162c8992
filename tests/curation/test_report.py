# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Reports: every section, numbers that are those of the rows, no foreign HTML, no network, runs of every kind."""

import base64
import io
import json
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.curation.fault_server import FaultServer
from tests.curation.looking_cases import (
    HARM,
    HARM_STYLE,
    Page,
    finished_run,
    lenient,
    rows_of,
    write_source,
)
from tests.curation.run_cases import make_config, picture, write_listing, write_pictures
from turingvit_hf.cli import app
from turingvit_hf.curation.decisions import Thresholds
from turingvit_hf.curation.report import charts
from turingvit_hf.curation.report.page import write_report
from turingvit_hf.curation.report.pictures import draw_boxes
from turingvit_hf.curation.report.summary import GRID, Summary, summarize
from turingvit_hf.curation.runs import run
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.errors import InputError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with captions, verdicts, scores and boxes, a style that is HTML, and its report."""
    folder = tmp_path_factory.mktemp("whole")
    caption = {
        "captioners": [{"kind": "tests.curation.stand_ins:CountingCaptioner", "log": str(folder / "log")}],
        "styles": ["main subjects, their actions and attributes", HARM_STYLE],
    }
    out = finished_run(folder, caption=caption, thresholds={"quality": lenient(), "score": {"top_fraction": 0.7}})
    html, numbers = write_report(out)
    return out, html.read_text(encoding="utf-8"), json.loads(numbers.read_text(encoding="utf-8"))


def assert_self_contained(page):
    """Nothing is fetched and nothing runs."""
    assert not {"script", "iframe", "object", "embed", "link", "base", "form", "svg"} & set(page.elements)
    for name, value in page.attributes:
        assert not name.startswith("on"), (name, value)
        if name in ("src", "href", "srcset", "action", "data"):
            assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")), (name, value)


def test_every_section_is_there(whole):
    _, html, numbers = whole
    page = Page(html)
    assert {"Funnel", "Measurements", "Captions", "Kept", "Borderline", "Grounded", "Duplicates", "Config"} <= set(
        page.sections
    )
    for entry in numbers["drops"]:
        assert f"{entry['rows']:,} rows, at stage {entry['stage']}" in page.sections[f"Dropped: {entry['reason']}"]
    targets = {value[1:] for name, value in page.attributes if name == "href"}
    assert targets <= {value for name, value in page.attributes if name == "id"}
    alternatives = [value for name, value in page.attributes if name == "alt"]
    assert "how often each style and captioner was chosen" in alternatives
    assert any("shorter side" in text for text in alternatives)
    assert "sources:" in page.sections["Config"]
    assert "first of each group stays" in page.sections["Duplicates"]


def test_numbers_are_those_of_the_rows(whole):
    out, html, numbers = whole
    rows = rows_of(out)
    assert numbers["rows"] == len(rows)
    statuses = Counter(row["status"] for row in rows)
    assert {name: numbers[name] for name in ("kept", "dropped", "error")} == {
        name: statuses[name] for name in ("kept", "dropped", "error")
    }
    drops = Counter((row["drop_stage"], row["drop_reason"]) for row in rows if row["status"] == "dropped")
    assert {(entry["stage"], entry["reason"]): entry["rows"] for entry in numbers["drops"]} == drops
    scores = [row["overall"] for row in rows if row["overall"] is not None]
    assert numbers["values"]["overall"]["rows"] == len(scores)
    assert (numbers["values"]["overall"]["min"], numbers["values"]["overall"]["max"]) == (min(scores), max(scores))
    candidates = pq.read_table(out / "candidates.parquet").to_pylist()
    wins = {(entry["by"], entry["name"]): entry for entry in numbers["wins"]}
    for key, name in (("style", "style"), ("captioner", "captioner")):
        for value in {row[name] or "raw" for row in candidates}:
            of_value = [row for row in candidates if (row[name] or "raw") == value]
            entry = wins[key, value]
            assert entry["candidates"] == len(of_value)
            assert entry["chosen"] == sum(row["is_best"] for row in of_value)
            assert entry["eligible"] == sum(row["rank"] is not None for row in of_value)
    assert numbers["duplicates"]["dropped"] == sum("duplicate" in (row["drop_reason"] or "") for row in rows)
    assert numbers["config_hash"] == rows[0]["config_hash"]
    assert f"{statuses['kept']}" in Page(html).sections[""]


def test_html_of_captions_styles_and_keys_is_text(whole):
    out, html, _ = whole
    page = Page(html)
    assert_self_contained(page)
    assert "<script>" not in html
    assert "<b>styled" not in html
    assert HARM in "".join(page.sections.values())  # as text, on the card of its picture
    assert any(row["caption"] == HARM or row["raw_caption"] == HARM for row in rows_of(out))


def test_html_of_errors_is_text(tmp_path):
    out = finished_run(tmp_path)
    file = RunFolder(out).shard_file(0, "caption.parquet")
    table = pq.read_table(file)
    errors = pa.array([f"{HARM}\nsecond line"] * len(table), pa.string())
    pq.write_table(table.set_column(table.column_names.index("error"), "error", errors), file)
    html, numbers = write_report(out)
    page = Page(html.read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert HARM in page.sections["Errors"]
    assert "second line" not in page.sections["Errors"]
    (entry,) = json.loads(numbers.read_text())["errors"]
    assert (entry["stage"], entry["error"]) == ("caption", HARM)
    assert entry["rows"] == json.loads(numbers.read_text())["error"]


def test_answers_that_are_missing_are_counted_where_their_rows_go_on(tmp_path):
    write_listing(tmp_path / "pictures", write_pictures(tmp_path / "pictures", 9))
    with FaultServer() as server:
        server.fail("400", times=None, when=lambda request: "layout" in request.prompt)
        model = {"kind": "endpoint", "model": "fake/<b>captioner</b>", "base_url": server.base_url}
        caption = {"captioners": [model], "styles": ["creative", "layout"]}
        outcomes = run(make_config(tmp_path / "pictures", caption=caption), tmp_path / "run")
    assert (outcomes.num_kept, outcomes.num_errors) == (9, 0)
    html, numbers = write_report(tmp_path / "run")
    expected = {"stage": "caption", "model": "fake/<b>captioner</b>", "kind": "rejected", "answers": 9}
    assert json.loads(numbers.read_text(encoding="utf-8"))["failures"] == [expected]
    page = Page(html.read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert "captionfake/<b>captioner</b>rejected9" in page.sections["Errors"]
    shown = CliRunner().invoke(app, ["curate", "status", str(tmp_path / "run")]).output
    assert re.search(r"caption: .* 18 calls, .* tokens, 9 without a usable answer", shown)


def test_the_same_rows_are_shown_in_whatever_order_they_come():
    rows = [{"sample_id": f"{number:016x}", "errors": {}, "min_side": 250} for number in range(3 * GRID)]
    expected = [row["sample_id"] for row in rows[:GRID]]  # all are as near to their threshold
    for order in (rows, rows[::-1], sorted(rows, key=lambda row: row["sample_id"][::-1])):
        shown = summarize(order, Thresholds()).borderline
        assert [entry.row["sample_id"] for entry in shown] == expected


def test_the_same_run_gives_the_same_bytes(whole):
    out, html, numbers = whole
    again, numbers_again = write_report(out)
    assert again.read_text(encoding="utf-8") == html
    assert json.loads(numbers_again.read_text(encoding="utf-8")) == numbers


def test_pictures_are_those_of_the_rows(whole):
    _, html, _ = whole
    thumbnails = re.findall(r'<img alt="" loading="lazy" src="data:image/jpeg;base64,([^"]+)"', html)
    assert len(thumbnails) > 10
    for encoded in thumbnails:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            assert max(image.size) <= 280
            assert np.asarray(image).std() > 5


def test_boxes_are_drawn_where_they_are():
    picture = Image.new("RGB", (200, 120), "white")
    drawn = np.asarray(draw_boxes(picture, [{"phrase": "a", "score": 0.5, "x0": 40, "y0": 30, "x1": 160, "y1": 100}]))
    assert (np.asarray(picture) == 255).all()
    is_drawn = (drawn != 255).any(axis=2)
    rows, columns = np.nonzero(is_drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 100, 40, 160)


def test_an_unfinished_run_has_a_report(tmp_path):
    write_source(tmp_path / "pictures")
    assert run(make_config(tmp_path / "pictures"), tmp_path / "run", shards=range(0, 1)) is None
    html, numbers = write_report(tmp_path / "run")
    assert json.loads(numbers.read_text())["rows"] == 8
    assert "Funnel" in Page(html.read_text()).sections


def test_a_run_that_has_only_begun_has_a_report(tmp_path):
    write_source(tmp_path / "pictures")
    out = tmp_path / "run"
    run(make_config(tmp_path / "pictures"), out, shards=range(0, 1))
    RunFolder(out).remove_from(["measure"])
    html, numbers = write_report(out)
    assert json.loads(numbers.read_text())["rows"] == 0
    assert_self_contained(Page(html.read_text()))


def test_a_run_that_keeps_nothing_has_a_report(tmp_path):
    out = finished_run(tmp_path, thresholds={"quality": lenient(min_side=4000)})
    assert json.loads(write_report(out)[1].read_text())["kept"] == 0
    assert "Kept" not in Page((out / "report.html").read_text()).sections


def test_a_run_without_scores_says_which_captions_were_chosen(tmp_path):
    off = {"enabled": False}
    out = finished_run(tmp_path, embed=off, score=off, ground=off)
    html, numbers = write_report(out)
    chosen = sum(entry["chosen"] for entry in json.loads(numbers.read_text())["wins"] if entry["by"] == "style")
    assert chosen == sum(row["caption"] is not None for row in rows_of(out)) > 0
    shown = Page(html.read_text()).sections["Kept"]
    kept = [row for row in rows_of(out) if row["status"] == "kept"]
    assert sum(row["caption"] in shown for row in kept) == len(kept)


def test_a_source_without_captions_has_a_report(tmp_path):
    write_listing(
        tmp_path / "pictures", [{"file_name": row["file_name"]} for row in write_pictures(tmp_path / "pictures", 4)]
    )
    off = {"enabled": False}
    run(make_config(tmp_path / "pictures", embed=off, score=off), tmp_path / "run")
    html, _ = write_report(tmp_path / "run")
    assert "Captions" not in Page(html.read_text()).sections


def test_pictures_that_are_gone_do_not_stop_the_report(tmp_path):
    out = finished_run(tmp_path)
    for file in (tmp_path / "pictures").glob("*.png"):
        file.unlink()
    html, numbers = write_report(out)
    assert "no picture" in Page(html.read_text()).sections["Kept"]
    assert json.loads(numbers.read_text())["kept"]


def test_clips_are_plotted_by_motion_and_consistency(tmp_path):
    """The columns of clips, put into a run of pictures."""
    out = finished_run(tmp_path)
    folder = RunFolder(out)
    for shard in folder.shards:
        file = folder.shard_file(shard.number, "measure.parquet")
        table = pq.read_table(file)
        size = len(table)
        values = {
            "motion": np.geomspace(1e-4, 2.0, size),
            "motion_variation": np.linspace(0.1, 3.0, size),
            "adjacent_mean": np.linspace(0.5, 1.0, size),
            "adjacent_min": np.linspace(0.4, 0.99, size),
        }
        for name, column in values.items():
            table = table.append_column(name, pa.array(column))
        pq.write_table(table, file)
    html, numbers = write_report(out)
    page = Page(html.read_text())
    assert ("alt", "motion against consistency of clips") in page.attributes
    numbers = json.loads(numbers.read_text())
    assert {"clip hardly moves", "frames are inconsistent"} & {entry["reason"] for entry in numbers["drops"]}
    assert numbers["values"]["motion"]["max"] == pytest.approx(2.0)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no run folder"):
        write_report(tmp_path)


def test_groups_of_duplicates_stand_together(whole):
    out, html, _ = whole
    section = html.split("<h2>Duplicates</h2>")[1]
    groups = section.split('<div class="group">')[1:]
    shown = [re.findall(r"<code>([0-9a-f]{16})</code>", group) for group in groups]
    of = {row["sample_id"]: row["dup_of"] for row in rows_of(out) if row["dup_of"]}
    assert {frozenset(names) for names in shown} == {
        frozenset([kept, *(name for name, other in of.items() if other == kept)]) for kept in set(of.values())
    }
    assert all(of.get(name) == names[0] for names in shown for name in names[1:])
    assert section.count(">stays<") == len(groups)
    assert section.count("exact duplicate") == len(of)


def test_cards_say_where_a_caption_comes_from(whole, tmp_path):
    out, html, _ = whole
    by_captioner = [row for row in rows_of(out) if row["status"] == "kept" and row["captioner"]]
    assert by_captioner
    assert "by counting, main subjects, their actions and attributes" in Page(html).sections["Kept"]

    rows = write_pictures(tmp_path / "pictures", 3)
    large = picture(50).resize((192, 192), Image.Resampling.LANCZOS)
    large.save(tmp_path / "pictures" / "000.png")  # stays, being larger than its copy
    picture(50).save(tmp_path / "pictures" / "copy.png")
    rows[0]["caption"] = ""
    write_listing(tmp_path / "pictures", [*rows, {"file_name": "copy.png", "caption": "Said of a copy."}])
    run(make_config(tmp_path / "pictures"), tmp_path / "run")
    (kept,) = (row for row in rows_of(tmp_path / "run") if row["caption"] == "Said of a copy.")
    shown = Page(write_report(tmp_path / "run")[0].read_text(encoding="utf-8")).sections["Kept"]
    assert f"caption of copy {kept['caption_from']}" in shown


def test_bars_of_captions_fill_their_chart(monkeypatch):
    """Shares of a hundredth are to be told apart."""
    limits = []
    monkeypatch.setattr(charts, "_png", lambda figure: limits.append(figure.axes[0].get_xlim()))
    summary = Summary()
    for number in range(10):
        summary.wins["style", f"style {number}"].update(candidates=100, eligible=100, chosen=number)
    charts.draw_wins(summary)
    assert limits == [(0.0, 1.25 * 9)]


def test_charts_of_clips_name_both_bounds_of_motion(monkeypatch):
    titles, limits = [], []
    monkeypatch.setattr(charts, "_png", lambda figure: titles.append(figure.axes[0].get_title("right")))
    summary = Summary()
    for motion in (0.0, 0.01, 2.0):
        summary.values["motion"].add(motion, 0)
        summary.clips.append((motion, 0.9, "kept"))
    charts.draw_values(summary, Thresholds())
    assert titles == ["kept where \u2265 0.001 and \u2264 1"]
    monkeypatch.setattr(charts, "_png", lambda figure: limits.append(figure.axes[0].get_xlim()))
    charts.draw_clips(summary, Thresholds())
    ((low, high),) = limits
    assert -1e-4 < low < 0  # of what is less than nothing there are no marks
    assert high > 2


def test_words_of_the_user_are_no_formula_and_need_no_font():
    summary = Summary()
    for name in ("$5 and $\\frac{", "\U0001f415 \u5199\u771f"):
        summary.wins["style", name].update(candidates=2, eligible=2, chosen=1)
    assert charts.draw_wins(summary)
