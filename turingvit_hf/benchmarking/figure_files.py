# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a benchmark's folder holds: figures that a later run adds to, a page, and a picture of bars."""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from turingvit_hf.benchmarking.report import (
    describe,
    environment,
    make_folder,
    read_figures,
    write_figures,
    write_text,
)
from turingvit_hf.benchmarking.timing import Timing
from turingvit_hf.errors import InputError


logger = logging.getLogger(__name__)

LEGEND = "Spread: how much longer the longest run took than the shortest. Per second: by the best run."
# figures that differ in one of these do not stand beside each other
IDENTITY = ("turingvit_hf", "torch", "transformers", "processor", "gpu", "threads", "clock")
COLORS = ("#00796b", "#4db6ac", "#d9480f", "#f4a261", "#5f3dc4", "#1971c2", "#c2255c", "#946200", "#868e96")


def begin_figures(out: Path | None, name: str, title: str, device: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of an earlier run in the same folder, or empty ones; where this one runs is logged.

    Args:
        out: the folder, which is made; None keeps nothing.
        name: of the files, without ending.
        title: of new figures.
        device: that is measured.
        settings: what a later run must have alike, beside the machine and the versions.

    Raises:
        InputError: the earlier ones are of another machine or setting.
    """
    now = environment(torch.device(device))
    logger.info("%s", describe(now))
    settings = {**settings, "device": device, **{key: now[key] for key in IDENTITY if key in now}}
    figures = None
    if out is not None:
        make_folder(out)
        figures = read_figures(out / f"{name}.json")
    if figures is None:
        return {"title": title, "settings": settings, "runs": {}}
    for key, value in settings.items():
        if (earlier := figures.get("settings", {}).get(key)) != value:
            raise InputError(
                f"{out} has figures with {key}={earlier!r}, this run has {value!r}: choose another folder"
            )
    return figures


def save_figures(figures: Mapping[str, Any], out: Path | None, name: str, page: str, bars: "Bars") -> None:
    """Writes JSON, markdown and, where matplotlib is installed, a PNG, each whole or not at all."""
    if out is None:
        return
    write_figures(out / f"{name}.json", figures)
    write_text(out / f"{name}.md", page)
    if importlib.util.find_spec("matplotlib") is None:
        logger.info("no %s.png: matplotlib is not installed: pip install 'turingvit_hf[plots]'", name)
        return
    bars.draw(out / f"{name}.png")


def timing_record(timing: Timing, num_images: int) -> dict[str, Any]:
    """What the file of figures has of one form."""
    return {
        "seconds": list(timing.seconds),
        "best": timing.best,
        "median": timing.median,
        "spread": timing.spread,
        "images_per_second": num_images / timing.best,
    }


class Bars:
    """Groups of horizontal bars, a panel for each.

    Args:
        title: of the picture.
        unit: of the values.
        groups: by title of the panel, by name of the bar, its value.
    """

    def __init__(self, title: str, unit: str, groups: Mapping[str, Mapping[str, float]]):
        self.title = title
        self.unit = unit
        self.groups = groups

    def draw(self, path: Path) -> None:
        """Writes the PNG, whole or not at all."""
        # not at the top: whoever measures without pictures needs no matplotlib
        import matplotlib
        from matplotlib.figure import Figure

        from turingvit_hf.training.demo.report import STYLE, tidy

        names: Sequence[str] = list(dict.fromkeys(name for group in self.groups.values() for name in group))
        with matplotlib.rc_context(STYLE):
            height = 1.6 + 0.34 * len(names)
            figure = Figure(figsize=(3.0 + 3.4 * len(self.groups), height), facecolor="white", layout="constrained")
            figure.suptitle(self.title, fontsize=12, fontweight="bold")
            for number, (axes, (title, group)) in enumerate(
                zip(figure.subplots(1, len(self.groups), squeeze=False)[0], self.groups.items(), strict=True)
            ):
                rows = [names.index(name) for name in group]
                axes.barh(rows, list(group.values()), color=[COLORS[row % len(COLORS)] for row in rows])
                for row, value in zip(rows, group.values(), strict=True):
                    axes.text(
                        value, row, f" {value:,.0f}" if value >= 100 else f" {value:.3g}", va="center", fontsize=8.5
                    )
                axes.set_yticks(range(len(names)), names if number == 0 else [""] * len(names))
                axes.invert_yaxis()
                axes.set_xlim(0, 1.18 * max(group.values()))
                axes.set_xlabel(self.unit)
                tidy(axes, title)
            partial = path.with_name(f".{path.name}.partial")
            figure.savefig(partial, dpi=120, format="png")
        partial.replace(path)
