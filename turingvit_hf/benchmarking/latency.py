# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""`turingvit benchmark latency`: forward passes of whole towers, side by side, over resolution."""

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from turingvit_hf.benchmarking.forwards import check_mode
from turingvit_hf.benchmarking.latency_side import measure_side
from turingvit_hf.benchmarking.latency_tables import (
    compare,
    describe_comparisons,
    describe_towers,
    latency_page,
    legend_of_sides,
    table_of_sides,
)
from turingvit_hf.benchmarking.options import DTYPES, MODES, LatencyOptions, check_run, resolve_dtype
from turingvit_hf.benchmarking.report import (
    describe,
    environment,
    make_folder,
    read_figures,
    write_figures,
    write_text,
)
from turingvit_hf.benchmarking.towers import SIDE_STEP, TOWERS, Tower, choose_towers
from turingvit_hf.benchmarking.weights import SharedWeights
from turingvit_hf.errors import InputError


logger = logging.getLogger(__name__)

FIGURES, PAGE, PLOT = "latency.json", "latency.md", "latency.png"
# figures that differ in one of these do not stand beside each other
IDENTITY = ("turingvit_hf", "torch", "transformers", "processor", "gpu", "threads", "clock")


def run_latency(options: LatencyOptions, towers: Mapping[str, Tower] = TOWERS) -> dict[str, Any]:
    """Times towers and returns the figures, which stand in `latency.json`, `.md` and `.png` of the output folder.

    Files are written after every side of the images. A later run with the same folder leaves out sides that have all
    its towers with as many runs and all that is asked for beside them, and measures other sides anew together with the
    towers that they had.

    Args:
        options: what is measured.
        towers: the towers there are, by name.

    Raises:
        InputError: an option has no such value, none of the towers can be built here, or the folder has figures of
            another machine, dtype, mode, batch or number of threads.
    """
    options = _checked(options)
    chosen = choose_towers(options.towers, dict(towers))
    skipped = {tower.name: reason for tower in chosen if (reason := tower.missing()) is not None}
    runnable = [tower for tower in chosen if tower.name not in skipped]
    if not runnable:
        raise InputError("; ".join(f"{name}: {reason}" for name, reason in skipped.items()))
    threads_before = torch.get_num_threads()
    torch.set_num_threads(options.threads or threads_before)
    try:
        figures = _begin(options, runnable)
        for name, reason in skipped.items():
            logger.info("%s is left out: %s", name, reason)
        _measure(figures, runnable, options, towers)
    finally:
        torch.set_num_threads(threads_before)
    logger.info(
        "\n%s\n%s\n\n%s", table_of_sides(figures), legend_of_sides(figures), "\n".join(describe_comparisons(figures))
    )
    if options.out is not None:
        logger.info("written to %s: %s", options.out, ", ".join(sorted(p.name for p in options.out.glob("latency.*"))))
    return figures


def _measure(
    figures: dict[str, Any], runnable: list[Tower], options: LatencyOptions, towers: Mapping[str, Tower]
) -> None:
    """Every side that is not there yet."""
    weights = SharedWeights(
        DTYPES[options.dtype], torch.device("cpu" if options.mode == "onnxruntime" else options.device)
    )
    for side in options.sides:
        earlier = figures["sides"].get(str(side), {"towers": {}, "failed": {}})
        if _is_there(earlier, runnable, options):
            logger.info("%d x %d: measured already", side, side)
            continue
        names = dict.fromkeys([*(tower.name for tower in runnable), *earlier["towers"]])
        again = [towers[name] for name in names if name in towers and towers[name].missing() is None]
        record = measure_side(again, side, options, weights)
        for name, tower in record["towers"].items():  # memory is nothing that towers have to run in turn for
            if "memory" in earlier["towers"].get(name, {}):
                tower.setdefault("memory", earlier["towers"][name]["memory"])
        figures["sides"][str(side)] = record
        figures["sides"] = dict(sorted(figures["sides"].items(), key=lambda entry: int(entry[0])))
        figures["comparisons"] = compare(figures)
        _save(figures, options.out)
    figures["comparisons"] = compare(figures)
    _save(figures, options.out)


def _checked(options: LatencyOptions) -> LatencyOptions:
    """The options with the full name of the dtype.

    Raises:
        InputError: naming the option.
    """
    check_run(options)
    options = replace(options, dtype=resolve_dtype(options.dtype))
    if options.mode not in MODES:
        raise InputError(f"mode={options.mode!r}: allowed are {', '.join(MODES)}")
    if options.warmup < 1:
        raise InputError(f"warmup={options.warmup}: it is 1 or more")
    if options.batch < 1:
        raise InputError(f"batch={options.batch}: it is 1 or more")
    if not options.sides:
        raise InputError("no sides: give at least one, such as 512")
    for side in options.sides:
        if side < SIDE_STEP or side % SIDE_STEP:
            raise InputError(f"side={side}: it is a multiple of {SIDE_STEP} pixels")
    device = torch.device(options.device)
    check_mode(options.mode, options.dtype, device)
    if options.memory and (options.mode == "onnxruntime" or (options.mode == "compiled" and device.type == "cpu")):
        raise InputError(f"memory is not measured with mode={options.mode!r} on {device.type}: eager has it")
    return options


def _is_there(record: Mapping[str, Any], runnable: list[Tower], options: LatencyOptions) -> bool:
    """Whether a side has all that is asked for of each of these towers, or the reason why there is none."""
    measured, failed = record["towers"], record["failed"]
    asked = [("operations", options.operations and options.mode == "eager"), ("floor_share", options.matmul_rate)]
    asked.append(("memory", options.memory))
    keys = {key for key, is_asked in asked if is_asked}
    return bool(measured or failed) and all(
        tower.name in failed
        or (
            tower.name in measured
            and len(measured[tower.name]["seconds"]) >= options.repeats
            and keys <= measured[tower.name].keys()
        )
        for tower in runnable
    )


def _begin(options: LatencyOptions, runnable: list[Tower]) -> dict[str, Any]:
    """The figures of an earlier run in the same folder, or empty ones; what is run is logged.

    Raises:
        InputError: the earlier ones are of another machine or setting.
    """
    if options.out is not None:
        make_folder(options.out)
    now = environment(torch.device(options.device))
    logger.info("%s", describe(now))
    settings = {name: getattr(options, name) for name in ("dtype", "mode", "batch", "device")}
    settings |= {name: now[name] for name in IDENTITY if name in now}
    earlier = None if options.out is None else read_figures(options.out / FIGURES)
    if earlier is None:
        figures: dict[str, Any] = {"title": "Forward passes over resolution", "settings": settings}
        figures |= {"baseline": runnable[0].name, "towers": {}, "sides": {}}
    else:
        figures = earlier
        for name, value in settings.items():
            if figures.get("settings", {}).get(name) != value:
                raise InputError(
                    f"{options.out} has figures with {name}={figures.get('settings', {}).get(name)!r}, this run has "
                    f"{value!r}: choose another folder"
                )
    figures["baseline"] = runnable[0].name
    figures["towers"] |= {tower.name: {"text": tower.text, **vars(tower.size)} for tower in runnable}
    for line in describe_towers(figures["towers"]):
        logger.info("%s", line)
    return figures


def _save(figures: dict[str, Any], out: Path | None) -> None:
    """The files of the output folder, each whole or not at all."""
    if out is None:
        return
    write_figures(out / FIGURES, figures)
    write_text(out / PAGE, latency_page(figures))
    if importlib.util.find_spec("matplotlib") is None:
        logger.info("no %s: matplotlib is not installed: pip install 'turingvit_hf[plots]'", PLOT)
        return
    from turingvit_hf.benchmarking.latency_plot import draw_latency

    draw_latency(figures, out / PLOT)
