# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Results as a table in the manner of the TuringViT report's, its columns beside ours."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


logger = logging.getLogger(__name__)

# Percent, as the project page of the report prints them (https://turingvit.github.io); none of them was measured here.
REPORTED_MODELS = ("MobileCLIP2-L", "SigLIP2-L", "Seed1.5-ViT", "TuringViT-18L", "TuringViT-24L")
REPORTED: dict[tuple[str, str], tuple[float | None, ...]] = {
    ("imagenet-1k", "top1"): (81.9, 83.1, 83.6, 83.1, 83.9),
    ("imagenet-v2", "top1"): (74.7, 77.4, 77.6, 77.6, 78.0),
    ("objectnet", "top1"): (75.3, 84.4, 79.2, 79.7, 81.1),
    ("imagenet-a", "top1"): (69.0, 84.3, 85.5, 87.9, 89.7),
    ("imagenet-r", "top1"): (91.7, 95.7, 95.2, 95.0, 95.3),
    ("imagenet-sketch", "top1"): (69.8, 75.5, 74.1, 72.8, 73.6),
    ("coco", "text_to_image_R@1"): (51.6, 55.3, None, 58.6, 59.4),
    ("coco", "image_to_text_R@1"): (69.0, 71.4, None, 75.9, 76.0),
    ("flickr30k", "text_to_image_R@1"): (77.2, 85.0, None, 85.7, 86.0),
    ("flickr30k", "image_to_text_R@1"): (92.0, 95.2, None, 95.3, 96.3),
}
# the averages of the figures above by task, which the page prints as well
REPORTED_AVERAGES: dict[str, tuple[float | None, ...]] = {
    "zero-shot": (77.1, 83.4, 82.5, 82.7, 83.6),
    "retrieval": (72.5, 76.7, None, 78.9, 79.4),
}
# what a table takes of a result
COLUMNS = frozenset(("model", "task", "name", "setting", "figures"))
# options that change no figure, and those that have a column of their own
OTHER_OPTIONS = frozenset(("model", "revision", "task", "name", "out", "device", "tokens_per_batch"))
TASK_OF_REPORT = {"imagenet": "zero-shot", "objectnet": "zero-shot", "coco": "retrieval", "flickr30k": "retrieval"}


def make_table(results: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of results: a row for each figure, ours with its interval, then the report's, in percent.

    Beside our own figures the report's stand only where data set, task and figure are the same; they were measured by
    its authors, with their prompts. A model that has all of the report's figures of a task has their average too.
    Where a model has several results of one data set, task and setting, rows say in which options they differ.

    Args:
        results: what `run_evaluation` returned, in the order of the rows.
    """
    models = list(dict.fromkeys(map(_model_of, results)))
    figures: dict[tuple[str, str, str, str], dict[str, Mapping[str, Any]]] = {}
    for result, setting in zip(results, _settings(results), strict=True):
        for name, figure in result["figures"].items():
            figures.setdefault((result["name"], result["task"], setting, name), {})[_model_of(result)] = figure
    lines = [_row(["data", "task", "setting", "figure", *(f"{model} (ours)" for model in models), *REPORTED_MODELS])]
    lines.append("|---" * (4 + len(models) + len(REPORTED_MODELS)) + "|")
    for (data, task, setting, name), ours in figures.items():
        reported = REPORTED.get((data, name)) if _task_of(data) == task else None
        cells = [_cell(ours.get(model)) for model in models]
        lines.append(_row([data, task, setting, name, *cells, *_numbers(reported or [None] * len(REPORTED_MODELS))]))
    for task, reported in REPORTED_AVERAGES.items():
        members = [key for key in REPORTED if _task_of(key[0]) == task]
        averages = [_average(figures, members, task, model) for model in models]
        if any(average is not None for average in averages):
            names = f"average of {len(members)}"
            lines.append(_row([names, task, "", "", *_numbers(averages), *_numbers(reported)]))
    return "\n".join(lines) + "\n"


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All results that lie in a folder, in the order of their files' names; other JSON is left out, with a warning."""
    results = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            result = None
        if isinstance(result, dict) and result.keys() >= COLUMNS:
            results.append(result)
        else:
            logger.warning("%s is no result of an evaluation and is left out of the table", path)
    return results


def options_of_figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a result that its figures depend on, beside the model."""
    return {name: value for name, value in result.get("options", {}).items() if name not in OTHER_OPTIONS}


def _model_of(result: Mapping[str, Any]) -> str:
    revision = result.get("options", {}).get("revision")
    return result["model"] if revision is None else f"{result['model']}@{revision}"


def _settings(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings of results, with the options in which those of one model differ that would share a row."""
    rows = [(result["name"], result["task"], result["setting"]) for result in results]
    taken = Counter(zip(rows, map(_model_of, results), strict=True))
    shared = {row for (row, _), number in taken.items() if number > 1}
    settings = [row[-1] for row in rows]
    for row in shared:
        places = [place for place, other in enumerate(rows) if other == row]
        options = {place: options_of_figures(results[place]) for place in places}
        names = dict.fromkeys(name for values in options.values() for name in values)
        for name in names:
            values = {place: options[place].get(name) for place in places}
            if len(set(map(repr, values.values()))) > 1:
                for place, value in values.items():
                    settings[place] += f", {name}={value}"
    return settings


def _task_of(data: str) -> str | None:
    """The task that the report has a data set's figures of."""
    return TASK_OF_REPORT.get(data.partition("-")[0])


def _average(
    figures: Mapping[tuple[str, str, str, str], Mapping[str, Mapping[str, Any]]],
    members: Sequence[tuple[str, str]],
    task: str,
    model: str,
) -> float | None:
    """The mean in percent of a model's figures of (data, name) pairs; None unless it has each in just one setting."""
    values = []
    for member in members:
        found = [
            ours[model]["value"]
            for (data, its_task, _, name), ours in figures.items()
            if (data, name) == member and its_task == task and model in ours
        ]
        if len(found) != 1:
            return None
        values += found
    return 100 * sum(values) / len(values)


def _numbers(values: Sequence[float | None]) -> list[str]:
    return ["-" if value is None else f"{value:.1f}" for value in values]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    low, high = figure["interval"]
    return f"{100 * figure['value']:.1f} ({100 * low:.1f} … {100 * high:.1f})"
