# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Times launches of the Triton kernels on the GPU at hand and writes the fastest right ones to a file.

    python -m turingvit_hf.kernels.tune --dtype bfloat16 float16 --head-dim 64 --out launches.json
    TURINGVIT_LAUNCH_TABLE=launches.json python train.py

A launch is taken if it compiles without spilling registers, fits into the GPU's shared memory, gives the reference's
output and gradients, and is faster than what the table has. Nothing is tuned while a model runs.
"""

import argparse
import itertools
import json
import logging
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from turingvit_hf.kernels.linear_attention import self_test
from turingvit_hf.kernels.linear_attention.launch_table import CHUNK_KERNELS, FILE_VARIABLE, Launch


logger = logging.getLogger(__name__)

# What is tried for each kernel. Eight stages of one warp and the like never came close where kernels were compiled.
CANDIDATES = tuple(itertools.starmap(Launch, itertools.product((16, 32, 64, 128), (2, 4, 8), (1, 2, 3))))
# Lengths from one tile to what one image fills a GPU with; half of the chunks end in the middle of a tile.
LENGTHS = (1, 17, 300, 777, 1024, 2304, 4096, 9216)
WIDTH = 1280
# A candidate must win by this much; less is noise.
MARGIN = 0.02
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class StandIn:
    """Takes the place of a kernel, launches it as `entry` says, and keeps the last launch to be repeated.

    Attributes:
        entry: The launch to use; None leaves it to the caller.
        last: Repeats the last launch; what it returns is Triton's compiled kernel.
        spills: Register spills of the last launch's kernel.
    """

    def __init__(self, kernel: Any):
        self.kernel = kernel
        self.entry: Launch | None = None
        self.last: Callable[[], Any] | None = None
        self.spills = 0

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(*arguments, **constants) -> None:
            if self.entry is not None:
                tokens, num_warps, num_stages = self.entry
                constants |= {"BT": tokens, "num_warps": num_warps, "num_stages": num_stages}
            self.last = partial(self.kernel[grid], *arguments, **constants)
            compiled = self.last()
            # The interpreter compiles nothing.
            self.spills = 0 if compiled is None else compiled.n_spills

        return run


@contextmanager
def stand_ins() -> Iterator[dict[str, StandIn]]:
    """Stand-ins in the place of all tunable kernels, by name, until the block ends."""
    from turingvit_hf.kernels.linear_attention import triton_kernels

    kernels = {name: getattr(triton_kernels, name) for name in CHUNK_KERNELS}
    stands = {name: StandIn(kernel) for name, kernel in kernels.items()}
    try:
        for name, stand in stands.items():
            setattr(triton_kernels, name, stand)
        yield stands
    finally:
        for name, kernel in kernels.items():
            setattr(triton_kernels, name, kernel)


def tune(
    dtypes: list[torch.dtype],
    head_dim: int,
    device: torch.device,
    *,
    timer: Callable[[Callable[[], Any]], float],
    candidates: Iterable[Launch] = CANDIDATES,
    lengths: tuple[int, ...] = LENGTHS,
    width: int = WIDTH,
) -> tuple[dict[str, Launch], dict[str, dict[str, float]]]:
    """The fastest right launch of each kernel, and the times that say so.

    Args:
        dtypes: Dtypes that share a row of the table, so all of one size; their times are added.
        head_dim: Size of a head.
        device: The GPU.
        timer: Gives the milliseconds that a call takes.
        candidates: Launches to try for each kernel.
        lengths: Tokens of each image of the pack that is timed and checked.
        width: Columns of the model, all heads together.

    Returns:
        Launches by kernel, without those where the table's is best; and by kernel the milliseconds of the table's
        launch and of the chosen one.

    Raises:
        RuntimeError: A launch of the table gives wrong results here: there is nothing to compare with.
    """
    num_heads = width // head_dim
    problems = [self_test.Problem(device, dtype, head_dim, lengths=lengths, num_heads=num_heads) for dtype in dtypes]
    chosen, times = {}, {}
    with stand_ins() as stands:
        for name, stand in stands.items():
            table = measure(stand, problems, timer)
            if isinstance(table, str):
                raise RuntimeError(f"{name} with the launch of the table: {table}")
            best, best_time = None, table * (1 - MARGIN)
            for candidate in candidates:
                stand.entry = candidate
                result = measure(stand, problems, timer)
                logger.info("%s %s: %s", name, tuple(candidate), _in_words(result))
                if not isinstance(result, str) and result < best_time:
                    best, best_time = candidate, result
            # The kernels that are tuned after this one are checked together with what was chosen here.
            stand.entry = best
            times[name] = {"table": table, "chosen": table if best is None else best_time}
            if best is not None:
                chosen[name] = best
    return chosen, times


def measure(
    stand: StandIn, problems: list[self_test.Problem], timer: Callable[[Callable[[], Any]], float]
) -> float | str:
    """Milliseconds of a stand-in's launch over all problems, or why it cannot be taken."""
    from triton.runtime.errors import OutOfResources, PTXASError

    from turingvit_hf.kernels.linear_attention import triton_backend

    total = 0.0
    for problem in problems:
        try:
            errors = problem.errors(triton_backend.linear_attention)
        except (OutOfResources, PTXASError) as error:
            return str(error).splitlines()[0]
        if stand.spills:
            return f"{stand.spills} registers spill in {problem.dtype}"
        worst = max(errors, key=lambda name: errors[name])
        # not `>`: NaN is wrong, too
        if not errors[worst] <= self_test.TOLERANCE[problem.dtype]:
            return f"{worst} is off by {errors[worst]:.1e} in {problem.dtype}"
        assert stand.last is not None
        total += timer(stand.last)
    return total


def _in_words(result: float | str) -> str:
    return result if isinstance(result, str) else f"{result * 1000:.1f} us"


def gpu_milliseconds(run: Callable[[], Any], *, warm_up: int = 3, repeats: int = 30) -> float:
    """The median time of a launch with nothing of its data in the L2 cache, in milliseconds."""
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for _ in range(warm_up):
        run()
    for start, stop in pairs:
        # Longer than it takes to queue a launch, so that none is waited for.
        flush.zero_()
        start.record()
        run()
        stop.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in pairs)


def tuned_table(dtypes: list[torch.dtype], sizes: list[int], device: torch.device, **options) -> dict[str, Any]:
    """The contents of a launch file: what `tune` chose for each size of an element and of a head.

    Args:
        dtypes: Dtypes to tune for; those of one size share launches.
        sizes: Head sizes to tune for.
        device: The GPU.
        **options: Passed on to `tune`.
    """
    from turingvit_hf.kernels.linear_attention import triton_backend

    rows: dict[str, dict[str, Any]] = {}
    times: dict[str, Any] = {}
    for bits in sorted({dtype.itemsize * 8 for dtype in dtypes}):
        for head_dim in sizes:
            alike = [dtype for dtype in dtypes if dtype.itemsize * 8 == bits]
            logger.info("%s, heads of %d", ", ".join(map(str, alike)), head_dim)
            chosen, times[f"{bits} bits, heads of {head_dim}"] = tune(alike, head_dim, device, **options)
            launches = {name: launch._asdict() for name, launch in chosen.items()}
            rows.setdefault(str(bits), {})[str(head_dim)] = launches
    return {"launches": {triton_backend.launch_family(device): rows}, "about": {"milliseconds": times}}


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, tunes and writes the file."""
    parser = argparse.ArgumentParser(prog="python -m turingvit_hf.kernels.tune", description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=["bfloat16", "float16"])
    parser.add_argument("--head-dim", nargs="+", type=int, default=[64])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write; replaced if it is there")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if not torch.cuda.is_available():
        parser.error("kernels are tuned on the GPU that they will run on, and torch sees none here")
    import triton

    from turingvit_hf.kernels.linear_attention import triton_backend

    device, dtypes = torch.device("cuda", torch.cuda.current_device()), [DTYPES[name] for name in parsed.dtype]
    for dtype, head_dim in itertools.product(dtypes, parsed.head_dim):
        if (reason := triton_backend.why_not(device, dtype, head_dim)) is not None:
            parser.error(reason)
    table = tuned_table(dtypes, parsed.head_dim, device, timer=gpu_milliseconds)
    table["about"] |= {
        "gpu": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "dtypes": parsed.dtype,
    }
    parsed.out.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    logger.info("wrote %s; %s=%s makes the kernels use it", parsed.out, FILE_VARIABLE, parsed.out)


if __name__ == "__main__":
    main()
