# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How full the packs of pretraining are, and how many pictures a second one process of the loader makes ready."""

import math
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from harness import Report, parse_arguments
from PIL import Image

from turingvit_hf import TuringViTImageProcessor
from turingvit_hf.benchmarking.timing import clock
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.processing.geometry import draw_longer_sides, target_size
from turingvit_hf.training.arguments import DataRecipe, ResolutionRecipe
from turingvit_hf.training.collators import MaskedImagePackCollator
from turingvit_hf.training.data.fitting import least_patches, smaller_grid
from turingvit_hf.training.data.step_loader import StepLoader
from turingvit_hf.training.data.token_packs import TokenPool


FILL_GOAL = 97  # percent
NUM_OPEN, MAX_SHRINK = DataRecipe().open_packs, DataRecipe().max_shrink
CAP = 9216  # patches of the largest pictures
# resolution and budget in patches
PACKS = (("bounded", 2048), ("native", 16384), ("native", 32768), ("native", 65536))
# of `web_sizes`: half of the sizes are one of these and drawn by their weights, small thumbnails to photographs
COMMON_SIZES = {(150, 150): 2, (360, 480): 2, (480, 640): 3, (500, 500): 3, (600, 800): 3, (768, 1024): 3} | {
    (628, 1200): 2,
    (720, 1280): 2,
    (1000, 1000): 1,
    (1080, 1920): 1,
    (3024, 4032): 1,
}


def picture_sizes(num_pictures: int, median_pixels: int, *, sigma: float = 0.9) -> Iterator[tuple[int, int]]:
    """(height, width) with a log-normal area, and a log-normal aspect ratio of sigma 0.35, rather wide."""
    rng = random.Random(0)
    for _ in range(num_pictures):
        area, aspect = median_pixels * math.exp(rng.gauss(0, sigma)), math.exp(rng.gauss(0.1, 0.35))
        yield max(1, round(math.sqrt(area / aspect))), max(1, round(math.sqrt(area * aspect)))


def web_sizes(num_pictures: int) -> Iterator[tuple[int, int]]:
    """(height, width) as a crawl such as LAION has them: a wide log-normal, and sizes that come again and again.

    A likeness made for this benchmark, not a measurement of LAION.
    """
    rng = random.Random(1)
    common = iter(rng.choices(list(COMMON_SIZES), list(COMMON_SIZES.values()), k=num_pictures))
    for size in picture_sizes(num_pictures, 250_000, sigma=1.1):
        yield next(common) if rng.random() < 0.5 else size


def camera_sizes(num_pictures: int) -> Iterator[tuple[int, int]]:
    """(height, width) of photographs by a telephone: all far above the cap, in two positions."""
    return (((3024, 4032), (4032, 3024))[number % 3 == 0] for number in range(num_pictures))


SIZES: dict[str, Callable[[int], Iterator[tuple[int, int]]]] = {
    f"log-normal, median {megapixels} megapixels": partial(picture_sizes, median_pixels=round(1e6 * megapixels))
    for megapixels in (0.35, 1, 1.5, 3)
} | {"like a crawl of the web": web_sizes, "12-megapixel camera": camera_sizes}


class Fill(NamedTuple):
    """How full packs are.

    Attributes:
        share: of the budget that patches take.
        num_packed: pictures a pack.
        changed: share of the pictures that are made smaller.
        mean_shrink: share of their sides that these lose, on average.
        longest_wait: packs that were made while a picture waited for its own.
    """

    share: float
    num_packed: float
    changed: float
    mean_shrink: float
    longest_wait: int


def fill_of(sizes: Iterable[tuple[int, int]], resolution: str, budget: int, *, max_shrink: float) -> Fill:
    """What becomes of pictures of these sizes."""
    sizes = list(sizes)
    pool, used, shrinks, num_packed, longest_wait = TokenPool(budget, NUM_OPEN), [], [], 0, 0
    for size, longer_side in zip(sizes, draw_longer_sides(len(sizes), 0), strict=True):
        height, width = target_size(*size, resolution=resolution, max_patches=CAP, longer_side=longer_side)
        grid = height // 16, width // 16
        least = least_patches(grid, max_shrink) if resolution == "native" else None
        pool.add((grid, len(used)), math.prod(grid), least)
        while (pack := pool.take()) is not None:
            lengths = [
                math.prod(grid if room == math.prod(grid) else smaller_grid(grid, room, max_shrink))
                for (grid, _), room in pack
            ]
            for length, ((grid, first), _) in zip(lengths, pack, strict=True):
                shrinks += [1 - math.sqrt(length / math.prod(grid))] * (length < math.prod(grid))
                longest_wait = max(longest_wait, len(used) - first)
            used.append(sum(lengths))
            num_packed += len(pack)
    mean_shrink = sum(shrinks) / max(1, len(shrinks))
    return Fill(
        sum(used) / (len(used) * budget), num_packed / len(used), len(shrinks) / num_packed, mean_shrink, longest_wait
    )


def report_fills(report: Report) -> None:
    """A row for each kind of sizes and packs, without and with pictures that give way, and the goals."""
    rows, goals = [], []
    for name, sizes in SIZES.items():
        for resolution, budget in PACKS:
            pictures = list(sizes(500 if report.options.smoke else 10_000))
            exact, fitted = (
                fill_of(pictures, resolution, budget, max_shrink=max_shrink) for max_shrink in (0.0, MAX_SHRINK)
            )
            row = f"{name}; {resolution}, {budget:,} a pack"
            goals.append((row, 100 * fitted.share))
            rows.append(
                (
                    row,
                    f"{100 * exact.share:.2f}",
                    f"{100 * fitted.share:.2f}",
                    f"{100 * fitted.changed:.1f}",
                    f"{100 * fitted.mean_shrink:.1f}",
                    f"{fitted.num_packed:.1f}",
                    fitted.longest_wait,
                )
            )
    columns = ("pictures and packs", "exact, %", "fill, %", "smaller, %", "by % of a side", "a pack", "longest wait")
    report.table(f"Fill choosing from {NUM_OPEN} packs; sides may lose {100 * MAX_SHRINK:.0f} %", columns, rows)
    for row, percent in goals:
        report.goal(f"fill, {row}", percent, ">=", FILL_GOAL, "percent")


def write_photos(folder: Path, num_pictures: int) -> None:
    """JPEG files of smooth random pictures in one class folder."""
    (folder / "photos").mkdir()
    generator = torch.Generator().manual_seed(0)
    for number, (height, width) in enumerate(picture_sizes(num_pictures, 350_000)):
        coarse = torch.randint(0, 256, (max(2, height // 16), max(2, width // 16), 3), generator=generator)
        picture = Image.fromarray(coarse.to(torch.uint8).numpy()).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / "photos" / f"{number}.jpg", quality=90)


def measure_loader(report: Report, name: str, resolution: ResolutionRecipe, *, folder: Path, num_steps: int) -> tuple:
    """A row of the table: pictures and megapixels of input a second, and fill."""
    budget = 16384 if not report.options.smoke else 1024
    data = DataRecipe((SourceRecipe(str(folder)),), resolution, tokens_per_pack=budget, num_readers=1)
    loader = StepLoader(data, MaskedImagePackCollator(TuringViTImageProcessor(), mask_ratio=0.4), seed=0)
    next(loader)  # opens the packs, reading ahead
    before, start = loader.counts(), clock()
    for _ in range(num_steps):
        next(loader)
    seconds, after = clock() - start, loader.counts()
    rates = [(after[key] - before[key]) / seconds for key in ("images", "patches")]
    return name, f"{rates[0]:.0f}", f"{rates[1]:,.0f}", f"{100 * loader.fill:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse_arguments(__doc__, arguments, repeats=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    report = Report("Loader of pretraining, one process", options)
    report_fills(report)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_photos(folder, 8 if options.smoke else 400)
        side = 64 if options.smoke else 256
        forms = {
            f"fixed, {side} x {side}, crop and flip": ResolutionRecipe(
                "fixed", size=side, crop_scale=(0.2, 1.0), flip=0.5
            ),
            f"bounded, {side} to {2 * side}": ResolutionRecipe("bounded", min_side=side, max_side=2 * side),
            "native": ResolutionRecipe("native", max_patches=1024 if options.smoke else 9216),
        }
        num_steps = 1 if options.smoke else 12
        table = [
            measure_loader(report, name, resolution, folder=folder, num_steps=num_steps)
            for name, resolution in forms.items()
        ]
    columns = ("resolution", "pictures/s", "patches/s", "fill in percent")
    report.table("JPEG files to packs with masks", columns, table)
    report.finish()
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
