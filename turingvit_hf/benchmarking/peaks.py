# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The most memory that a forward takes: of a GPU as torch counts it, of a CPU in a process that does nothing else."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from turingvit_hf.benchmarking.forwards import cast_inputs
from turingvit_hf.benchmarking.options import DTYPES
from turingvit_hf.benchmarking.timing import peak_memory
from turingvit_hf.benchmarking.towers import Tower
from turingvit_hf.benchmarking.weights import SharedWeights, build_empty


def cuda_peak(run: Callable[[], object], weights_gib: float, device: torch.device) -> dict[str, Any]:
    """Weights and the peak of a forward, in GiB; what else lies on the GPU is left out."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    during = (torch.cuda.max_memory_allocated(device) - before) / 2**30
    return {"weights_gib": weights_gib, "peak_gib": weights_gib + during, "of": "tensors on the GPU"}


def process_peak(tower: Tower, side: int, batch: int, dtype: str, threads: int) -> dict[str, Any]:
    """A process that builds the tower and runs one eager forward on the CPU: its peak in GiB, and that before it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_here, tower, side, batch, dtype, threads).result()


def _peak_here(tower: Tower, side: int, batch: int, dtype: str, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    model = build_empty(tower, side)
    weights = SharedWeights(DTYPES[dtype], device)
    weights.fill([model])
    before = peak_memory()
    with torch.inference_mode():
        model(**cast_inputs(tower.inputs(side, batch, device), dtype))
    return {"weights_gib": before, "peak_gib": peak_memory(), "of": "a process of its own, libraries included"}
