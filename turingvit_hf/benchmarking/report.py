# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the benchmarks leave behind: JSON that survives a kill, tables in markdown, and what the machine was."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from turingvit_hf import __version__
from turingvit_hf.benchmarking.timing import clock_name
from turingvit_hf.errors import InputError


def environment(device: torch.device) -> dict[str, Any]:
    """What figures depend on besides the code: versions, processor or GPU, threads, clock, and the load right now."""
    values: dict[str, Any] = {
        "turingvit_hf": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "processor": processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": clock_name(device),
        "load": round(os.getloadavg()[0], 2),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        values |= {"gpu": properties.name, "gpu_memory_gib": round(properties.total_memory / 2**30, 1)}
        values |= {"cuda": torch.version.cuda or torch.version.hip}
    return values


def make_folder(out: Path) -> None:
    """Makes the folder of figures.

    Raises:
        InputError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made: {error.strerror}; choose another folder") from error


def processor_name() -> str:
    """The processor as the system calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe(values: Mapping[str, Any]) -> str:
    """An environment in one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table that can be read as it is, too; the first column names the row, the others stand to the right."""
    lines = [[str(cell) for cell in line] for line in (columns, *rows)]
    widths = [max(3, *(len(line[index]) for line in lines)) for index in range(len(columns))]
    texts = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in (texts[0], rule, *texts[1:]))


def read_figures(file: Path) -> dict[str, Any] | None:
    """The figures of an earlier run, or None where there is no such file.

    Raises:
        InputError: the file is no JSON object.
    """
    if not file.exists():
        return None
    try:
        figures = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}; move it away, or choose another folder") from error
    if not isinstance(figures, dict):
        raise InputError(f"{file} holds no figures; move it away, or choose another folder")
    return figures


def write_figures(file: Path, figures: Mapping[str, Any]) -> None:
    """Write figures as JSON, whole or not at all."""
    write_text(file, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text file, whole or not at all; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
