# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The picture that a quickstart leaves behind: loss curve, recall beside chance, and queries with what they found."""

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image


INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
ACCENT, RIGHT, BEFORE = "#2563eb", "#16a34a", "#cbd2d9"
NUM_RETRIEVED = 5
STYLE = {"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "axes.labelcolor": MUTED}


@dataclass(frozen=True)
class Query:
    """A text, the pictures that were found for it, best first, and which of them are right."""

    text: str
    images: Sequence[Image.Image]
    is_right: Sequence[bool]


def write_report(
    path: Path,
    *,
    title: str,
    losses: Sequence[tuple[int, float]],
    before: dict[str, float],
    after: dict[str, float],
    queries: Sequence[Query],
) -> None:
    """Writes the report as a PNG.

    Args:
        path: the file to write.
        title: one line, above everything.
        losses: (step, loss) in order of steps.
        before: metrics of `evaluation.retrieval.retrieval_metrics` before training, with k = 1 and 5.
        after: the same after training.
        queries: the rows of the grid, each with up to five pictures.
    """
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # captions in a script that the font lacks are drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        top, row_height = 4.6, 1.5
        height = top + row_height * len(queries) + 0.7
        figure = Figure(figsize=(11, height), facecolor="white")
        figure.text(0.05, 1 - 0.42 / height, title, fontsize=15, fontweight="bold", va="center")
        areas = figure.add_gridspec(1, 2, left=0.07, right=0.95, top=1 - 1.15 / height, bottom=1 - 3.85 / height)
        _draw_losses(figure.add_subplot(areas[0]), losses)
        _draw_recalls(figure.add_subplot(areas[1]), before, after)
        heading = "Text queries and the held-out pictures found for them, best first; the right one is framed"
        figure.text(0.05, 1 - (top - 0.1) / height, heading, fontsize=11, fontweight="bold", va="center")
        grid = figure.add_gridspec(
            len(queries),
            NUM_RETRIEVED + 1,
            width_ratios=[1.9] + [1] * NUM_RETRIEVED,
            left=0.05,
            right=0.95,
            top=1 - (top + 0.2) / height,
            bottom=0.3 / height,
            hspace=0.1,
            wspace=0.08,
        )
        for row, query in enumerate(queries):
            _draw_query([figure.add_subplot(grid[row, column]) for column in range(NUM_RETRIEVED + 1)], query)
        figure.savefig(path, dpi=110, format="png")


def _draw_losses(axes: Axes, losses: Sequence[tuple[int, float]]) -> None:
    steps, values = zip(*losses, strict=True)
    axes.plot(steps, values, color=ACCENT, linewidth=1.8)
    axes.fill_between(steps, values, 0, color=ACCENT, alpha=0.07)
    axes.set(xlabel="step", ylim=(0, None), xlim=(0, max(steps)))
    tidy(axes, "SigLIP loss")
    axes.grid(axis="y", color=GRID, linewidth=0.8)


def _draw_recalls(axes: Axes, before: dict[str, float], after: dict[str, float]) -> None:
    kinds = [(d, k) for k in (1, 5) for d in ("image_to_text", "text_to_image")]
    highest = max(after[f"{direction}_R@{k}"] for direction, k in kinds)
    for place, (direction, k) in enumerate(kinds):
        recall, chance = after[f"{direction}_R@{k}"], after[f"{direction}_chance@{k}"]
        axes.bar(place - 0.2, before[f"{direction}_R@{k}"], width=0.32, color=BEFORE)
        axes.bar(place + 0.16, recall, width=0.36, color=ACCENT)
        axes.plot([place - 0.42, place + 0.42], [chance, chance], color=INK, linewidth=1.4, linestyle=(0, (2, 1.5)))
        label = f"{recall:.0%}\n{recall / chance:.0f} x chance"
        axes.text(place + 0.16, recall + highest * 0.03, label, ha="center", va="bottom", fontsize=8.5)
    handles = [
        axes.bar(0, 0, color=BEFORE, label="before"),
        axes.bar(0, 0, color=ACCENT, label="after"),
        *axes.plot([], [], color=INK, linewidth=1.4, linestyle=(0, (2, 1.5)), label="chance"),
    ]
    axes.legend(handles=handles, frameon=False, fontsize=8.5, loc="upper left", handlelength=1.4)
    names = [f"{direction.replace('_to_', ' → ')}\nR@{k}" for direction, k in kinds]
    axes.set_xticks(range(len(kinds)), names, color=INK, fontsize=9)
    axes.set(ylim=(0, max(highest, 0.01) * 1.32))
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    tidy(axes, "Recall on held-out pairs")


def _draw_query(row: Sequence[Axes], query: Query) -> None:
    for axes in row:
        axes.set_axis_off()
    text = textwrap.shorten(query.text, 160, placeholder=" …")
    row[0].text(0, 0.5, textwrap.fill(text, 30), va="center", fontsize=9.5, linespacing=1.35, parse_math=False)
    for axes, image, is_right in zip(row[1:], query.images, query.is_right, strict=False):
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        axes.imshow(_on_square(image), interpolation="lanczos")
        for spine in axes.spines.values():
            spine.set(color=RIGHT if is_right else GRID, linewidth=3.5 if is_right else 1)


def _on_square(image: Image.Image) -> Image.Image:
    """The picture centered on a light square, so that all cells of the grid are of one size."""
    side = round(1.08 * max(image.size))
    square = Image.new("RGB", (side, side), "#f8f9fa")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def tidy(axes: Axes, title: str) -> None:
    """Gives a plot its title and takes away what draws the eye from the data."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=10)
    axes.tick_params(colors=MUTED, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
