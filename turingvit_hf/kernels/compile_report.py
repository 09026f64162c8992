# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the Triton kernels need on a GPU that need not be there: `python -m turingvit_hf.kernels.compile_report`.

Compiles every kernel ahead of time, shows registers, spills, shared memory, occupancy and tensor-core instructions,
the bytes that a token moves, and the times that a roofline predicts. Ends with status 1 if a kernel breaks a limit.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from turingvit_hf.kernels.linear_attention.roofline import (
    CARDS,
    Image,
    backward_work,
    eager_work,
    forward_work,
    minimum_bytes,
    predicted_seconds,
)


NUM_TOKENS = (1024, 2304, 4096, 6400, 9216, 16384)


def compile_all(targets: Sequence[str], dtypes: Sequence[str], head_dims: Sequence[int], jobs: int) -> list[dict]:
    """What each kernel needs on each target: the fields of its case and its resources, and its faults in words."""
    from turingvit_hf.kernels.linear_attention import ahead_of_time

    cases = [
        case
        for target in targets
        for dtype in dtypes
        for head_dim in head_dims
        for case in ahead_of_time.cases(target, dtype, head_dim)
    ]

    if jobs == 1:
        return [measure(case) for case in cases]
    # Processes and not threads: Triton parses source, and Python 3.11 fails at that in two threads at a time.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return list(pool.map(measure, cases))


def measure(case) -> dict:
    """The fields of a `Case`, its resources once compiled, and its faults in words."""
    from turingvit_hf.kernels.linear_attention import ahead_of_time

    needs = ahead_of_time.resources_of(case, ahead_of_time.compile_case(case))
    entry = {"kernel": case.kernel, "target": case.target, "dtype": case.dtype, "head_dim": case.head_dim}
    return entry | {"launch": case.launch} | asdict(needs) | {"faults": ahead_of_time.faults(case, needs)}


def byte_counts(num_tokens: int) -> dict[str, float]:
    """KB that a token moves in the model's attention, 20 heads of 64 in 16 bits: kernels, their minimum, eager."""
    image = Image(num_tokens)
    sums = {
        "forward": sum(work.bytes for work in forward_work(image)),
        "backward": sum(work.bytes for work in backward_work(image)),
        "eager forward": sum(work.bytes for work in eager_work(image)[0]),
        "eager backward": sum(work.bytes for work in eager_work(image)[1]),
    }
    sums |= dict(zip(("forward minimum", "backward minimum"), minimum_bytes(image), strict=True))
    return {name: count / num_tokens / 1000 for name, count in sums.items()}


def predictions(target: str, num_tokens: int) -> dict[str, float]:
    """Microseconds for one image of the model's attention, as `roofline.predicted_seconds` bounds them."""
    image, card = Image(num_tokens), CARDS[target]
    works = {"forward": forward_work(image), "backward": backward_work(image)}
    works |= dict(zip(("eager forward", "eager backward"), eager_work(image), strict=True))
    return {name: 1e6 * predicted_seconds(work, card) for name, work in works.items()}


def show(console: Console, kernels: list[dict], targets: Sequence[str]) -> None:
    """Prints the tables."""
    table = Table(title="Kernels, compiled ahead of time; none of them was timed")
    columns = ("target", "dtype", "K", "kernel", "tile/warps/stages", "registers", "spills", "stack", "shared")
    for column in (*columns, "warps", "tensor core", "instr. a token and head", "faults"):
        table.add_column(column)
    for entry in kernels:
        instructions = " ".join(f"{name} {count}" for name, count in entry["tensor_core"].items())
        cells = [entry["target"], entry["dtype"], entry["head_dim"], entry["kernel"]]
        cells += ["/".join(map(str, entry["launch"])), entry["registers"], entry["spills"], entry["stack"]]
        cells += [entry["shared"], entry["warps"], instructions or "-", f"{entry['instructions']:.0f}" or "-"]
        table.add_row(*map(str, cells), "; ".join(entry["faults"]) or "-")
    console.print(table)

    table = Table(title="KB a token, 20 heads of 64 in 16 bits")
    names = list(byte_counts(NUM_TOKENS[0]))
    for column in ("tokens of the image", *names):
        table.add_column(column)
    for num_tokens in NUM_TOKENS:
        counts = byte_counts(num_tokens)
        table.add_row(str(num_tokens), *(f"{counts[name]:.1f}" for name in names))
    console.print(table)

    for target in targets:
        card = CARDS[target]
        assumed = f"{card.bandwidth / 1e12:.2f} TB/s, {card.peak / 1e12:.0f} TFLOP/s"
        table = Table(title=f"Microseconds at the roofline of {card.name} ({assumed}): bounds, not measurements")
        names = list(predictions(target, NUM_TOKENS[0]))
        for column in ("tokens of the image", *names):
            table.add_column(column)
        for num_tokens in NUM_TOKENS:
            times = predictions(target, num_tokens)
            table.add_row(str(num_tokens), *(f"{times[name]:.1f}" for name in names))
        console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles and reports; the exit status: 0, 1 if a kernel breaks a limit, 2 if nothing could be compiled."""
    parser = argparse.ArgumentParser(prog="python -m turingvit_hf.kernels.compile_report", description=__doc__)
    defaults = ["cuda:80", "cuda:86", "cuda:90", "hip:gfx942"]
    parser.add_argument("--target", nargs="+", default=defaults, choices=list(CARDS), metavar="TARGET")
    parser.add_argument("--dtype", nargs="+", default=["bf16", "fp16", "fp32"], choices=["bf16", "fp16", "fp32"])
    parser.add_argument("--head-dim", nargs="+", type=int, default=[32, 64, 128], choices=[32, 64, 128])
    parser.add_argument("--json", type=Path, help="file to write the same to")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="kernels compiled at a time")
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("TRITON_INTERPRET=1 is set: a process that interprets kernels cannot compile them")
    try:
        kernels = compile_all(options.target, options.dtype, options.head_dim, options.jobs)
    except ImportError as error:
        parser.error(f"{error}; pip install triton (Linux)")
    except (RuntimeError, FileNotFoundError) as error:
        parser.error(f"a tool that comes with Triton is missing or failed: {error}")
    show(Console(width=None if sys.stdout.isatty() else 200), kernels, options.target)
    if options.json:
        report = {
            "kernels": kernels,
            "kilobytes_per_token": {num_tokens: byte_counts(num_tokens) for num_tokens in NUM_TOKENS},
            "microseconds": {
                target: {num_tokens: predictions(target, num_tokens) for num_tokens in NUM_TOKENS}
                for target in options.target
            },
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(any(entry["faults"] for entry in kernels))


if __name__ == "__main__":
    sys.exit(main())
