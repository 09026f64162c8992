# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""One HTML file that shows what a run did, without a network, and the same numbers as JSON."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from turingvit_hf.curation.decisions import Drop
from turingvit_hf.curation.outcomes import DROPPED, ERROR, KEPT
from turingvit_hf.curation.report import charts
from turingvit_hf.curation.report.pictures import draw_boxes, read_pictures, thumbnail
from turingvit_hf.curation.report.summary import Shown, Summary, summarize
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.tables import write_json, written_file


# groups of duplicates that are shown, and pictures of a group
NUM_GROUPS, GROUP = 8, 5
# of the row that the others of a group are duplicates of
STAYS = "stays"
# characters of a caption that are shown
MAX_CAPTION = 200


def write_report(path: str | Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.json` into a run folder and return their paths.

    The page holds its charts and pictures itself and asks for nothing: it can be mailed and read offline. Texts from
    the data are escaped. The run may be unfinished; what is there is shown.

    Args:
        path: the run folder.

    Raises:
        InputError: it is no run folder, or matplotlib is not installed.
    """
    run = RunFolder(path)
    thresholds = run.config.thresholds
    summary = summarize(run.iterate_rows(), thresholds, seed=run.config.seed)
    facts = {
        "config_hash": run.facts["config_hash"],
        "sources": run.facts["sources"],
        "versions": run.facts["versions"],
    }
    page = _template().render(
        facts=facts,
        name=run.path.resolve().name,
        summary=summary,
        statuses=(KEPT, DROPPED, ERROR),
        charts=_draw(summary, thresholds),
        grids=_grids(run, summary),
        config=(run.path / "config.yaml").read_text(encoding="utf-8"),
    )
    json_file, html_file = run.path / "report.json", run.path / "report.html"
    write_json(json_file, facts | summary.to_dict())
    with written_file(html_file) as partial:
        partial.write_text(page, encoding="utf-8")
    return html_file, json_file


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("turingvit_hf.curation.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.jinja")


def _draw(summary: Summary, thresholds: Any) -> dict[str, Any]:
    return {
        "funnel": charts.draw_funnel(summary),
        "values": charts.draw_values(summary, thresholds),
        "scores": charts.draw_scores(summary),
        "captions": charts.draw_captions(summary),
        "wins": charts.draw_wins(summary),
        "clips": charts.draw_clips(summary, thresholds),
    }


def _grids(run: RunFolder, summary: Summary) -> list[dict[str, Any]]:
    """The grids of pictures: a title and its cards, each a picture, a caption and what was decided."""
    groups = sorted(summary.duplicates.items(), key=lambda item: (-len(item[1]), item[0]))[:NUM_GROUPS]
    shown = [*summary.kept, *summary.borderline, *summary.grounded]
    for entries in summary.dropped.values():
        shown += entries
    names = {entry.row["sample_id"] for entry in shown}
    names |= {name for kept, others in groups for name in (kept, *(other for other, _ in others[: GROUP - 1]))}
    pictures = read_pictures(run, names)
    small = {name: thumbnail(picture) for name, picture in pictures.items()}
    grids = [
        {"title": "Kept", "note": "Drawn at random, with the overall score.", "cards": _cards(summary.kept, small)},
        {
            "title": "Borderline",
            "note": "Kept rows nearest to a threshold, and dropped ones nearest to the one that they failed.",
            "cards": _cards(summary.borderline, small),
        },
    ]
    for stage, reason in summary.drops:
        cards = _cards(summary.dropped[stage, reason], small)
        note = f"{summary.drops[stage, reason]:,} rows, at stage {stage}."
        grids.append({"title": f"Dropped: {reason}", "note": note, "cards": cards})
    if summary.grounded:
        boxed = {
            entry.row["sample_id"]: thumbnail(draw_boxes(pictures[entry.row["sample_id"]], entry.row["boxes"]), 280)
            for entry in summary.grounded
            if entry.row["sample_id"] in pictures
        }
        note = "Phrases of the chosen caption, found in the picture."
        grids.append({"title": "Grounded", "note": note, "cards": _cards(summary.grounded, boxed)})
    if groups:
        grids.append(
            {
                "title": "Duplicates",
                "note": "The first of each group stays in its place; a later stage may still drop it.",
                "groups": _groups(groups, small),
            }
        )
    return grids


def _cards(shown: Iterable[Shown], pictures: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "picture": pictures.get(entry.row["sample_id"]),
            "id": entry.row["sample_id"],
            "caption": _shortened(best_caption(entry.row) or ""),
            "origin": caption_origin(entry.row),
            "status": entry.judged.status,
            "verdict": _verdict(entry),
            "overall": entry.row.get("overall"),
        }
        for entry in shown
    ]


def _shortened(caption: str) -> str:
    return caption if len(caption) <= MAX_CAPTION else f"{caption[:MAX_CAPTION]} ..."


def _verdict(entry: Shown) -> str:
    if entry.near:
        return f"{entry.judged.status}; {entry.near}"
    return describe_drop(entry.judged.drop) if entry.judged.drop else entry.judged.status


def _groups(groups: list[tuple[str, list[tuple[str, Drop]]]], pictures: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "cards": [
                {"picture": pictures.get(name), "id": name, "why": describe_drop(drop) if drop else STAYS}
                for name, drop in ((kept, None), *others[: GROUP - 1])
            ],
            "more": max(0, len(others) - GROUP + 1),
        }
        for kept, others in groups
    ]


def best_caption(row: Mapping[str, Any]) -> str | None:
    """Return the chosen caption of a row, its own where none was chosen, None if it has none."""
    candidates, best = row.get("candidates") or (), row.get("best")
    if best is not None and best < len(candidates):
        return candidates[best]["text"]
    return row.get("raw_caption")


def caption_origin(row: Mapping[str, Any]) -> str:
    """Return where the chosen caption of a row comes from, in words; nothing where it is the row's own, or none."""
    candidates, best = row.get("candidates") or (), row.get("best")
    if best is None or best >= len(candidates):
        return ""
    candidate = candidates[best]
    if candidate.get("copied_from"):
        return f"caption of copy {candidate['copied_from']}"
    return f"by {candidate['captioner']}, {candidate['style']}" if candidate.get("captioner") else ""


def describe_drop(drop: Drop) -> str:
    """Return why a row was dropped, with what was measured and what it was held against."""
    if drop.value is None:
        return drop.reason
    value = f"{drop.value:.4g}" if isinstance(drop.value, float) else str(drop.value)
    return f"{drop.reason}: {value}" + (f", threshold {drop.threshold:g}" if drop.threshold is not None else "")
