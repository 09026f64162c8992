# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables and figures of `tla_study.py`, from the results of its runs."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tla_study_measures import DIRECTIONS, NEIGHBORS, with_interval

from turingvit_hf.evaluation.statistics import bootstrap_interval


COLORS = {
    "base": "tab:blue",
    "softmax": "tab:orange",
    "tla": "tab:green",
    "no_gate": "tab:red",
    "no_norm": "tab:brown",
    "no_rope": "tab:pink",
    "projection": "tab:olive",
    "none": "tab:gray",
    "no_rescale": "tab:purple",
}
HITS = (*(f"{way}_R@{k}" for k in (1, 5, 10) for way in DIRECTIONS), NEIGHBORS)
BOTH = "R@10"

Result = dict[str, Any]


def report(folder: Path, names: Sequence[str], *, trained_on: tuple[int, int]) -> None:
    """Prints the tables, and writes `study.json`, `tla_study.png` and `resolution.png`.

    Args:
        folder: of all runs.
        names: the runs, of which some may not be there.
        trained_on: the longer sides of the pictures of training, in pixels.
    """
    by_tower: dict[str, list[Result]] = {}
    for name in names:
        path = folder / f"{name}.json"
        if path.exists():
            tower = name.partition("/")[2]
            sides = folder / f"{name}.sides.json"
            result = {**read_json(path), "at_sides": read_json(sides) if sides.exists() else {}}
            by_tower.setdefault(tower, []).append(result)
    timing_file = folder / "timing.json"
    timing = read_json(timing_file) if timing_file.exists() else {}
    summary = {
        "towers": {tower: summarize(results, by_tower["base"]) for tower, results in by_tower.items()},
        "at_sides": {tower: at_sides for tower, results in by_tower.items() if (at_sides := summarize_sides(results))},
        "milliseconds": timing,
    } | common(by_tower)
    (folder / "study.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(as_markdown(summary))
    draw_study(folder / "tla_study.png", by_tower, summary)
    draw_sides(folder / "resolution.png", summary, trained_on=trained_on)
    print(f"wrote {folder / 'study.json'}, {folder / 'tla_study.png'} and {folder / 'resolution.png'}")


def read_json(path: Path) -> dict[str, Any]:
    """The content of a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def common(by_tower: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """What holds for all towers: how many held-out pictures, and what guessing would reach.

    Raises:
        ValueError: towers of a seed saw different data.
    """
    seen: dict[int, set[tuple[int, int]]] = {}
    for results in by_tower.values():
        for result in results:
            seen.setdefault(result["seed"], set()).add((result["num_images"], result["num_patches"]))
    if any(len(counts) > 1 for counts in seen.values()):
        raise ValueError(f"towers of one seed have seen different numbers of images and patches: {seen}")
    first = by_tower["base"][0]
    num_pictures = len(first["measured"]["hits"]["image_to_text_R@1"])
    return {
        "seen": {seed: dict(zip(("images", "patches"), *counts, strict=True)) for seed, counts in seen.items()},
        "num_steps": first["num_steps"],
        "held_out": num_pictures,
        "held_out_with_class": len(first["measured"]["hits"][NEIGHBORS]),
        "chance": {f"R@{k}": k / num_pictures for k in (1, 5, 10) if k <= num_pictures}
        | {NEIGHBORS: first["largest_class"]},
    }


def summarize(results: Sequence[Result], base: Sequence[Result]) -> dict[str, Any]:
    """Of each measurement the values of all seeds, and of hits the difference from the base tower, with intervals."""
    measured = [result["measured"] for result in results]
    base_of = {result["seed"]: result["measured"] for result in base}
    values: dict[str, Any] = {
        "label": results[0]["label"],
        "seeds": [result["seed"] for result in results],
        "learning_rate": results[0]["learning_rate"],
        "tower_parameters": results[0]["tower_parameters"],
        "training_seconds": [result["training_seconds"] for result in results],
        "siglip": [found["siglip"] for found in measured],
        "siglip_of_training": [last_losses(result) for result in results],
    }
    shared = [result["seed"] for result in results if result["seed"] in base_of]
    for name, hits in all_hits(measured).items():
        values[name] = {"seeds": [float(row.mean()) for row in hits], **with_interval(hits.mean(0).tolist())}
        base_hits = all_hits([base_of[seed] for seed in shared])[name]
        of_shared = np.stack([row for row, result in zip(hits, results, strict=True) if result["seed"] in shared])
        difference = (of_shared - base_hits).mean(0)
        low, high = bootstrap_interval(difference)
        values[name]["minus_base"] = {"value": float(difference.mean()), "low": low, "high": high}
    return values


def last_losses(result: Result) -> float:
    """The mean SigLIP loss of the last third of training. Towers of one seed have it of the same packs."""
    steps = [(logs["step"], logs["siglip"]) for logs in result["history"] if "siglip" in logs]
    return statistics.fmean(loss for step, loss in steps if 3 * step > 2 * steps[-1][0])


def all_hits(measured: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Hits (seeds, pictures) by name; `R@10` is the mean of both directions."""
    found = {name: np.array([each["hits"][name] for each in measured]) for name in HITS if name in measured[0]["hits"]}
    return found | {
        f"R@{k}": (found[f"{DIRECTIONS[0]}_R@{k}"] + found[f"{DIRECTIONS[1]}_R@{k}"]) / 2
        for k in (1, 5, 10)
        if f"{DIRECTIONS[0]}_R@{k}" in found
    }


def summarize_sides(results: Sequence[Result]) -> dict[str, Any]:
    """The same at each side of the drawings."""
    measured_at = [result["at_sides"] for result in results if result["at_sides"]]
    sides: dict[str, Any] = {}
    for side in measured_at[0] if measured_at else ():
        measured = [at_sides[side] for at_sides in measured_at]
        sides[side] = {"siglip": [found["siglip"] for found in measured]}
        for name, hits in all_hits(measured).items():
            sides[side][name] = {
                "seeds": [float(row.mean()) for row in hits],
                **with_interval(hits.mean(0).tolist()),
            }
    return sides


def spread(values: Sequence[float], *, percent: bool = True) -> str:
    """Mean, smallest and largest over seeds."""
    numbers = (statistics.fmean(values), min(values), max(values))
    mean, low, high = (f"{100 * number:.1f}" if percent else f"{number:.3f}" for number in numbers)
    return f"{mean} ({low}-{high})" if len(values) > 1 else mean


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The tables in Markdown; cells have the mean over seeds, the smallest and the largest."""
    tables = [as_table(summary)]
    if summary["milliseconds"]:
        tables.append(as_times(summary))
    tables += [table for name in (BOTH, NEIGHBORS) if (table := as_sides(summary, name))]
    return "\n".join(tables)


def as_table(summary: Mapping[str, Any]) -> str:
    """A row a tower, with what was measured after training and the differences from the base tower."""
    names = [name for name in ("R@1", "R@10", NEIGHBORS) if name in summary["towers"]["base"]]
    compared = names[-2:]
    titles = ["tower", "rate", "seeds", "parameters", "loss, trained", "loss, held out", *names]
    titles += [f"{name} less that of 5 : 1" for name in compared]
    rows = []
    for tower, values in summary["towers"].items():
        first = [values["label"], f"{values['learning_rate']:g}", str(len(values["seeds"]))]
        first.append(f"{values['tower_parameters']:,}")
        losses = [spread(values[name], percent=False) for name in ("siglip_of_training", "siglip")]
        shares = [spread(values[name]["seeds"]) for name in names]
        of_base = [difference(values[name]["minus_base"]) if tower != "base" else "" for name in compared]
        rows.append([*first, *losses, *shares, *of_base])
    return markdown_table(titles, rows)


def as_times(summary: Mapping[str, Any]) -> str:
    """A row a tower, its milliseconds in each form."""
    forms = summary["milliseconds"]
    rows = [
        [summary["towers"][tower]["label"], *(f"{times[tower]:.0f}" for times in forms.values())]
        for tower in next(iter(forms.values()))
    ]
    return markdown_table(["ms", *forms], rows)


def as_sides(summary: Mapping[str, Any], name: str) -> str:
    """A row a tower, one measurement at all sides; empty where it was not measured."""
    found = {tower: sides for tower, sides in summary["at_sides"].items() if name in next(iter(sides.values()))}
    if not found:
        return ""
    sides = list(next(iter(found.values())))
    rows = [
        [summary["towers"][tower]["label"], *(spread(values[side][name]["seeds"]) for side in sides)]
        for tower, values in found.items()
    ]
    return markdown_table([name, *sides], rows)


def difference(values: Mapping[str, float]) -> str:
    """A difference of shares with its interval, in points."""
    return "{value:+.1f} [{low:+.1f}, {high:+.1f}]".format(**{key: 100 * value for key, value in values.items()})


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw_study(path: Path, by_tower: Mapping[str, Sequence[Result]], summary: Mapping[str, Any]) -> None:
    """The loss over the steps, and what is measured at the end: a bar for the mean, a dot a seed."""
    figure = Figure(figsize=(15, 4.4), layout="constrained")
    curves, *areas = figure.subplots(1, 4, width_ratios=(1.25, 1, 1, 1))
    compared = [tower for tower in by_tower if "-" not in tower]
    for tower in compared:
        steps, losses = mean_curve(by_tower[tower])
        curves.plot(steps, losses, color=COLORS[tower], linewidth=1.2, label=summary["towers"][tower]["label"])
    curves.set(title="SigLIP loss of training", xlabel="step")
    curves.legend(frameon=False, fontsize=8)
    titles = {BOTH: "R@10, %", NEIGHBORS: "k-NN, right classes, %", "siglip": "SigLIP loss (less is better)"}
    for axes, (name, title) in zip(areas, titles.items(), strict=True):
        towers = [(tower, summary["towers"][tower]) for tower in compared]
        draw_values(axes, [(tower, values) for tower, values in towers if name in values], name)
        axes.set_title(f"Held out: {title}")
        if name in summary["chance"]:
            axes.axvline(100 * summary["chance"][name], color="black", linewidth=0.8, linestyle=":")
        if axes is not areas[0]:
            axes.set_yticklabels([])
    figure.savefig(path, dpi=110)


def draw_values(axes: Axes, towers: Sequence[tuple[str, Mapping[str, Any]]], name: str) -> None:
    """A row a tower from the top down: a bar for the mean of shares, a stroke for that of losses, a dot a seed."""
    for row, (tower, values) in enumerate(towers):
        of_seeds = values[name] if name == "siglip" else [100 * value for value in values[name]["seeds"]]
        mean = statistics.fmean(of_seeds)
        if name == "siglip":  # an axis of losses does not begin at 0, so bars would mislead
            axes.plot(mean, row, "|", color=COLORS[tower], markersize=22, markeredgewidth=4, alpha=0.6)
        else:
            axes.barh(row, mean, color=COLORS[tower], alpha=0.45)
        axes.plot(of_seeds, [row] * len(of_seeds), "o", color="black", markersize=3)
    axes.set_yticks(range(len(towers)), [values["label"] for _, values in towers])
    axes.set_ylim(len(towers) - 0.5, -0.5)


def mean_curve(results: Sequence[Result]) -> tuple[list[int], list[float]]:
    """Steps that every seed has logged, and the SigLIP loss of training, means over seeds.

    A training that was stopped has logged the step that it stopped at as well.
    """
    losses: dict[int, list[float]] = {}
    for result in results:
        for logs in result["history"]:
            if "siglip" in logs:
                losses.setdefault(logs["step"], []).append(logs["siglip"])
    steps = sorted(step for step, found in losses.items() if len(found) == len(results))
    return steps, [statistics.fmean(losses[step]) for step in steps]


def draw_sides(path: Path, summary: Mapping[str, Any], *, trained_on: tuple[int, int]) -> None:
    """R@10 and nearest neighbors over the side of the drawings: a line for the mean, an area for all seeds."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), (BOTH, NEIGHBORS), strict=True):
        for tower, values in summary["at_sides"].items():
            sides = [int(side) for side in values if name in values[side]]
            of_seeds = np.array([[100 * value for value in values[str(side)][name]["seeds"]] for side in sides])
            color = COLORS[tower]
            label = summary["towers"][tower]["label"]
            axes.plot(sides, of_seeds.mean(1), marker="o", markersize=4, color=color, label=label)
            axes.fill_between(sides, of_seeds.min(1), of_seeds.max(1), color=color, alpha=0.15, linewidth=0)
        axes.axvspan(*trained_on, color="black", alpha=0.06, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sides, [str(side) for side in sides])
        axes.minorticks_off()
        axes.set(title=f"{name} of held-out drawings, %", xlabel="longer side in pixels (gray: trained on)")
        axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
