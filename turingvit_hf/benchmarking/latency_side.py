# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""All towers on images of one side, in turn: what is measured between two times of saving."""

import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from turingvit_hf.benchmarking.counting import ForwardCount, Product, count_forward
from turingvit_hf.benchmarking.forwards import Forward, prepare
from turingvit_hf.benchmarking.matmul_rate import large_products, product_functions, product_name, product_rate
from turingvit_hf.benchmarking.operations import operator_seconds, shares_by_kind
from turingvit_hf.benchmarking.options import DTYPES, LatencyOptions
from turingvit_hf.benchmarking.peaks import cuda_peak, process_peak
from turingvit_hf.benchmarking.report import environment
from turingvit_hf.benchmarking.timing import Timing, time_interleaved
from turingvit_hf.benchmarking.towers import PATCH, Tower
from turingvit_hf.benchmarking.weights import SharedWeights, build_empty


logger = logging.getLogger(__name__)


def measure_side(
    towers: Sequence[Tower], side: int, options: LatencyOptions, weights: SharedWeights
) -> dict[str, Any]:
    """Times towers on square images and returns what the file of figures has of this side.

    Each tower runs once to warm up, which also tells whether it can run at all; then come the remaining warm-up
    rounds and the timed ones, all towers in turn and the matrix products between them.

    Args:
        towers: to measure; one that fails is left out, with the reason.
        side: of the images, in pixels.
        options: with the full name of the dtype.
        weights: what the towers have their weights in.
    """
    device = torch.device(options.device)
    record: dict[str, Any] = {
        "patches": (side // PATCH) ** 2,
        "environment": environment(device),
        "towers": {},
        "failed": {},
    }
    counts = {tower.name: count_forward(tower, side, options.batch) for tower in towers}
    with ExitStack() as stack:
        folder = Path()
        if options.mode == "onnxruntime":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.out, prefix=".onnx.")))
        models = {tower.name: build_empty(tower, side) for tower in towers}
        weights.fill(list(models.values()))
        if options.mode == "compiled":
            # a function is compiled eight times at most, and then no more; between towers of a side this would make
            # the first timed run of each compile again
            torch._dynamo.reset()
        forwards: dict[str, Forward] = {}
        for tower in towers:
            try:
                model = models.pop(tower.name)
                forwards[tower.name] = _first_run(model, tower, side, options, folder / tower.name)
            except Exception as error:  # of any library between here and the device: the others are still measured
                if options.mode == "eager" and not isinstance(error, torch.OutOfMemoryError):
                    raise
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                record["failed"][tower.name] = reason
                logger.warning("%d x %d: %s cannot run: %s", side, side, tower.name, reason)
        rated: set[Product] = set()
        if options.matmul_rate:
            rated = {product for name in forwards for product in large_products(counts[name])}
        timings, products = _time(forwards, rated, side, options)
        for tower in towers:
            if tower.name in forwards:
                record["towers"][tower.name] = _describe(
                    tower, side, options, forwards[tower.name], timings[tower.name], counts[tower.name], products
                )
        record["products"] = {product_name(product): time.seconds for product, time in products.items()}
        record["environment"]["load_at_end"] = environment(device)["load"]
    return record


def _first_run(model: nn.Module, tower: Tower, side: int, options: LatencyOptions, folder: Path) -> Forward:
    """A tower's forward, run once."""
    device = torch.device(options.device)
    # a session of ONNX Runtime has its own copy of everything
    inputs = tower.inputs(side, options.batch, torch.device("cpu") if options.mode == "onnxruntime" else device)
    forward = prepare(model, inputs, mode=options.mode, dtype=options.dtype, device=device, folder=folder)
    forward.run()
    if forward.prepare_seconds is None:
        logger.info("%d x %d: %s is warm", side, side, tower.name)
    else:
        logger.info("%d x %d: %s was ready after %.0f s", side, side, tower.name, forward.prepare_seconds)
    return forward


def _time(
    forwards: dict[str, Forward], rated: set[Product], side: int, options: LatencyOptions
) -> tuple[dict[str, Timing], dict[Product, Timing]]:
    """Timings of towers and of products, all in turn."""
    device = torch.device(options.device)
    runs = {name: forward.run for name, forward in forwards.items()}
    products = product_functions(sorted(rated), DTYPES[options.dtype], device) if rated else {}

    def say(done: int) -> None:
        logger.info("%d x %d: %d of %d rounds", side, side, done, options.repeats)

    named = {product: product_name(product) for product in products}
    timings = time_interleaved(
        runs | {named[product]: run for product, run in products.items()},
        options.repeats,
        warmup=max(0, options.warmup - 1),
        device=device,
        on_round=say,
    )
    return {name: timings[name] for name in runs}, {product: timings[name] for product, name in named.items()}


def _describe(
    tower: Tower,
    side: int,
    options: LatencyOptions,
    forward: Forward,
    timing: Timing,
    count: ForwardCount,
    products: dict[Product, Timing],
) -> dict[str, Any]:
    """What the file of figures has of one tower on one side."""
    device = torch.device(options.device)
    figures: dict[str, Any] = {
        "seconds": timing.seconds,
        "best": timing.best,
        "median": timing.median,
        "spread": timing.spread,
        "images_per_second": options.batch / timing.median,
        "parameters": count.parameters,
        "flops": count.flops,
        "linear_layer_flops": count.product_flops,
    }
    if forward.prepare_seconds is not None:
        figures["prepare_seconds"] = forward.prepare_seconds
    if products:
        rate = product_rate(count, {product: time.best for product, time in products.items()})
        floor = count.flops / rate
        figures |= {"matmul_rate": rate, "floor_seconds": floor, "floor_share": floor / timing.best}
    if options.operations and options.mode == "eager":
        seconds = operator_seconds(forward.run, device)
        figures["operations"] = shares_by_kind(seconds)
        longest = seconds.most_common(12)
        figures["operators"] = {f"{kind}: {operator}": spent / seconds.total() for (kind, operator), spent in longest}
    if options.mode != "onnxruntime" and device.type == "cuda":
        weights_gib = count.parameters * DTYPES[options.dtype].itemsize / 2**30
        figures["memory"] = cuda_peak(forward.run, weights_gib, device)
    elif options.memory and options.mode == "eager":
        figures["memory"] = process_peak(tower, side, options.batch, options.dtype, torch.get_num_threads())
    return figures
