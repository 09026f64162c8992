# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures of `tla_study.py`, from the summary that its report makes."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tla_study_measures import NEIGHBORS, ORDER
from tla_study_tasks import TASKS


COLORS = {
    "base": "tab:blue",
    "softmax": "tab:orange",
    "tla": "tab:green",
    "no_gate": "tab:red",
    "no_norm": "tab:brown",
    "no_rope": "tab:pink",
    "projection": "tab:olive",
    "none": "tab:gray",
}
TITLES = {
    "R@10": "R@10, %",
    NEIGHBORS: "k-NN, right classes, %",
    ORDER: "right order, %",
    "siglip": "SigLIP loss (less is better)",
}


def draw_study(path: Path, summary: Mapping[str, Any]) -> None:
    """A row a task: the loss over the steps, and what is measured at the end: a bar for the mean, a dot a seed."""
    tasks = summary["tasks"]
    figure = Figure(figsize=(15, 4.2 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), 4, width_ratios=(1.25, 1, 1, 1), squeeze=False)
    for (curves, *areas), (task, found) in zip(grid, tasks.items(), strict=True):
        for tower, values in found["towers"].items():
            curves.plot(*smooth(*values["curve"]), color=COLORS[tower], linewidth=1.2, label=values["label"])
        curves.set(title=f"{task.capitalize()}: SigLIP loss of training", xlabel="step (means of a tenth of all)")
        curves.legend(frameon=False, fontsize=8)
        names = [name for name in (*TASKS[task].measures[1:], "siglip") if name in found["towers"]["base"]]
        for axes, name in zip(areas, names, strict=False):
            draw_values(axes, list(found["towers"].items()), name)
            axes.set_title(f"Held out: {TITLES[name]}")
            if name == ORDER:
                axes.set_xlim(left=47)
            if name in found["chance"]:
                axes.axvline(100 * found["chance"][name], color="black", linewidth=0.8, linestyle=":")
            if axes is not areas[0]:
                axes.set_yticklabels([])
    figure.savefig(path, dpi=110)


def smooth(steps: Sequence[int], losses: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Running means over a tenth of a curve: packs differ more than towers do."""
    kernel = np.ones(max(1, len(steps) // 10))
    means = (np.convolve(values, kernel / len(kernel), "valid") for values in (steps, losses))
    return next(means), next(means)


def draw_values(axes: Axes, towers: Sequence[tuple[str, Mapping[str, Any]]], name: str) -> None:
    """A row a tower from the top down: a bar for the mean of shares, a stroke for that of losses, a dot a seed."""
    for row, (tower, values) in enumerate(towers):
        of_seeds = values[name] if name == "siglip" else [100 * value for value in values[name]["seeds"]]
        mean = statistics.fmean(of_seeds)
        if name == "siglip":  # an axis of losses does not begin at 0, so bars would mislead
            axes.plot(mean, row, "|", color=COLORS[tower], markersize=22, markeredgewidth=4, alpha=0.6)
        else:
            chance = 50 if name == ORDER else 0  # a bar shows what is more than guessing
            axes.barh(row, mean - chance, left=chance, color=COLORS[tower], alpha=0.45)
        axes.plot(of_seeds, [row] * len(of_seeds), "o", color="black", markersize=3)
    axes.set_yticks(range(len(towers)), [values["label"] for _, values in towers])
    axes.set_ylim(len(towers) - 0.5, -0.5)


def draw_sides(path: Path, summary: Mapping[str, Any]) -> None:
    """A row a task, its measures over the side of the drawings: a line for the mean, an area for all seeds."""
    tasks = summary["tasks"]
    figure = Figure(figsize=(11, 3.9 * len(tasks)), layout="constrained")
    for row, (task, found) in zip(figure.subplots(len(tasks), 2, squeeze=False), tasks.items(), strict=True):
        for axes, name in zip(row, TASKS[task].measures[1:], strict=True):
            draw_measure(axes, found, name)
            axes.axvspan(*TASKS[task].bounds, color="black", alpha=0.06, linewidth=0)
            axes.set(title=f"{task.capitalize()}: {TITLES[name]}", xlabel="longer side in pixels (gray: trained on)")
    figure.savefig(path, dpi=110)


def draw_measure(axes: Axes, found: Mapping[str, Any], name: str) -> None:
    """A line a tower over sides, and a dotted one for what guessing would reach where it does not depend on them."""
    for tower, values in found["at_sides"].items():
        sides = [int(side) for side in values if name in values[side]]
        if not sides:
            continue
        of_seeds = np.array([[100 * value for value in values[str(side)][name]["seeds"]] for side in sides])
        color, label = COLORS[tower], found["towers"][tower]["label"]
        axes.plot(sides, of_seeds.mean(1), marker="o", markersize=4, color=color, label=label)
        axes.fill_between(sides, of_seeds.min(1), of_seeds.max(1), color=color, alpha=0.15, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sides, [str(side) for side in sides])
    axes.minorticks_off()
    if name == ORDER:
        axes.axhline(50, color="black", linewidth=0.8, linestyle=":")
        axes.set_ylim(40, max(75.0, 1.05 * axes.dataLim.ymax))
    else:
        axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
    axes.legend(frameon=False)
