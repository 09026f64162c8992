# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The figures of `turingvit benchmark latency` as a picture in the manner of the report's latency figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from turingvit_hf.benchmarking.operations import KINDS
from turingvit_hf.benchmarking.report_curve import MILLISECONDS, NAMES, SETTING


# one color for each tower and kind of operation, whatever else is measured
COLORS = {
    "turingvit-18l": "#00796b",
    "turingvit-24l": "#4db6ac",
    "siglip2-l": "#d9480f",
    "siglip2-l-naflex": "#f4a261",
    "seed1.5-like": "#5f3dc4",
    "dinov3-l": "#1971c2",
    "qwen3-vl": "#c2255c",
    "naflexvit-l": "#946200",
}
OTHERS = ("#495057", "#868e96", "#adb5bd")
KIND_COLORS = dict(zip(KINDS, ("#00796b", "#d9480f", "#4db6ac", "#f2b705", "#9aa5b1", "#dee2e6"), strict=True))
DARK_KINDS = ("matrix products", "softmax attention")
REPORT_COLOR = "#868e96"


def draw_latency(figures: Mapping[str, Any], path: Path) -> None:
    """Draws times over resolution, multiples of the first tower's beside the report's, and shares of operations.

    Args:
        figures: as `latency.json` has them.
        path: of the PNG; written whole or not at all, and not where no tower has figures.
    """
    # not at the top: whoever measures without pictures needs no matplotlib
    import matplotlib
    from matplotlib.figure import Figure

    from turingvit_hf.training.demo.report import STYLE

    if not _measured(figures):
        return
    side, shares = _shares(figures)
    with matplotlib.rc_context(STYLE):
        # inches from the top: title, two plots, bars
        bars = 1.25 + 0.32 * len(shares) if shares else 0.0
        height = 5.6 + bars
        figure = Figure(figsize=(12.5, height), facecolor="white")
        figure.text(0.02, 1 - 0.32 / height, _title(figures), fontsize=14, fontweight="bold", va="center")
        above = figure.add_gridspec(
            1, 2, left=0.055, right=0.86, top=1 - 1.05 / height, bottom=1 - 4.85 / height, wspace=0.15
        )
        _draw_times(figure.add_subplot(above[0]), figures)
        _draw_multiples(figure.add_subplot(above[1]), figures)
        if shares:
            below = figure.add_gridspec(
                1, 1, left=0.12, right=0.97, top=1 - (height - bars + 0.55) / height, bottom=0.55 / height
            )
            _draw_shares(figure.add_subplot(below[0]), shares, side)
        partial = path.with_name(f".{path.name}.partial")
        figure.savefig(partial, dpi=120, format="png")
    partial.replace(path)


def _title(figures: Mapping[str, Any]) -> str:
    settings = figures["settings"]
    where = settings.get("gpu") or f"{settings['processor']}, {settings['threads']} threads".replace(
        " 1 threads", " 1 thread"
    )
    batch = "" if settings["batch"] == 1 else f", batches of {settings['batch']}"
    return f"Forward pass over resolution: {where}, {settings['dtype']}, {settings['mode']}{batch}"


def _color(name: str, figures: Mapping[str, Any]) -> str:
    unknown = [tower for tower in figures["towers"] if tower not in COLORS]
    return COLORS.get(name) or OTHERS[unknown.index(name) % len(OTHERS) if name in unknown else 0]


def _series(figures: Mapping[str, Any], name: str) -> list[tuple[int, Mapping[str, Any]]]:
    """(side, figures) of a tower."""
    return [
        (int(side), record["towers"][name]) for side, record in figures["sides"].items() if name in record["towers"]
    ]


def _measured(figures: Mapping[str, Any]) -> list[str]:
    """Names of towers with figures, the slowest at the largest side first, as lines lie in the picture."""
    names = [name for name in figures["towers"] if _series(figures, name)]
    return sorted(names, key=lambda name: -_series(figures, name)[-1][1]["median"])


def _draw_times(axes: Any, figures: Mapping[str, Any]) -> None:
    """Milliseconds an image: the median as a line, all runs as a band."""
    from turingvit_hf.training.demo.report import tidy

    batch = figures["settings"]["batch"]
    longest = max(tower["median"] for name in _measured(figures) for _, tower in _series(figures, name)) / batch
    unit, factor = ("s", 1.0) if longest > 5 else ("ms", 1e3)
    for name in _measured(figures):
        series = _series(figures, name)
        sides = [side for side, _ in series]
        bounds = [[factor * pick(tower["seconds"]) / batch for _, tower in series] for pick in (min, max)]
        values = [factor * tower["median"] / batch for _, tower in series]
        is_ours = name == figures["baseline"]
        color = _color(name, figures)
        axes.fill_between(sides, *bounds, color=color, alpha=0.18, linewidth=0)
        axes.plot(
            sides, values, color=color, label=name, marker="o", markersize=5 if is_ours else 4,
            linewidth=2.6 if is_ours else 1.6, zorder=3 if is_ours else 2,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{unit} an image, median; band: all runs")
    _set_sides(axes, figures)
    tidy(axes, "Time")
    axes.legend(frameon=False, fontsize=9, loc="upper left")


def _draw_multiples(axes: Any, figures: Mapping[str, Any]) -> None:
    """How many times as long as the first tower the others take, and in the report."""
    from turingvit_hf.training.demo.report import tidy

    baseline = figures["baseline"]
    sides = [int(side) for side in figures["sides"]]
    lines = {name: ([], _color(name, figures)) for name in _measured(figures) if name != baseline}
    for side, entries in figures["comparisons"]["ratios"].items():
        for name, ratio in entries.items():
            lines[name][0].append((int(side), ratio["best"]))
    for points, color in lines.values():
        if points:
            axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=4, linewidth=1.6)
    axes.plot([min(sides), max(sides)], [1, 1], color=_color(baseline, figures), linewidth=2.6)
    reported = _reported(baseline, sides)
    for points in reported.values():
        axes.plot(*zip(*points, strict=True), color=REPORT_COLOR, linestyle=(0, (4, 3)), linewidth=1.4, zorder=1)
    _set_sides(axes, figures)
    highest = max([1.0, *(value for points, _ in lines.values() for _, value in points)])
    highest = max([highest, *(value for points in reported.values() for _, value in points)])
    axes.set_ylim(0, 1.12 * highest)
    ends = [(points[-1], f"{points[-1][1]:.2f}  {name}", color) for name, (points, color) in lines.items() if points]
    ends += [(points[-1], f"{points[-1][1]:.2f}  {name}, report", REPORT_COLOR) for name, points in reported.items()]
    _name_ends(axes, ends, 0.045 * 1.12 * highest)
    tidy(axes, f"Times as long as {baseline}, best runs")
    if reported:
        axes.plot([], [], color=REPORT_COLOR, linestyle=(0, (4, 3)), linewidth=1.4, label=SETTING)
        axes.legend(frameon=False, fontsize=8.5, loc="lower left", labelcolor=REPORT_COLOR)


def _reported(baseline: str, sides: Sequence[int]) -> dict[str, list[tuple[int, float]]]:
    """The report's own curves as multiples of its curve of the baseline, within the sides that were measured."""
    ours = MILLISECONDS.get(NAMES.get(baseline, ""), {})
    curves = {
        name: [(side, time / ours[side]) for side, time in times.items() if min(sides) <= side <= max(sides)]
        for name, times in MILLISECONDS.items()
        if ours and times is not ours
    }
    return {name: points for name, points in curves.items() if points}


def _name_ends(axes: Any, ends: list[tuple[tuple[int, float], str, str]], distance: float) -> None:
    """Writes the name of each line behind its last point, as far apart as letters need.

    Args:
        axes: of the plot.
        ends: (side, value), text and color of each line.
        distance: between two texts, in units of the values.
    """
    lowest = float("-inf")
    for (side, value), text, color in sorted(ends):
        lowest = max(value, lowest + distance)
        axes.annotate(
            text,
            (side, lowest),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=color,
            annotation_clip=False,
        )


def _set_sides(axes: Any, figures: Mapping[str, Any]) -> None:
    """Ticks at the sides that were measured, with their numbers of patches."""
    from turingvit_hf.training.demo.report import GRID

    sides = [int(side) for side in figures["sides"]]
    axes.set_xticks(sides, [f"{side}²\n{record['patches']:,}" for side, record in figures["sides"].items()])
    axes.set_xlabel("pixels, and patches of an image")
    axes.grid(axis="y", color=GRID, linewidth=0.8)


def _shares(figures: Mapping[str, Any]) -> tuple[str, dict[str, Mapping[str, float]]]:
    """The largest side that has shares of operations, and those of each tower there."""
    for side, record in reversed(list(figures["sides"].items())):
        found = {name: tower["operations"] for name, tower in record["towers"].items() if "operations" in tower}
        if found:
            return side, found
    return "", {}


def _draw_shares(axes: Any, shares: Mapping[str, Mapping[str, float]], side: str) -> None:
    """A bar for each tower, divided by kind of operation."""
    from turingvit_hf.training.demo.report import tidy

    names = list(shares)[::-1]
    left = [0.0] * len(names)
    for kind in KINDS:
        widths = [100 * shares[name][kind] for name in names]
        axes.barh(names, widths, left=left, color=KIND_COLORS[kind], label=kind, height=0.74)
        ink = "white" if kind in DARK_KINDS else "#212529"
        for row, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width >= 3:
                middle = start + width / 2
                axes.text(middle, row, f"{width:.0f}", ha="center", va="center", fontsize=8.5, color=ink)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.5, len(names) - 0.5)
    tidy(axes, f"Share of time at {side} x {side}, percent")
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    axes.legend(
        frameon=False,
        fontsize=9,
        ncols=len(KINDS),
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=1.2,
    )
