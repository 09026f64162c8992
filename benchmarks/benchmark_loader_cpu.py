# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How full the packs of pretraining are, and how many pictures a second one process of the loader makes ready."""

import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from harness import Report, clock, parse_arguments
from PIL import Image

from turingvit_hf import TuringViTImageProcessor
from turingvit_hf.processing.geometry import draw_longer_sides, target_size
from turingvit_hf.training.arguments import DataRecipe, ResolutionRecipe, SourceRecipe
from turingvit_hf.training.collators import MaskedImagePackCollator
from turingvit_hf.training.data.step_loader import StepLoader
from turingvit_hf.training.data.token_packs import TokenPool


FILL_GOAL = 97  # percent
NUM_OPEN = 8
# resolution, cap in patches, budget in patches, median pixels of the pictures
FILLS = (
    ("bounded", 9216, 2048, 350_000),
    ("bounded", 9216, 16384, 350_000),
    ("native", 9216, 16384, 350_000),
    ("native", 9216, 32768, 350_000),
    ("native", 9216, 16384, 1_500_000),
    ("native", 9216, 32768, 1_500_000),
)


def picture_sizes(num_pictures: int, median_pixels: int) -> Iterator[tuple[int, int]]:
    """(height, width) as on the web: area log-normal with sigma 0.9, aspect ratio with sigma 0.35, rather wide."""
    rng = random.Random(0)
    for _ in range(num_pictures):
        area, aspect = median_pixels * math.exp(rng.gauss(0, 0.9)), math.exp(rng.gauss(0.1, 0.35))
        yield max(1, round(math.sqrt(area / aspect))), max(1, round(math.sqrt(area * aspect)))


def fill_of(resolution: str, cap: int, budget: int, *, median_pixels: int, num_pictures: int) -> tuple[float, float]:
    """Share of the budget that patches take, and pictures a pack."""
    pool, filled, num_packs, num_packed = TokenPool(budget, NUM_OPEN), 0, 0, 0
    sides = draw_longer_sides(num_pictures, 0)
    for size, longer_side in zip(picture_sizes(num_pictures, median_pixels), sides, strict=True):
        height, width = target_size(*size, resolution=resolution, max_patches=cap, longer_side=longer_side)
        length = height * width // 256
        pool.add(length, length)
        while (pack := pool.take()) is not None:
            filled, num_packs, num_packed = filled + sum(pack), num_packs + 1, num_packed + len(pack)
    return filled / (num_packs * budget), num_packed / num_packs


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
    rows = []
    for resolution, cap, budget, median_pixels in FILLS:
        num_pictures = 500 if options.smoke else 20_000
        fill, num_packed = fill_of(resolution, cap, budget, median_pixels=median_pixels, num_pictures=num_pictures)
        name = f"{resolution}, median {median_pixels / 1e6:.2f} megapixels, {budget} patches a pack"
        rows.append((name, f"{100 * fill:.2f}", f"{num_packed:.1f}"))
    report.table(f"Fill choosing from {NUM_OPEN} packs", ("pictures and packs", "percent", "pictures a pack"), rows)
    for name, percent, _ in rows:
        report.goal(f"fill, {name}", float(percent), ">=", FILL_GOAL, "percent")
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
