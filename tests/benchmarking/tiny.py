# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""All towers of the benchmarks, six layers of width 64, and a clock that tells what it is told."""

from collections.abc import Mapping

import pytest

from turingvit_hf.benchmarking import timing
from turingvit_hf.benchmarking.options import LatencyOptions
from turingvit_hf.benchmarking.towers import TOWERS, Tower, TowerSize


TINY = TowerSize(layers=6, width=64, heads=2, mlp_width=128)


def tiny_towers() -> dict[str, Tower]:
    """Every tower of the command, tiny."""
    return {name: tower.resized(TINY) for name, tower in TOWERS.items()}


def tiny_options(**changes) -> LatencyOptions:
    """Two sides, two runs, nothing beside the times; `changes` replace fields."""
    fields = {"towers": ("turingvit-18l", "siglip2-l"), "sides": (64, 96), "repeats": 2, "threads": 1}
    return LatencyOptions(**{**fields, "operations": False, "matmul_rate": False, **changes})


class ScriptedClock:
    """Stands in for `seconds_of`: every call is made, and takes as long as the script says."""

    def __init__(self, seconds: list[float]):
        self.seconds = list(seconds)

    def __call__(self, function, device=None) -> float:
        """Seconds of the next call."""
        function()
        return self.seconds.pop(0)


def script(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> ScriptedClock:
    """Makes timed calls take these seconds, in this order."""
    clock = ScriptedClock(seconds)
    monkeypatch.setattr(timing, "seconds_of", clock)
    return clock


def fake_figures(times: Mapping[str, Mapping[int, float]], *, baseline: str) -> dict:
    """Figures as `latency.json` has them: seconds by tower and side, the median a tenth above the best."""
    sides = sorted({side for by_side in times.values() for side in by_side})
    records = {
        str(side): {
            "patches": (side // 16) ** 2,
            "environment": {"load": 0.0},
            "failed": {},
            "towers": {
                name: {
                    "seconds": [by_side[side], 1.1 * by_side[side], 1.3 * by_side[side]],
                    "best": by_side[side],
                    "median": 1.1 * by_side[side],
                    "spread": 0.3,
                    "images_per_second": 1 / by_side[side],
                    "parameters": 1_000_000,
                    "flops": 10**12,
                }
                for name, by_side in times.items()
                if side in by_side
            },
        }
        for side in sides
    }
    settings = {"dtype": "float32", "mode": "eager", "batch": 1, "device": "cpu", "processor": "a CPU", "threads": 1}
    towers = {name: {"text": name, "layers": 1, "width": 2, "heads": 1, "mlp_width": 4} for name in times}
    return {"settings": settings, "baseline": baseline, "towers": towers, "sides": records}
