# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The charts of a report, each as the base64 of a PNG. No window system is asked for."""

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from turingvit_hf.curation.decisions import RULES, Thresholds
from turingvit_hf.curation.optional import require
from turingvit_hf.curation.outcomes import DROPPED, ERROR, KEPT
from turingvit_hf.curation.report.summary import STAGE_ORDER, STATUSES, Measured, Summary


COLORS = {KEPT: "#2a78b5", DROPPED: "#d9822b", ERROR: "#8a8f98"}
LINE = "#b3262e"
# points of a scatter plot; of more, every so many-th is drawn
MAX_POINTS = 4000
NAMES = {
    "min_side": "shorter side, pixels",
    "aspect": "longer over shorter side",
    "edge_width": "width of the sharpest edges, pixels",
    "smooth_laplacian": "variance of the smoothed Laplacian",
    "gray_entropy": "entropy of gray, bits",
    "edge_share": "share of pixels on an edge",
    "adjacent_min": "least cosine of adjacent frames",
    "adjacent_mean": "mean cosine of adjacent frames",
    "motion": "motion, diagonals a second",
    "motion_variation": "variation of motion",
    "alignment": "alignment A",
    "overall": "overall score",
    "better_share": "place among all scores, share",
    "grounding_recall": "share of phrases found",
}
# values that tell nothing of the stage: those of clips are measured by another
OF_CLIPS_TOO = ("min_side", "aspect")
# values over several decades
LOGARITHMIC = ("min_side", "aspect", "smooth_laplacian", "motion", "edge_share")


def draw_funnel(summary: Summary) -> str:
    """Rows that are left after each stage, and how many each takes away."""
    left, names, bars = summary.num_rows, ["input"], [summary.num_rows]
    for stage in STAGE_ORDER:
        lost = sum(count for (name, _), count in summary.drops.items() if name == stage)
        measured = {rule.value for rule in RULES if rule.stage == stage and rule.value not in OF_CLIPS_TOO}
        if lost or not measured.isdisjoint(summary.values):
            left -= lost
            names.append(stage)
            bars.append(left)
    if summary.counts[ERROR]:
        names.append("errors")
        bars.append(left - summary.counts[ERROR])
    figure, axes = _figure(6.4, 0.45 * len(bars) + 0.6)
    places = np.arange(len(bars))[::-1]
    axes.barh(places, bars, color=COLORS[KEPT], height=0.7)
    for place, count, before in zip(places, bars, [bars[0], *bars], strict=False):
        lost = f"  (-{before - count:,})" if before > count else ""
        axes.text(count, place, f" {count:,}{lost}", va="center", fontsize=9)
    axes.set_yticks(places, names)
    axes.set_xlim(0, summary.num_rows * 1.25 or 1)
    axes.set_xlabel("rows")
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def draw_values(summary: Summary, thresholds: Thresholds) -> list[tuple[str, str]]:
    """A histogram of each measured value, with its thresholds: (what it is, picture)."""
    return [(NAMES.get(name, name), _draw_value(name, found, thresholds)) for name, found in summary.values.items()]


def _draw_value(name: str, found: Measured, thresholds: Thresholds) -> str:
    figure, axes = _figure(4.2, 2.5)
    values, marks = np.array(found.values), np.array(found.marks)
    is_log = name in LOGARITHMIC and values.max() > 0 and values.max() > 20 * max(np.median(values), 1e-12)
    is_log = is_log and (values > 0).any()
    if is_log:
        low = values[values > 0].min()
        bins = np.geomspace(low, max(values.max(), low * 1.01), 41)
        values = np.maximum(values, low)
        axes.set_xscale("log")
    else:
        low, high = values.min(), values.max()
        bins = np.linspace(low, high if high > low else low + 1, 41)
    parts = [(status, values[marks == mark]) for mark, status in enumerate(STATUSES) if (marks == mark).any()]
    axes.hist(
        [part for _, part in parts],
        bins,
        stacked=True,
        color=[COLORS[s] for s, _ in parts],
        label=[s for s, _ in parts],
    )
    bounds = []
    for rule in (rule for rule in RULES if rule.value == name):
        threshold = getattr(getattr(thresholds, rule.section), rule.threshold)
        if threshold is not None:
            axes.axvline(threshold, color=LINE, linewidth=1.5)
            bounds.append(f"{'≥' if rule.least else '≤'} {threshold:g}")
    if bounds:
        axes.set_title(f"kept where {' and '.join(bounds)}", fontsize=9, color=LINE, loc="right")
    axes.set_xlabel(NAMES.get(name, name))
    axes.set_ylabel("rows")
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def draw_scores(summary: Summary) -> str | None:
    """Text quality against alignment less ambiguity of the best candidates, colored by the overall score."""
    if not summary.scores:
        return None
    figure, axes = _figure(4.6, 3.2)
    text, gap, overall = _thinned(np.array(summary.scores).reshape(-1, 3)).T
    points = axes.scatter(gap, text, c=overall, s=6, cmap="viridis", rasterized=True)
    figure.colorbar(points, label="overall score")
    axes.set_xlabel("alignment less ambiguity, at most 0")
    axes.set_ylabel("text quality T")
    if len(text) > 2 and np.ptp(text) > 0 and np.ptp(gap) > 0:
        axes.set_title(f"correlation {np.corrcoef(gap, text)[0, 1]:.2f}", fontsize=9)
    return _png(figure)


def draw_captions(summary: Summary) -> str | None:
    """How long candidates are, and how much their words' entropy is."""
    if not summary.words.values:
        return None
    figure, (left, right) = _figure(6.4, 2.5, columns=2)
    words, entropy = np.array(summary.words.values), np.array(summary.entropy.values)
    chosen = np.array(summary.words.marks) == 1
    for axes, values, name in ((left, words, "words"), (right, entropy, "entropy of words, bits")):
        bins = np.arange(0, words.max() + 2) - 0.5 if axes is left and words.max() < 60 else 40
        axes.hist(
            [values[chosen], values[~chosen]],
            bins,
            stacked=True,
            color=[COLORS[KEPT], COLORS[ERROR]],
            label=["chosen", "not"],
        )
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("candidates")
    right.legend(fontsize=8, frameon=False, loc="upper right")
    return _png(figure)


def draw_wins(summary: Summary) -> str | None:
    """How often the candidates of each style and captioner were chosen."""
    entries = [(by, name, counts) for (by, name), counts in summary.wins.items() if counts["candidates"]]
    if len({name for _, name, _ in entries}) < 2 or not any(counts["chosen"] for _, _, counts in entries):
        return None  # nothing to compare
    entries.sort(key=lambda entry: (entry[0] == "captioner", -entry[2]["chosen"] / entry[2]["candidates"]))
    figure, axes = _figure(6.4, 0.35 * len(entries) + 0.8)
    places = np.arange(len(entries))[::-1]
    shares = [100 * counts["chosen"] / counts["candidates"] for _, _, counts in entries]
    axes.barh(places, shares, color=[COLORS[KEPT] if by == "style" else "#5aa469" for by, _, _ in entries], height=0.7)
    for place, share, (_, _, counts) in zip(places, shares, entries, strict=True):
        axes.text(share, place, f" {share:.0f} % of {counts['candidates']:,}", va="center", fontsize=9)
    # in the user's words, in which a dollar is no formula
    axes.set_yticks(places, [f"{by}: {name}" for by, name, _ in entries], parse_math=False)
    axes.set_xlim(0, 1.25 * max(shares))  # room for the numbers
    axes.set_xlabel("chosen, % of its candidates")
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def draw_clips(summary: Summary, thresholds: Thresholds) -> str | None:
    """Motion against consistency of clips, with the region that is kept."""
    if not summary.clips:
        return None
    figure, axes = _figure(4.6, 3.2)
    clips = _thinned(summary.clips)
    for status in (KEPT, DROPPED, ERROR):
        points = [(motion, cosine) for motion, cosine, found in clips if found == status]
        if points:
            axes.scatter(*zip(*points, strict=True), s=8, color=COLORS[status], label=status, rasterized=True)
    for bound in (thresholds.motion.floor, thresholds.motion.ceiling):
        if bound is not None:
            axes.axvline(bound, color=LINE, linewidth=1)
    if thresholds.consistency.high is not None:
        axes.axhline(thresholds.consistency.high, color=LINE, linewidth=1)
    axes.set_xscale("symlog", linthresh=1e-4)
    axes.set_xlim(left=-3e-5)  # room for the points at 0, and no marks of what is less
    axes.set_xlabel(NAMES["motion"])
    axes.set_ylabel(NAMES["adjacent_mean"])
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    return _png(figure)


def _thinned(points: Any) -> Any:
    """At most `MAX_POINTS` of a list or of the rows of an array."""
    return points[:: max(1, -(-len(points) // MAX_POINTS))]


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    require("matplotlib", "curate")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    return figure, figure.subplots(1, columns)


@contextmanager
def no_glyph_warnings() -> Iterator[None]:
    """Keeps matplotlib from complaining of letters that its font lacks, which it draws as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def _png(figure: Any) -> str:
    buffer = io.BytesIO()
    with no_glyph_warnings():
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()
