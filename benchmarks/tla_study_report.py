# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables of `tla_study.py`, from the results of its runs, and what its figures show."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tla_study_figures import draw_sides, draw_study
from tla_study_measures import DIRECTIONS, NEIGHBORS, ORDER, with_interval
from tla_study_tasks import SCENES, TASKS, Run

from turingvit_hf.evaluation.statistics import bootstrap_interval


HITS = (*(f"{way}_R@{k}" for k in (1, 5, 10) for way in DIRECTIONS), NEIGHBORS, ORDER)
# order in scenes of pictures that were seen in training
ORDER_SEEN = f"{ORDER}, seen"

Result = dict[str, Any]


def report(folder: Path, runs: Sequence[Run]) -> None:
    """Prints the tables, and writes `study.json`, `tla_study.png` and `resolution.png`.

    Args:
        folder: of all runs.
        runs: of which some may not be there.
    """
    tasks: dict[str, dict[str, list[Result]]] = {}
    for run in runs:
        path, sides = folder / f"{run.name}.json", folder / f"{run.name}.sides.json"
        if path.exists():
            result = {**read_json(path), "at_sides": read_json(sides) if sides.exists() else {}}
            tasks.setdefault(run.task.name, {}).setdefault(run.variant, []).append(result)
    timing_file = folder / "timing.json"
    summary = {
        "tasks": {name: summarize_task(name, by_tower) for name, by_tower in tasks.items()},
        "milliseconds": read_json(timing_file) if timing_file.exists() else {},
    }
    (folder / "study.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(as_markdown(summary))
    draw_study(folder / "tla_study.png", summary)
    draw_sides(folder / "resolution.png", summary)
    print(f"wrote {folder / 'study.json'}, {folder / 'tla_study.png'} and {folder / 'resolution.png'}")


def summarize_task(name: str, by_tower: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """Everything that tables and figures show of a task.

    Args:
        name: of the task.
        by_tower: the results of each tower; `"base"` is among them.
    """
    # both orders of a scene are one draw
    per_draw = 2 if name == SCENES.name else 1
    towers = {tower: summarize(results, by_tower["base"], per_draw) for tower, results in by_tower.items()}
    at_sides = {tower: summarize_sides(results, per_draw) for tower, results in by_tower.items()}
    return {"towers": towers, "at_sides": {tower: sides for tower, sides in at_sides.items() if sides}} | common(
        by_tower
    )


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
        "held_out_with_class": len(first["measured"]["hits"].get(NEIGHBORS, ())),
        "chance": {f"R@{k}": k / num_pictures for k in (1, 5, 10) if k <= num_pictures}
        | ({NEIGHBORS: first["largest_class"]} if "largest_class" in first else {ORDER: 0.5, ORDER_SEEN: 0.5}),
    }


def summarize(results: Sequence[Result], base: Sequence[Result], per_draw: int) -> dict[str, Any]:
    """Of each measurement the values of all seeds, and of hits the difference from the base tower, with intervals.

    Args:
        results: of the seeds of a tower.
        base: of the base tower.
        per_draw: so many pictures, one after the other, are drawn together for intervals.
    """
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
        "curve": mean_curve(results),
    }
    if "measured_seen" in results[0]:
        hits = [np.mean(result["measured_seen"]["hits"][ORDER]) for result in results]
        values[ORDER_SEEN] = {"seeds": [float(share) for share in hits]}
    shared = [result["seed"] for result in results if result["seed"] in base_of]
    for name, hits in all_hits(measured, per_draw).items():
        values[name] = {"seeds": [float(row.mean()) for row in hits], **with_interval(hits.mean(0).tolist())}
        base_hits = all_hits([base_of[seed] for seed in shared], per_draw)[name]
        of_shared = np.stack([row for row, result in zip(hits, results, strict=True) if result["seed"] in shared])
        difference = (of_shared - base_hits).mean(0)
        low, high = bootstrap_interval(difference)
        values[name]["minus_base"] = {"value": float(difference.mean()), "low": low, "high": high}
    return values


def last_losses(result: Result) -> float:
    """The mean SigLIP loss of the last third of training. Towers of one seed have it of the same packs."""
    steps = [(logs["step"], logs["siglip"]) for logs in result["history"] if "siglip" in logs]
    return statistics.fmean(loss for step, loss in steps if 3 * step > 2 * steps[-1][0])


def all_hits(measured: Sequence[Mapping[str, Any]], per_draw: int) -> dict[str, np.ndarray]:
    """Hits (seeds, draws) by name, means over what is drawn together; `R@10` is the mean of both directions."""
    found = {
        name: np.array([each["hits"][name] for each in measured]).reshape(len(measured), -1, per_draw).mean(2)
        for name in HITS
        if name in measured[0]["hits"]
    }
    return found | {
        f"R@{k}": (found[f"{DIRECTIONS[0]}_R@{k}"] + found[f"{DIRECTIONS[1]}_R@{k}"]) / 2
        for k in (1, 5, 10)
        if f"{DIRECTIONS[0]}_R@{k}" in found
    }


def summarize_sides(results: Sequence[Result], per_draw: int) -> dict[str, Any]:
    """The same at each side of the drawings, without intervals."""
    measured_at = [result["at_sides"] for result in results if result["at_sides"]]
    sides: dict[str, Any] = {}
    for side in measured_at[0] if measured_at else ():
        measured = [at_sides[side] for at_sides in measured_at]
        sides[side] = {"siglip": [found["siglip"] for found in measured]}
        for name, hits in all_hits(measured, per_draw).items():
            sides[side][name] = {"seeds": [float(row.mean()) for row in hits]}
    return sides


def spread(values: Sequence[float], *, percent: bool = True) -> str:
    """Mean, smallest and largest over seeds."""
    numbers = (statistics.fmean(values), min(values), max(values))
    mean, low, high = (f"{100 * number:.1f}" if percent else f"{number:.3f}" for number in numbers)
    return f"{mean} ({low}-{high})" if len(values) > 1 else mean


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The tables in Markdown; cells have the mean over seeds, the smallest and the largest."""
    tables = []
    for name, found in summary["tasks"].items():
        tables.append(as_table(name, found))
        tables += [table for measure in TASKS[name].measures[1:] if (table := as_sides(found, measure))]
    if summary["milliseconds"]:
        tables.append(as_times(summary))
    return "\n".join(tables)


def as_table(task: str, found: Mapping[str, Any]) -> str:
    """A row a tower, with what was measured after training and the differences from the base tower."""
    names = [name for name in TASKS[task].measures if name in found["towers"]["base"]]
    compared = names[-2:]
    names += [ORDER_SEEN] if ORDER_SEEN in found["towers"]["base"] else []
    titles = ["tower", "seeds", "loss, trained", "loss, held out", *names]
    titles += [f"{name} less that of 5 : 1" for name in compared]
    rows = []
    for tower, values in found["towers"].items():
        losses = [spread(values[name], percent=False) for name in ("siglip_of_training", "siglip")]
        shares = [spread(values[name]["seeds"]) for name in names]
        of_base = [difference(values[name]["minus_base"]) if tower != "base" else "" for name in compared]
        rows.append([values["label"], str(len(values["seeds"])), *losses, *shares, *of_base])
    return markdown_table(titles, rows)


def as_times(summary: Mapping[str, Any]) -> str:
    """A row a tower, its parameters and its milliseconds in each form."""
    forms = summary["milliseconds"]
    towers = next(iter(summary["tasks"].values()))["towers"]
    rows = [
        [towers[name]["label"], f"{towers[name]['tower_parameters']:,}"]
        + [f"{times[name]:.0f}" for times in forms.values()]
        for name in next(iter(forms.values()))
        if name in towers
    ]
    return markdown_table(["ms", "parameters", *forms], rows)


def as_sides(found: Mapping[str, Any], name: str) -> str:
    """A row a tower, one measurement at all sides; empty where it was not measured."""
    measured = {tower: sides for tower, sides in found["at_sides"].items() if name in next(iter(sides.values()))}
    if not measured:
        return ""
    sides = list(next(iter(measured.values())))
    rows = [
        [found["towers"][tower]["label"], *(spread(values[side][name]["seeds"]) for side in sides)]
        for tower, values in measured.items()
    ]
    return markdown_table([name, *sides], rows)


def difference(values: Mapping[str, float]) -> str:
    """A difference of shares with its interval, in points."""
    return "{value:+.1f} [{low:+.1f}, {high:+.1f}]".format(**{key: 100 * value for key, value in values.items()})


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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
