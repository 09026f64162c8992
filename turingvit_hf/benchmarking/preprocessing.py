# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""`turingvit benchmark preprocessing`: image processors on the same pictures, with the same number of output pixels.

Every processor has patches of 16 x 16 pixels and the same budget. They round sizes differently, so pictures are drawn
until all of them give the same grid; all are larger than the budget and shrunk by the same factors.
"""

import importlib.util
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import transformers
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

from turingvit_hf.benchmarking.figure_files import LEGEND, Bars, begin_figures, save_figures, timing_record
from turingvit_hf.benchmarking.options import PreprocessingOptions, check_run
from turingvit_hf.benchmarking.pictures import as_jpeg, choose_sizes, decode, make_pictures
from turingvit_hf.benchmarking.report import describe, environment, markdown_table
from turingvit_hf.benchmarking.timing import time_interleaved
from turingvit_hf.errors import InputError
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


logger = logging.getLogger(__name__)

NAME = "preprocessing"
PATCH = 16
# longer sides of the pictures, in multiples of the side of a square of as many patches as the budget
SIDES = (1.25, 2.5)
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
OURS, FLOOR, DECODING = "TuringViT", "Pillow's resize alone", "JPEG decoding alone"


def run_preprocessing(options: PreprocessingOptions) -> dict[str, Any]:
    """Times image processors and returns the figures, which stand in `preprocessing.json`, `.md` and `.png`.

    Files are written after each budget; a later run with the same folder leaves out those with as many runs.

    Args:
        options: what is measured.

    Raises:
        InputError: an option has no such value, or the folder has figures of another machine or setting.
    """
    check_run(options)
    if options.device != "cpu":
        raise InputError(f"device={options.device!r}: pictures are prepared on cpu")
    for patches in options.max_patches:
        if patches < 4:
            raise InputError(f"max_patches={patches}: it is 4 or more")
    threads_before = torch.get_num_threads()
    torch.set_num_threads(options.threads or threads_before)
    try:
        figures = begin_figures(options.out, NAME, "Image processors", options.device, {"pictures": options.pictures})
        for patches in options.max_patches:
            earlier = figures["runs"].get(str(patches))
            if earlier and all(len(form["seconds"]) >= options.repeats for form in earlier["forms"].values()):
                logger.info("%d patches: measured already", patches)
                continue
            figures["runs"][str(patches)] = measure_budget(patches, options)
            figures["runs"] = dict(sorted(figures["runs"].items(), key=lambda entry: int(entry[0])))
            save_figures(figures, options.out, NAME, preprocessing_page(figures), _bars(figures))
    finally:
        torch.set_num_threads(threads_before)
    logger.info("\n%s\n%s\n\n%s", table_of_budgets(figures), LEGEND, "\n".join(describe_budgets(figures)))
    return figures


def make_processors(patches: int) -> dict[str, Callable[..., Any]]:
    """By name, each processor that can run here, with a budget of patches a picture; the filter is in the name.

    Qwen2-VL writes a picture as two equal frames, so its output has twice the values.
    """
    processors: dict[str, Callable[..., Any]] = {}
    for name, resample in FILTERS.items():
        processors[f"{OURS}, {name}"] = TuringViTImageProcessor(
            max_patches=patches, do_pack=True, patch_size=PATCH, resample=resample
        )
    kinds = {"PIL": "Pil"} | ({"torchvision": ""} if importlib.util.find_spec("torchvision") else {})
    for kind, ending in kinds.items():
        siglip2 = getattr(transformers, f"Siglip2ImageProcessor{ending}")
        for name, resample in FILTERS.items():
            processors[f"SigLIP2 ({kind}), {name}"] = siglip2(
                max_num_patches=patches, patch_size=PATCH, resample=resample
            )
        qwen = getattr(transformers, f"Qwen2VLImageProcessor{ending}")
        size = {"shortest_edge": PATCH**2, "longest_edge": patches * PATCH**2}
        processors[f"Qwen2-VL ({kind}), bicubic"] = qwen(size=size, patch_size=PATCH, merge_size=1)
    return processors


def grid_functions(patches: int) -> list[Callable[[int, int], tuple[int, int]]]:
    """Rows and columns of patches that each processor gives an image of (height, width)."""
    ours = TuringViTImageProcessor(max_patches=patches, patch_size=PATCH)

    def siglip2(height: int, width: int) -> tuple[int, int]:
        rows, columns = get_image_size_for_max_num_patches(height, width, PATCH, patches)
        return rows // PATCH, columns // PATCH

    def qwen(height: int, width: int) -> tuple[int, int]:
        rows, columns = smart_resize(height, width, PATCH, PATCH**2, patches * PATCH**2)
        return rows // PATCH, columns // PATCH

    return [ours.get_grid, siglip2, qwen]


def patches_of(output: Mapping[str, Any]) -> int:
    """How many patches of pictures a processor's output holds, without padding."""
    if "spatial_shapes" in output:
        return int(output["spatial_shapes"].prod(-1).sum())
    return int(output["image_grid_thw"].prod(-1).sum())


def measure_budget(patches: int, options: PreprocessingOptions) -> dict[str, Any]:
    """Times all processors on pictures of one budget and returns what the file of figures has of it."""
    side = PATCH * patches**0.5
    grids = grid_functions(patches)
    sizes = choose_sizes(options.pictures, SIDES[0] * side, SIDES[1] * side, grids)
    targets = [tuple(PATCH * count for count in grids[0](*size)) for size in sizes]
    pictures = make_pictures(sizes)
    jpegs = [as_jpeg(picture) for picture in pictures]
    num_patches = sum(height * width for height, width in targets) // PATCH**2
    forms: dict[str, Callable[[], Any]] = {}
    for name, processor in make_processors(patches).items():
        forms[name] = partial(processor, pictures, return_tensors="pt")
        if (found := patches_of(forms[name]())) != num_patches:
            raise RuntimeError(f"{name} gives {found} patches, {num_patches} were expected")
    for name, resample in FILTERS.items():
        forms[f"{FLOOR}, {name}"] = lambda resample=resample: [
            picture.resize((width, height), resample)
            for picture, (height, width) in zip(pictures, targets, strict=True)
        ]
    forms[DECODING] = lambda: [decode(jpeg) for jpeg in jpegs]
    timings = time_interleaved(forms, options.repeats, warmup=options.warmup)
    return {
        "patches": num_patches,
        "source_megapixels": sum(height * width for height, width in sizes) / 1e6,
        "environment": environment(torch.device("cpu")),
        "forms": {name: timing_record(timing, options.pictures) for name, timing in timings.items()},
    }


def ratio(run: Mapping[str, Any], name: str) -> float | None:
    """How many times the time of TuringViT's processor with the same filter a form takes, by best runs."""
    ours = run["forms"].get(f"{OURS}, {name.rpartition(', ')[2]}")
    return None if ours is None else run["forms"][name]["best"] / ours["best"]


def describe_budgets(figures: Mapping[str, Any]) -> list[str]:
    """What follows from the times: our images/s against the others', nearness to the floor, share of decoding."""
    lines = []
    for patches, run in figures["runs"].items():
        for name in FILTERS:
            others = [form for form in run["forms"] if form.endswith(f"), {name}")]
            times = ", ".join(f"{ratio(run, form):.2f} of {form.partition(',')[0]}" for form in others)
            floor, ours = (run["forms"][f"{form}, {name}"]["best"] for form in (FLOOR, OURS))
            lines.append(
                f"{patches} patches, {name}: times the images/s: {times}; Pillow's resize alone is "
                f"{100 * floor / ours:.0f} % of our time"
            )
        decoding, ours = run["forms"][DECODING]["best"], run["forms"][f"{OURS}, bicubic"]["best"]
        lines.append(f"{patches} patches, from JPEG: decoding is {100 * decoding / (decoding + ours):.0f} % of both")
    return lines


def table_of_budgets(figures: Mapping[str, Any]) -> str:
    """Milliseconds a picture and images/s, a row for each budget and form."""
    columns = ("most patches, form", "ms a picture, best", "median", "spread", "images/s", "time / ours, same filter")
    rows = []
    for patches, run in figures["runs"].items():
        for name, form in run["forms"].items():
            times = ratio(run, name)
            count = form["best"] * form["images_per_second"]
            rows.append(
                (
                    f"{patches}, {name}",
                    f"{1e3 * form['best'] / count:,.2f}",
                    f"{1e3 * form['median'] / count:,.2f}",
                    f"{100 * form['spread']:.0f} %",
                    f"{form['images_per_second']:,.1f}",
                    "" if times is None else f"{times:.2f}",
                )
            )
    return markdown_table(columns, rows)


def preprocessing_page(figures: Mapping[str, Any]) -> str:
    """All of it as a page of markdown."""
    sources = ", ".join(
        f"{patches}: {run['source_megapixels'] / figures['settings']['pictures']:.2f}"
        for patches, run in figures["runs"].items()
    )
    return "\n".join(
        (
            "# Image processors\n",
            f"{describe(figures['settings'])}. Pictures in memory, RGB, of which every processor makes the same "
            f"grid of patches; megapixels a picture by budget: {sources}.\n",
            table_of_budgets(figures),
            f"{LEGEND}\n",
            *(f"- {line}" for line in describe_budgets(figures)),
            "",
        )
    )


def _bars(figures: Mapping[str, Any]) -> Bars:
    groups = {
        f"at most {int(patches):,} patches": {name: form["images_per_second"] for name, form in run["forms"].items()}
        for patches, run in figures["runs"].items()
    }
    settings = figures["settings"]
    return Bars(f"Image processors: {settings['processor']}, {settings['clock']}", "images/s", groups)
