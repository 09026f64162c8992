# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What each stage of the tiny chain is worth: the four stages and, beside them, stage 2 from other beginnings.

Those are random weights, and a stage 1 whose teacher is a network and not `hog`: the tower that stage 2 from random
weights left, which has seen the captions of the same pictures. As the report's teacher, it knows what is in a picture.

    python examples/prepare_pretraining_data.py
    python benchmarks/pretraining_study.py --out study --seeds 0 1 2

A run that was stopped goes on with the same command. Wall-clock times are those of whatever else the machine does.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from turingvit_hf.training.pretraining import run_chain, run_pretraining
from turingvit_hf.training.recipes import load_chain, load_recipe


SCRATCH = "stage2-from-scratch"
BY_TOWER = ("stage1-by-tower", "stage2-by-tower")
STAGES = ("stage1", "stage2", SCRATCH, *BY_TOWER, "stage3", "stage4")
BEGINNINGS = {
    "stage2": ("from stage 1 by hog", "tab:blue"),
    SCRATCH: ("from random weights", "tab:orange"),
    BY_TOWER[1]: ("from stage 1 by a tower", "tab:green"),
}
# as many images as in tiny/stage1, in steps a quarter as large: what this stage lacks is steps, not images
SMALL_STEPS = (
    "data.tokens_per_pack=1024",
    "training.max_steps=800",
    "training.learning_rate=1e-3",
    "training.warmup_steps=40",
    "training.logging_steps=40",
    "training.eval_steps=200",
)
DIRECTIONS = ("image_to_text", "text_to_image")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, prints the table and draws the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("pretraining_study"), help="folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="for every stage, as in pretrain")
    options = parser.parse_args(arguments)
    for seed in options.seeds:
        run_seed(options.out / f"seed{seed}", [*options.overrides, f"training.seed={seed}"])
    reports = [read_reports(options.out / f"seed{seed}") for seed in options.seeds]
    summary = summarize(reports)
    (options.out / "study.json").write_text(json.dumps(summary, indent=2) + "\n")
    console = Console(width=110)
    console.print(as_table(summary, num_seeds=len(reports)))
    console.print(as_comparison(reports))
    draw(options.out / "study.png", reports)
    print(f"wrote {options.out / 'study.json'} and {options.out / 'study.png'}")


def run_seed(folder: Path, overrides: Sequence[str]) -> None:
    """Runs chain and comparisons of one seed, as far as they are not there yet."""
    started = time.monotonic()
    chain = folder / "chain"
    run_chain(load_chain("tiny/all", overrides), out=chain, resume=chain.exists())
    print(f"{chain}: the chain is done, {time.monotonic() - started:.0f} s in this run")
    scratch = folder / SCRATCH
    run_pretraining(load_recipe("tiny/stage2", overrides), out=scratch, resume=scratch.exists())
    first, second = (folder / name for name in BY_TOWER)
    by_tower = [*overrides, *SMALL_STEPS, f"teacher.model={scratch.absolute() / 'vision_tower'}"]
    run_pretraining(load_recipe("tiny/stage1", by_tower), out=first, resume=first.exists())
    from_first = [*overrides, f"init_from={first.absolute()}"]
    run_pretraining(load_recipe("tiny/stage2", from_first), out=second, resume=second.exists())


def read_reports(folder: Path) -> dict[str, dict[str, Any]]:
    """The report of each stage of a seed."""
    places = {name: folder / (name if "-" in name else f"chain/{name}") for name in STAGES}
    return {name: json.loads((place / "report.json").read_text()) for name, place in places.items()}


def summarize(reports: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, list[float]]]:
    """Of each stage every measurement, a list with one value a seed, with first and last losses and the seconds."""
    summary = {}
    for stage in STAGES:
        found = [report[stage] for report in reports]
        values = {name: [report["metrics"][name] for report in found] for name in found[0]["metrics"]}
        for loss in ("cosine", "siglip", "video_siglip"):
            curves = [[logs[loss] for logs in report["history"] if loss in logs] for report in found]
            if all(curves):
                values[f"{loss} at first"] = [curve[0] for curve in curves]
                values[f"{loss} at last"] = [curve[-1] for curve in curves]
        values["seconds"] = [report["seconds"] for report in found]
        summary[stage] = values
    return summary


def as_table(summary: dict[str, dict[str, list[float]]], *, num_seeds: int) -> Table:
    """A row a measurement: the mean over seeds, the smallest and the largest, and how many times chance it is."""
    table = Table("stage", "measured", "mean", "smallest", "largest", "times chance", title=f"{num_seeds} seeds")
    for stage, values in summary.items():
        for name, numbers in values.items():
            if "chance" in name or "runtime" in name or "_per_second" in name:
                continue
            is_share = "_R@" in name
            texts = [
                f"{number:.1%}" if is_share else f"{number:.3f}"
                for number in (statistics.fmean(numbers), min(numbers), max(numbers))
            ]
            times = ""
            if is_share:
                chances = values[name.replace("_R@", "_chance@")]
                times = f"{statistics.fmean(n / c for n, c in zip(numbers, chances, strict=True)):.1f}"
            table.add_row(stage, name.removeprefix("eval_"), *texts, times)
    return table


def as_comparison(reports: Sequence[dict[str, dict[str, Any]]]) -> Table:
    """Stage 2 from its three beginnings: means over seeds at each step of evaluation."""
    names = ("siglip", "superclass", *(f"eval_retrieval_{way}_R@{k}" for k in (1, 10) for way in DIRECTIONS))
    titles = (name.removeprefix("eval_retrieval_").replace("_", " ") for name in names)
    table = Table("step", "stage 2", *titles, title="means over seeds")
    steps, _ = curve(reports[0]["stage2"], names[-1])
    for step in steps:
        for stage, (label, _) in BEGINNINGS.items():
            found = (
                statistics.fmean(dict(zip(*curve(each[stage], name), strict=True))[step] for each in reports)
                for name in names
            )
            texts = (
                f"{value:.1%}" if "_R@" in name else f"{value:.3f}" for name, value in zip(names, found, strict=True)
            )
            table.add_row(f"{step}", label, *texts)
        table.add_section()
    return table


def draw(path: Path, reports: Sequence[dict[str, dict[str, Any]]]) -> None:
    """Draws stage 1's loss by both teachers, and stage 2's loss and recalls from each beginning, a line a seed."""
    figure = Figure(figsize=(15, 3.8), layout="constrained")
    first, *others = figure.subplots(1, 2 + len(DIRECTIONS))
    for number, report in enumerate(reports):
        for stage, label, color in (("stage1", "hog", "tab:blue"), (BY_TOWER[0], "a tower", "tab:green")):
            steps, losses = curve(report[stage], "cosine")
            share = [step / steps[-1] for step in steps]  # both see as many images, one in more steps
            first.plot(share, losses, color=color, linewidth=1, label=None if number else f"teacher: {label}")
    first.set(title="Stage 1: 1 - cos on masked patches", xlabel="share of the steps")
    first.legend(frameon=False)
    names = {"siglip": "SigLIP loss of training"}
    names |= {f"eval_retrieval_{way}_R@10": f"{way.replace('_', ' ')} R@10" for way in DIRECTIONS}
    for axes, (name, title) in zip(others, names.items(), strict=True):
        for number, report in enumerate(reports):
            for stage, (label, color) in BEGINNINGS.items():
                marker = "o" if "_R@" in name else None
                options = {"color": color, "linewidth": 1, "marker": marker, "markersize": 3}
                axes.plot(*curve(report[stage], name), label=None if number else label, **options)
        axes.set(title=f"Stage 2: {title}", xlabel="step")
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def curve(report: dict[str, Any], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one logged number."""
    points = [(logs["step"], logs[name]) for logs in report["history"] if name in logs]
    return [step for step, _ in points], [value for _, value in points]


if __name__ == "__main__":
    main(sys.argv[1:])
