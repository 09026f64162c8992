# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The figures of `turingvit benchmark latency` as tables and sentences, and what follows from them."""

from collections.abc import Mapping
from typing import Any

from turingvit_hf.benchmarking.operations import KINDS
from turingvit_hf.benchmarking.report import describe, markdown_table
from turingvit_hf.benchmarking.report_curve import SETTING, reported_ratio


Figures = Mapping[str, Any]


def compare(figures: Figures) -> dict[str, Any]:
    """What follows from the times, by best runs and by medians.

    Returns:
        `"ratios"`: by side and tower, how many times the baseline's time it takes, `"best"` and `"median"`, and
        `"report"`, that of the report's figure or None. `"growth"`: by tower and side, time per patch as a multiple of
        that at the smallest side.
    """
    baseline = figures["baseline"]
    ratios: dict[str, dict[str, Any]] = {}
    growth: dict[str, dict[str, Any]] = {}
    smallest: dict[str, tuple[float, float]] = {}
    for side, record in figures["sides"].items():
        ours = record["towers"].get(baseline)
        for name, tower in record["towers"].items():
            per_patch = (tower["best"] / record["patches"], tower["median"] / record["patches"])
            first = smallest.setdefault(name, per_patch)
            growth.setdefault(name, {})[side] = {"best": per_patch[0] / first[0], "median": per_patch[1] / first[1]}
            if ours is not None and name != baseline:
                ratios.setdefault(side, {})[name] = {
                    "best": tower["best"] / ours["best"],
                    "median": tower["median"] / ours["median"],
                    "report": reported_ratio(name, baseline, int(side)),
                }
    return {"ratios": ratios, "growth": growth}


def describe_towers(towers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each tower: what it is and how large."""
    return [
        f"{name}: {tower['text']}; {tower['layers']} layers x {tower['width']}, {tower['heads']} heads, "
        f"MLP {tower['mlp_width']}"
        for name, tower in towers.items()
    ]


def describe_comparisons(figures: Figures) -> list[str]:
    """A sentence for each comparison at the largest side, and for each tower's growth and floor there."""
    if not figures["sides"]:
        return []
    side, record = list(figures["sides"].items())[-1]
    first = next(iter(figures["sides"]))
    lines = []
    for name, ratio in figures["comparisons"]["ratios"].get(side, {}).items():
        report = "" if ratio["report"] is None else f"; {ratio['report']:.2f} in the report"
        lines.append(
            f"{side} x {side}: {name} takes {ratio['best']:.2f} times as long as {figures['baseline']} "
            f"(medians {ratio['median']:.2f}{report})"
        )
    for name, tower in record["towers"].items():
        growth = figures["comparisons"]["growth"][name]
        if first in growth and side != first:
            lines.append(
                f"{name}: time per patch at {record['patches']:,} patches is {growth[side]['best']:.2f} times that at "
                f"{figures['sides'][first]['patches']:,}"
            )
        if "floor_share" in tower:
            lines.append(
                f"{name}: the floor is {100 * tower['floor_share']:.0f} % of its best run at {side} x {side}: "
                f"{tower['flops'] / 1e12:.3g} TFLOP at {tower['matmul_rate'] / 1e9:,.0f} GFLOP/s of its own products"
            )
    return lines


def table_of_sides(figures: Figures) -> str:
    """Best and median milliseconds an image, throughput and ratios, a row for each side and tower."""
    batch = figures["settings"]["batch"]
    columns = ("image, tower", "patches", "ms, best", "median", "spread", "images/s", "ratio", "report's")
    columns += ("TFLOP", "floor")
    rows = []
    for side, record in figures["sides"].items():
        for name, tower in record["towers"].items():
            ratio = figures["comparisons"]["ratios"].get(side, {}).get(name, {})
            rows.append(
                (
                    f"{side} x {side}, {name}",
                    f"{record['patches']:,}",
                    f"{1e3 * tower['best'] / batch:,.1f}",
                    f"{1e3 * tower['median'] / batch:,.1f}",
                    f"{100 * tower['spread']:.0f} %",
                    f"{tower['images_per_second']:.3g}",
                    _number(ratio.get("best")),
                    _number(ratio.get("report")),
                    f"{tower['flops'] / batch / 1e12:.3g}",
                    f"{100 * tower['floor_share']:.0f} %" if "floor_share" in tower else "",
                )
            )
    return markdown_table(columns, rows)


def legend_of_sides(figures: Figures) -> str:
    """What the columns of `table_of_sides` are."""
    return (
        "ms and TFLOP (10^12 operations) are of one image, images/s is by the median. Spread: how much longer the "
        f"longest run took than the shortest. Ratio: best runs, as multiples of {figures['baseline']}; report's: the "
        "same in TuringViT's technical report. Floor: the operations at the rate of the tower's own matrix products, "
        "as a share of the best run."
    )


def latency_page(figures: Figures) -> str:
    """All of it as a page of markdown."""
    settings = figures["settings"]
    parts = [
        "# Forward passes over resolution\n",
        f"{describe(settings)}. Random weights. {SETTING}.\n",
        _towers_table(figures),
        table_of_sides(figures),
        f"{legend_of_sides(figures)}\n",
        *(f"- {line}" for line in describe_comparisons(figures)),
    ]
    for title, table in (
        ("Share of time of each kind of operation", _operations_table(figures)),
        ("Peak memory", _memory_table(figures)),
        ("Compiling or exporting, before the first run", _prepare_table(figures)),
    ):
        if table is not None:
            parts += [f"\n## {title}\n", table]
    failed = [
        f"- {side} x {side}, {name}: {reason}"
        for side, record in figures["sides"].items()
        for name, reason in record["failed"].items()
    ]
    if failed:
        parts += ["\n## Could not run\n", *failed]
    loads = [record["environment"]["load"] for record in figures["sides"].values()]
    if loads:
        parts.append(f"\nLoad of the machine at the start of each side: {', '.join(map(str, loads))}.\n")
    return "\n".join(parts)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _towers_table(figures: Figures) -> str:
    parameters = {
        name: tower["parameters"] for record in figures["sides"].values() for name, tower in record["towers"].items()
    }
    rows = [
        (
            f"{name}: {tower['text']}",
            tower["layers"],
            tower["width"],
            tower["heads"],
            tower["mlp_width"],
            f"{parameters[name] / 1e6:,.1f}" if name in parameters else "",
        )
        for name, tower in figures["towers"].items()
    ]
    return markdown_table(("tower", "layers", "width", "heads", "MLP", "M parameters"), rows)


def _rows(figures: Figures, key: str) -> list[tuple[str, Any]]:
    """(image and tower, what it has under the key), where it has it."""
    return [
        (f"{side} x {side}, {name}", tower[key])
        for side, record in figures["sides"].items()
        for name, tower in record["towers"].items()
        if key in tower
    ]


def _operations_table(figures: Figures) -> str | None:
    rows = [
        (name, *(f"{100 * shares[kind]:.1f} %" for kind in KINDS)) for name, shares in _rows(figures, "operations")
    ]
    return markdown_table(("image, tower", *KINDS), rows) if rows else None


def _memory_table(figures: Figures) -> str | None:
    rows = [
        (name, f"{memory['weights_gib']:.2f}", f"{memory['peak_gib']:.2f}", memory["of"])
        for name, memory in _rows(figures, "memory")
    ]
    return markdown_table(("image, tower", "GiB with weights", "GiB at the peak", "of"), rows) if rows else None


def _prepare_table(figures: Figures) -> str | None:
    rows = [(name, f"{seconds:.1f}") for name, seconds in _rows(figures, "prepare_seconds")]
    return markdown_table(("image, tower", "s"), rows) if rows else None
