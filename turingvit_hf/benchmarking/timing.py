# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Interleaved timing on a CPU or a GPU, and the peak of a process's memory."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of the runs of one form."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The smallest: what neighbors on the machine disturbed least."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The middle run."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """How much longer the longest run took than the shortest, as a share of the shortest."""
        return max(self.seconds) / self.best - 1

    @property
    def text(self) -> str:
        """Best, median and largest in milliseconds."""
        return " / ".join(f"{value * 1e3:,.1f}" for value in (self.best, self.median, max(self.seconds)))


def clock() -> float:
    """Processor time with one thread, which a busy machine changes little; wall time with several."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def clock_name(device: torch.device) -> str:
    """What `seconds_of` reads: `"processor time"`, `"wall time"` or `"CUDA events"`."""
    if device.type == "cuda":
        return "CUDA events"
    return "processor time" if torch.get_num_threads() == 1 else "wall time"


def seconds_of(function: Callable[[], object], device: torch.device | None = None) -> float:
    """How long one call takes.

    Args:
        function: what is called.
        device: where its work is done; None is a CPU. A CUDA device is timed by events on its stream, from an idle
            device to an idle one.
    """
    if device is None or device.type != "cuda":
        start = clock()
        function()
        return clock() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def time_interleaved(
    functions: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    warmup: int = 1,
    device: torch.device | None = None,
    on_round: Callable[[int], None] | None = None,
) -> dict[str, Timing]:
    """Timings of each function: all in turn, so that a slow moment falls on all of them.

    Args:
        functions: by name.
        repeats: timed runs of each.
        warmup: runs of each before, all in turn.
        device: see `seconds_of`.
        on_round: told how many timed rounds are done, after the warm-up and after each.
    """
    for _ in range(warmup):
        for function in functions.values():
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    on_round = on_round or (lambda done: None)
    on_round(0)
    for done in range(1, repeats + 1):
        for name, function in functions.items():
            seconds[name].append(seconds_of(function, device))
        on_round(done)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def peak_memory() -> float:
    """The most memory this process has held, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the parent held before it started this process as well
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
