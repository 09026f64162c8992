# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Why a sample was kept or dropped: its measurements, all its candidates with their scores, verdicts and boxes."""

import re
import textwrap
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from turingvit_hf.curation.decisions import RULES, Thresholds
from turingvit_hf.curation.optional import require
from turingvit_hf.curation.report.charts import no_glyph_warnings
from turingvit_hf.curation.report.page import describe_drop
from turingvit_hf.curation.report.pictures import draw_boxes, read_pictures
from turingvit_hf.curation.report.summary import Judged, judge_row
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.tables import written_file
from turingvit_hf.errors import InputError


# what moves a terminal's cursor or colors its lines
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# letters of a line of the figure's table, and lines of a cell
CAPTION_LETTERS, AUTHOR_LETTERS, CELL_LINES = 48, 21, 3


@dataclass(frozen=True)
class Explanation:
    """All that is stored about a sample.

    Attributes:
        row: its columns, candidates and boxes included.
        judged: what became of it, and why.
        thresholds: what it was held against.
    """

    row: dict[str, Any]
    judged: Judged
    thresholds: Thresholds


def explain(path: str | Path, sample_id: str) -> Explanation:
    """Return all that a run stored about a sample.

    Args:
        path: the run folder.
        sample_id: its id, or as much of its beginning as no other id begins with.

    Raises:
        InputError: it is no run folder, there is no such sample, or several begin so.
    """
    run = RunFolder(path)
    shards = run.find_samples(sample_id) if sample_id else {}
    if sample_id in shards:
        shards = {sample_id: shards[sample_id]}
    if not shards:
        raise InputError(f"no sample of {run.path} has an id that begins with {sample_id!r}")
    if len(shards) > 1:
        names = ", ".join([*shards][:5])
        raise InputError(f"{len(shards)} samples have an id that begins with {sample_id!r}: {names}")
    (name,) = shards
    found = run.read_shard(shards[name], ids=[name])
    thresholds = run.config.thresholds
    return Explanation(found[0], judge_row(found[0], thresholds), thresholds)


def as_table(explanation: Explanation) -> Group:
    """Return the explanation for a terminal, as rich's renderables."""
    row, judged = explanation.row, explanation.judged
    why = f", {describe_drop(judged.drop)} (stage {judged.drop.stage})" if judged.drop else ""
    parts: list[Any] = [
        Text.assemble(("sample ", "dim"), row["sample_id"], ("  from ", "dim"), _plain(str(row.get("source_uri")))),
        Text.assemble((judged.status, "bold green" if judged.status == "kept" else "bold red"), _plain(why)),
    ]
    if row.get("dup_of"):
        parts.append(Text(f"{row.get('dup_kind')} duplicate of {row['dup_of']}"))
    parts += [Text(_plain(f"error at stage {stage}: {text}")) for stage, text in row.get("errors", {}).items()]
    parts.append(_measurements(row, explanation.thresholds))
    if row.get("candidates"):
        parts.append(_candidates(row))
    if row.get("boxes") is not None:
        boxes = ", ".join(f"{box['phrase']} {box['score']:.2f}" for box in row["boxes"]) or "no phrase was found"
        recall = row.get("grounding_recall")
        parts.append(Text(_plain(f"grounding: {boxes}") + (f"; recall {recall:.2f}" if recall is not None else "")))
    return Group(*parts)


def write_figure(path: str | Path, explanation: Explanation, file: str | Path) -> Path:
    """Write the sample as a picture: the image with its boxes, and a table of its candidates, the chosen one marked.

    Args:
        path: the run folder, whose sources are read once more for the image.
        explanation: of the sample.
        file: the PNG to write.

    Raises:
        InputError: the image is not there any more, or matplotlib is missing.
    """
    require("matplotlib", "curate")
    from matplotlib.figure import Figure

    row = explanation.row
    picture = read_pictures(RunFolder(path), [row["sample_id"]]).get(row["sample_id"])
    if picture is None:
        raise InputError(f"the picture of {row['sample_id']} cannot be read any more from {row.get('source_uri')}")
    candidates = row.get("candidates") or ()
    figure = Figure(figsize=(11, max(3.4, 1.2 + 0.5 * len(candidates))), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2, width_ratios=[1, 2.4])
    left.imshow(draw_boxes(picture, row.get("boxes") or ()))
    left.set_title(explanation.judged.status, fontsize=10)
    for axes in (left, right):
        axes.set_axis_off()
    if candidates:
        _draw_candidates(right, row)
    target = Path(file)
    with written_file(target) as partial, no_glyph_warnings():
        figure.savefig(partial, format="png", metadata={"Software": None})
    return target


def _measurements(row: Mapping[str, Any], thresholds: Thresholds) -> Table:
    table = Table("measured", "value", "kept where", box=None, pad_edge=False)
    for name in dict.fromkeys(rule.value for rule in RULES if row.get(rule.value) is not None):
        bounds = []
        for rule in RULES:
            threshold = getattr(getattr(thresholds, rule.section), rule.threshold)
            if rule.value == name and threshold is not None:
                bounds.append(f"{'at least' if rule.least else 'at most'} {threshold:g}")
        table.add_row(name, f"{row[name]:.5g}", " and ".join(bounds) or "any")
    return table


def _candidates(row: Mapping[str, Any]) -> Table:
    table = Table("", "candidate", "by", "T", "A", "G", "overall", "verdict")
    for index, candidate in enumerate(row["candidates"]):
        mark = "*" if index == row.get("best") else ""
        # a word that is longer than its column goes on in the next line
        parts = (candidate["text"], _author(candidate), _verdict(candidate))
        text, author, verdict = (Text(_plain(part), overflow="fold") for part in parts)
        table.add_row(mark, text, author, *_scores(candidate), verdict)
    return table


def _draw_candidates(axes: Any, row: Mapping[str, Any]) -> None:
    cells, colors = [], []
    for index, candidate in enumerate(row["candidates"]):
        words = (_cell(candidate["text"], CAPTION_LETTERS), _cell(_author(candidate), AUTHOR_LETTERS))
        cells.append([*words, *_scores(candidate)])
        colors.append(["#e4f1e4" if index == row.get("best") else "white"] * 6)
    height = min(1.0, 0.16 * (len(cells) + 1))
    table = axes.table(
        cells,
        cellColours=colors,
        colLabels=["candidate", "by", "T", "A", "G", "overall"],
        colWidths=[0.5, 0.2, 0.07, 0.07, 0.07, 0.09],
        cellLoc="left",
        bbox=[0, 1 - height, 1, height],
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for cell in table.get_celld().values():
        cell.PAD = 0.02
        cell.get_text().set_parse_math(False)  # a price in dollars is no formula


def _cell(text: str, letters: int) -> str:
    """A text in as many lines as a cell holds."""
    if any(unicodedata.east_asian_width(sign) in "WF" for sign in text):
        letters //= 2
    return "\n".join(textwrap.wrap(_plain(text), letters, max_lines=CELL_LINES, placeholder=" ..."))


def _plain(text: str) -> str:
    """A text of the data as it may be shown."""
    return CONTROL.sub("\ufffd", text)


def _author(candidate: Mapping[str, Any]) -> str:
    if candidate.get("origin") == "raw":
        return f"raw, of {candidate['copied_from']}" if candidate.get("copied_from") else "raw"
    return " · ".join(str(part) for part in (candidate.get("captioner"), candidate.get("style")) if part)


def _scores(candidate: Mapping[str, Any]) -> list[str]:
    names = ("text_quality", "alignment", "ambiguity", "overall")
    return ["" if candidate.get(name) is None else f"{candidate[name]:.2f}" for name in names]


def _verdict(candidate: Mapping[str, Any]) -> str:
    verdict = candidate.get("verdict")
    parts = (
        [] if verdict is None else [f"quality {verdict['quality']:g}" if verdict.get("quality") is not None else ""]
    )
    if verdict is not None:
        parts.append("grounded" if verdict.get("grounded") else "not grounded")
        parts += (
            [f"not there: {', '.join(verdict['hallucinated_phrases'])}"] if verdict.get("hallucinated_phrases") else []
        )
    return "; ".join([part for part in parts if part] + list(candidate.get("flags") or ()))
