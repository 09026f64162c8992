# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The image processor beside transformers' PIL processors of SigLIP2 and Qwen2-VL, from PIL images to model inputs."""

from collections.abc import Callable, Sequence

import numpy as np
from harness import Report, parse_arguments, photo_sizes, time_interleaved
from PIL import Image
from transformers import Qwen2VLImageProcessorPil, Siglip2ImageProcessorPil

from turingvit_hf import TuringViTImageProcessor


def make_images(sizes: Sequence[tuple[int, int]]) -> list[Image.Image]:
    """RGB pictures of these (height, width), filled with noise."""
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def make_processors(num_patches: int) -> dict[str, Callable]:
    """Each processor with a budget of patches an image; patches are 16 x 16 pixels, 14 x 14 in Qwen2-VL.

    SigLIP2 brings every image to the budget, smaller ones too, and pads to it; Qwen2-VL and TuringViT keep smaller
    ones as they are. SigLIP2 resizes bilinearly, the others bicubically.
    """
    return {
        "TuringViT": TuringViTImageProcessor(max_patches=num_patches, do_pack=True),
        "SigLIP2": Siglip2ImageProcessorPil(max_num_patches=num_patches),
        "Qwen2-VL": Qwen2VLImageProcessorPil(size={"shortest_edge": 56**2, "longest_edge": num_patches * 14**2}),
    }


def measure(report: Report, images: list[Image.Image], num_patches: int) -> None:
    """Images/s and megapixels of output a second, and ratios of both."""
    processors = make_processors(num_patches)
    timings = time_interleaved(
        {
            name: lambda processor=processor: processor(images, return_tensors="pt")
            for name, processor in processors.items()
        },
        report.options.repeats,
    )
    pixels = {name: p(images, return_tensors="pt")["pixel_values"].numel() / 3 for name, p in processors.items()}
    pixels["Qwen2-VL"] /= 2  # it writes a still image as two equal frames
    ours = timings["TuringViT"].best
    rows = [
        (
            name,
            timing.text,
            f"{len(images) / timing.best:.1f}",
            f"{pixels[name] / timing.best / 1e6:.1f}",
            f"{timing.best / ours:.2f}",
            f"{timing.best / pixels[name] / (ours / pixels['TuringViT']):.2f}",
        )
        for name, timing in timings.items()
    ]
    columns = (
        "processor",
        "ms: best / median / worst",
        "images/s",
        "megapixels/s",
        "time an image / ours",
        "time a pixel / ours",
    )
    report.table(f"{len(images)} pictures, at most {num_patches:,} patches each", columns, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse_arguments(__doc__, arguments, repeats=5)
    report = Report("Image processors on a CPU", options)
    if options.smoke:
        measure(report, make_images(photo_sizes(2, 32, 96)), 16)
    else:
        images = make_images(photo_sizes(32, 400, 1200))
        for num_patches in (256, 1024, 4096):
            measure(report, images, num_patches)
    report.finish()


if __name__ == "__main__":
    main()
