# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Time and peak memory of retrieval figures of many images and captions, by the function that evaluations call."""

import argparse
import resource
import time

import torch
from torch import nn

from turingvit_hf.evaluation.figures import retrieval_figures


def main() -> None:
    """Draw embeddings of images, captions near them, and print the figures with what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--captions-per-image", type=int, default=1)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--noise", type=float, default=6.0, help="length of what is added to an image's unit vector")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    draws = torch.Generator().manual_seed(0)
    images = nn.functional.normalize(torch.randn(options.images, options.width, generator=draws), dim=-1)
    image_of_text = torch.arange(options.images).repeat_interleave(options.captions_per_image)
    noise = torch.randn(len(image_of_text), options.width, generator=draws) / options.width**0.5
    texts = images[image_of_text] + options.noise * noise
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, start_of_work = time.perf_counter(), time.process_time()
    figures = retrieval_figures(images.to(options.device), texts.to(options.device), image_of_text)
    seconds, worked = time.perf_counter() - start, time.process_time() - start_of_work
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, figure in figures.items():
        print(f"{name}: {100 * figure['value']:.2f} % (chance {100 * figure['chance']:.4f})")
    print(f"{len(images)} images, {len(texts)} captions, width {options.width}, {torch.get_num_threads()} threads")
    print(f"{seconds:.0f} seconds, {worked:.0f} of them a processor's")
    print(f"peak {peak:.0f} MiB, {before:.0f} of them before the figures")


if __name__ == "__main__":
    main()
