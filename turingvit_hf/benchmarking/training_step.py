# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""`turingvit benchmark training`: a step on ragged images, packed, padded with their sizes, and padded without."""

import logging
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from turingvit_hf.benchmarking.figure_files import LEGEND, Bars, begin_figures, save_figures, timing_record
from turingvit_hf.benchmarking.options import DTYPES, TrainingStepOptions, check_run, resolve_dtype
from turingvit_hf.benchmarking.pictures import draw_size
from turingvit_hf.benchmarking.report import describe, environment, markdown_table
from turingvit_hf.benchmarking.timing import peak_memory, time_interleaved
from turingvit_hf.benchmarking.towers import PATCH, TowerSize
from turingvit_hf.errors import InputError
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel


logger = logging.getLogger(__name__)

NAME = "training"
PACKED, FRAME, LONGEST = "packed", "padded, with image_sizes", "padded to the longest, no mask"
FORMS = (PACKED, FRAME, LONGEST)
HEAD = 64


def run_training_step(options: TrainingStepOptions) -> dict[str, Any]:
    """Times training steps and returns the figures, which stand in `training.json`, `.md` and `.png`.

    A step is the forward of a tower with its pooling head, the backward of the mean square of what is pooled, and one
    of AdamW. Weights are float32; another dtype is that of autocast. All forms train one tower in turn; for peak
    memory each runs once more, on a CPU in a process of its own.

    A later run with the same folder adds its layers, images, tokens and dtype, or leaves out what is there.

    Args:
        options: what is measured.

    Raises:
        InputError: an option has no such value, or the folder has figures of another machine.
    """
    check_run(options)
    options = replace(options, dtype=resolve_dtype(options.dtype))
    for name in ("layers", "images", "tokens"):
        if getattr(options, name) < 1:
            raise InputError(f"{name}={getattr(options, name)}: it is 1 or more")
    if options.tokens < 4 * options.images:
        raise InputError(f"tokens={options.tokens}: {options.images} images have at least 4 each")
    if options.width < HEAD or options.width % HEAD:
        raise InputError(f"width={options.width}: it is a multiple of {HEAD}")
    size = TowerSize(options.layers, options.width, options.width // HEAD, 4 * options.width)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(options.threads or threads_before)
    try:
        figures = begin_figures(options.out, NAME, "One training step", options.device, {})
        key = f"{size.layers} layers x {size.width}, {options.images} images, {options.tokens} tokens, {options.dtype}"
        earlier = figures["runs"].get(key)
        if earlier and all(len(form["seconds"]) >= options.repeats for form in earlier["forms"].values()):
            logger.info("%s: measured already", key)
        else:
            figures["runs"][key] = measure_step(options, size)
            save_figures(figures, options.out, NAME, training_page(figures), _bars(figures))
    finally:
        torch.set_num_threads(threads_before)
    logger.info("\n%s\n%s\n\n%s", table_of_steps(figures), LEGEND, "\n".join(describe_steps(figures)))
    return figures


def ragged_grid(num_images: int, tokens: int) -> torch.Tensor:
    """`image_grid_thw` (N, 3) of images in common aspects, the longest side twice the shortest, of about `tokens`."""
    generator = np.random.default_rng(0)
    sides = np.array([draw_size(generator, 1000, 2000) for _ in range(num_images)], dtype=np.float64)
    sides *= (tokens / sides.prod(axis=1).sum()) ** 0.5
    return torch.tensor([(1, *(max(1, round(side)) for side in image)) for image in sides.tolist()])


def make_inputs(form: str, grid: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor]:
    """The inputs of these images in one of FORMS; their pixels do not matter.

    Padded with `image_sizes` they share the greatest height and width, and the tower drops the padding. Padded to the
    longest, each has as many tokens as the image with most. This is what a common length costs this tower at the
    least: a mask, which would only add to it, is not applied.
    """
    if form == PACKED:
        pixels = torch.randn(int(grid.prod(-1).sum()), 3 * PATCH**2, device=device)
        return {"pixel_values": pixels, "image_grid_thw": grid.to(device)}
    if form == FRAME:
        height, width = (grid[:, 1:].amax(0) * PATCH).tolist()
        pixels = torch.randn(len(grid), 3, height, width, device=device)
        return {"pixel_values": pixels, "image_sizes": (grid[:, 1:] * PATCH).to(device)}
    height, width = (grid[grid.prod(-1).argmax(), 1:] * PATCH).tolist()
    return {"pixel_values": torch.randn(len(grid), 3, height, width, device=device)}


def tokens_of(form: str, grid: torch.Tensor) -> int:
    """How many tokens the tower computes."""
    tokens = grid.prod(-1)
    return int(len(grid) * tokens.max()) if form == LONGEST else int(tokens.sum())


def make_step(size: TowerSize, dtype: str, device: torch.device) -> Callable[[Mapping[str, torch.Tensor]], float]:
    """Builds a tower and its optimizer; the function returned takes inputs, makes a step and returns its loss."""
    torch.manual_seed(0)
    config = TuringViTConfig(
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.mlp_width,
        layer_types=layer_types(size.layers),
    )
    model: nn.Module = TuringViTModel(config)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(inputs: Mapping[str, torch.Tensor]) -> float:
        optimizer.zero_grad()
        with torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "float32"):
            loss = model(**inputs).pooler_output.float().square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def layer_types(layers: int) -> list[str]:
    """Five layers of linear attention, one of softmax attention, and so on; the last of fewer than six is softmax."""
    kinds = ["full_attention" if number % 6 == 0 else "linear_attention" for number in range(1, layers + 1)]
    return [*kinds[:-1], "full_attention"] if layers < 6 else kinds


def measure_step(options: TrainingStepOptions, size: TowerSize) -> dict[str, Any]:
    """Times all forms and returns what the file of figures has of them."""
    device = torch.device(options.device)
    grid = ragged_grid(options.images, options.tokens)
    record: dict[str, Any] = {"images": options.images, "environment": environment(device)}
    record["grid"] = grid[:, 1:].tolist()
    step = make_step(size, options.dtype, device)
    inputs = {form: make_inputs(form, grid, device) for form in FORMS}
    steps = {form: partial(step, inputs[form]) for form in FORMS}
    timings = time_interleaved(steps, options.repeats, warmup=options.warmup, device=device)
    record["forms"] = {
        form: {"tokens": tokens_of(form, grid), **timing_record(timing, options.images)}
        for form, timing in timings.items()
    }
    for form in FORMS:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            steps[form]()
            peak = {"peak_gib": torch.cuda.max_memory_allocated(device) / 2**30, "of": "tensors on the GPU"}
        else:
            peak = process_peak(form, grid, size, options.dtype)
        record["forms"][form] |= peak
    return record


def process_peak(form: str, grid: torch.Tensor, size: TowerSize, dtype: str) -> dict[str, Any]:
    """A process that makes two steps of one form on the CPU: its peak in GiB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        peak = pool.submit(_peak_here, form, grid.tolist(), size, dtype, torch.get_num_threads()).result()
    return {"peak_gib": peak, "of": "a process of its own, libraries included"}


def _peak_here(form: str, grid: list[list[int]], size: TowerSize, dtype: str, threads: int) -> float:
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    step, inputs = make_step(size, dtype, device), make_inputs(form, torch.tensor(grid), device)
    for _ in range(2):  # from the second one on the optimizer's moments are there during the forward
        step(inputs)
    return peak_memory()


def describe_steps(figures: Mapping[str, Any]) -> list[str]:
    """How packing compares with padding, in time and memory."""
    lines = []
    for name, run in figures["runs"].items():
        packed = run["forms"][PACKED]
        for form in FORMS[1:]:
            other = run["forms"][form]
            lines.append(
                f"{name}: packed gives {other['best'] / packed['best']:.2f} times the images/s of {form}; it computes "
                f"{packed['tokens']:,} tokens against {other['tokens']:,} and takes {packed['peak_gib']:.2f} GiB "
                f"against {other['peak_gib']:.2f}"
            )
    return lines


def table_of_steps(figures: Mapping[str, Any]) -> str:
    """Times, tokens and memory, a row for each run and form."""
    columns = ("step, form", "tokens computed", "s, best", "median", "spread", "images/s", "tokens/s", "GiB, peak")
    rows = [
        (
            f"{name}: {form}",
            f"{entry['tokens']:,}",
            f"{entry['best']:,.3f}",
            f"{entry['median']:,.3f}",
            f"{100 * entry['spread']:.0f} %",
            f"{entry['images_per_second']:,.3g}",
            f"{entry['tokens'] / entry['best']:,.0f}",
            f"{entry['peak_gib']:.2f}",
        )
        for name, run in figures["runs"].items()
        for form, entry in run["forms"].items()
    ]
    return markdown_table(columns, rows)


def training_page(figures: Mapping[str, Any]) -> str:
    """All of it as a page of markdown."""
    runs = list(figures["runs"].values())
    memory = f"\nMemory: {runs[0]['forms'][PACKED]['of']}.\n" if runs else ""
    lines = [f"- {line}" for line in describe_steps(figures)]
    head = f"{describe(figures['settings'])}. Random weights; forward, backward, AdamW.\n"
    return "\n".join(("# One training step\n", head, table_of_steps(figures), f"{LEGEND}\n", *lines, memory))


def _bars(figures: Mapping[str, Any]) -> Bars:
    groups = {
        name.replace(" images, ", " images,\n"): {
            form: entry["images_per_second"] for form, entry in run["forms"].items()
        }
        for name, run in figures["runs"].items()
    }
    return Bars(f"One training step: {figures['settings']['processor']}", "images/s", groups)
