# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the scripts beside it share: arguments, sizes of pictures, tables, and a JSON file with it all.

Interleaved timing is the package's own, `turingvit_hf.benchmarking.timing`.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from turingvit_hf.benchmarking.report import environment
from turingvit_hf.benchmarking.timing import time_interleaved as time_interleaved  # scripts take it from here, too


# width : height of common photographs, half of them upright
ASPECTS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16)


def parse_arguments(
    description: str, arguments: Sequence[str] | None, *, repeats: int, further: Mapping[str, dict] | None = None
) -> argparse.Namespace:
    """The options that every benchmark has, and `further` ones of its own; `threads` has been set."""
    parser = argparse.ArgumentParser(description=description)
    for name, values in (further or {}).items():
        parser.add_argument(name, **values)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes and one repeat: does it run, in seconds")
    parser.add_argument("--threads", type=int, help="threads of torch; 1 measures processor time instead of wall time")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"interleaved runs of each form ({repeats})")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.smoke:
        options.repeats = 1
    return options


def photo_sizes(num_images: int, shortest: int, longest: int, *, seed: int = 0) -> list[tuple[int, int]]:
    """(height, width) in pixels of pictures whose longer side is uniform in [shortest, longest], in common aspects."""
    generator = torch.Generator().manual_seed(seed)
    sizes = []
    for _ in range(num_images):
        side = int(torch.randint(shortest, longest + 1, (), generator=generator))
        aspect = ASPECTS[int(torch.randint(len(ASPECTS), (), generator=generator))]
        sizes.append((round(side / max(aspect, 1)), round(side * min(aspect, 1))))
    return sizes


def photo_grid(num_images: int, shortest: int, longest: int, *, patch_size: int = 16) -> torch.Tensor:
    """`image_grid_thw` (N, 3) of `photo_sizes`, sides rounded to whole patches."""
    sizes = photo_sizes(num_images, shortest, longest)
    return torch.tensor([(1, *(max(1, round(side / patch_size)) for side in size)) for size in sizes])


class Report:
    """Tables and goals, printed as they come and kept for the JSON file."""

    def __init__(self, title: str, options: argparse.Namespace):
        self.options = options
        self.console = Console(width=None if sys.stdout.isatty() else 140)
        self.content: dict = {
            "title": title,
            "environment": environment(torch.device("cpu")),
            "tables": {},
            "goals": {},
        }
        self.console.rule(title)
        self.line(", ".join(f"{name} {value}" for name, value in self.content["environment"].items()))
        if options.smoke:
            self.line("smoke run: tiny sizes, the figures mean nothing")

    def line(self, text: str) -> None:
        """Print a sentence."""
        self.console.print(text, markup=False, highlight=False)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
        """Print and keep a table; the first column names the row."""
        # as wide as its title, which would be broken into lines
        table = Table(*columns, title=name, title_justify="left", min_width=len(name))
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        self.console.print(table)
        self.content["tables"][name] = [dict(zip(columns, row, strict=True)) for row in rows]

    def goal(self, name: str, value: float, comparison: str, goal: float, unit: str) -> None:
        """Print and keep a goal and whether it was met; `comparison` is <= or >=. Nothing depends on the outcome."""
        met = value <= goal if comparison == "<=" else value >= goal
        outcome = "not judged in a smoke run" if self.options.smoke else "met" if met else "MISSED"
        self.line(f"{name}: {value:.2f} {unit} (goal {comparison} {goal:g}: {outcome})")
        self.content["goals"][name] = {"value": value, "comparison": comparison, "goal": goal, "met": met}

    def finish(self) -> None:
        """Write the JSON file if one was asked for."""
        self.content["load_at_end"] = os.getloadavg()[0]
        if self.options.json is not None:
            self.options.json.write_text(json.dumps(self.content, indent=1))
            self.line(f"written to {self.options.json}")
