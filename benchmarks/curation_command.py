# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `turingvit curate run` by the clock, with one worker and with two; `curation_filters.py` calls this."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from harness import Report


WORKERS = (1, 2)
# nothing is asked of models: pictures are read, measured, hashed and compared
SWITCHED_OFF = ("caption.enabled=no", "embed.enabled=no", "score.enabled=no")
# what a piece of a photograph with grain at a low resolution would be dropped for
LENIENT = ("thresholds.quality.min_side=16",)


def time_command(scratch: Path, number: int, report: Report, *, goal: float) -> None:
    """Run the command on a folder `pictures` and add to the report how fast it was and what it did meanwhile."""
    overrides = [f"sources=[{{path: {scratch / 'pictures'}}}]", *SWITCHED_OFF, *LENIENT]
    rates, times = [], []
    for workers in WORKERS:
        # four shards a worker at least, so that both have work to the end
        shard_size = max(1, min(1000, number // (4 * workers)))
        out = scratch / f"run-{workers}"
        command = [sys.executable, "-c", "from turingvit_hf.cli import app; app()", "curate", "run", str(out)]
        for override in (*overrides, f"shard_size={shard_size}"):
            command += ["--set", override]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        subprocess.run([*command, "--num-workers", str(workers)], check=True, capture_output=True)
        seconds, after = time.time() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        parts = split(out, started, seconds)
        work = parts["shards"]
        rates.append(
            (
                str(workers),
                f"{number / seconds:.0f}",
                f"{number / parts['measure']:.0f}",
                f"{number / work:.0f}",
                f"{processor:.1f}",
                f"{os.getloadavg()[0]:.1f}",
            )
        )
        names = ("start", "measure", "deduplicate", "outcomes", "end")
        times.append((str(workers), f"{seconds:.1f}", *(f"{parts[name]:.1f}" for name in names)))
        report.content.setdefault("command", {})[str(workers)] = {"seconds": seconds, "processor": processor, **parts}
        report.goal(f"pictures through the command, {workers} workers", number / seconds, ">=", goal, "/s")
    columns = ("workers", "by the clock", "stage measure", "in its shards, one worker", "processor seconds", "load")
    report.table(f"Pictures a second, {number:,} JPEGs through `turingvit curate run`", columns, rates)
    columns = ("workers", "all", "start", "measure", "deduplicate", "outcomes", "end")
    report.table("Seconds by the clock, when files of the run appeared", columns, times)


def split(out: Path, started: float, seconds: float) -> dict[str, float]:
    """Seconds of the parts of a run, by the times of its files; `shards`: of all shards together, by their manifests.

    `start` is imports, checks and the listing; `measure` has the start of the workers in it.
    """
    manifests = sorted(out.glob("shards/*/measure.json"))
    marks = {
        "start": (out / "run.json").stat().st_mtime,
        "measure": max(path.stat().st_mtime for path in manifests),
        "deduplicate": (out / "whole" / "deduplicate.json").stat().st_mtime,
        "outcomes": (out / "candidates.parquet").stat().st_mtime,
        "end": started + seconds,
    }
    parts, before = {}, started
    for name, mark in marks.items():
        parts[name] = mark - before
        before = mark
    return parts | {"shards": sum(json.loads(path.read_text())["seconds"] for path in manifests)}
