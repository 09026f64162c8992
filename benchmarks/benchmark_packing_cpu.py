# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Ragged images packed, against padding each of them to the longest, on a CPU."""

from collections.abc import Sequence

import torch
from harness import Report, parse_arguments, photo_grid, time_interleaved

from turingvit_hf import TuringViTConfig, TuringViTModel


RATIO_GOAL = 1.5  # images/s packed over images/s padded


def make_forms(config: TuringViTConfig, grid: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """The inputs of one set of images in three forms; their pixels do not matter.

    - packed: the patches of all images, without padding.
    - frame: images padded to the greatest height and width, with their true sizes; the tower drops the padding.
    - longest: a batch of images as long as the longest. This is what padding token sequences to a common length, as
      SigLIP2-NaFlex does, costs this tower at the least: no mask is applied, which would only add to it.
    """
    patch, channels = config.patch_size, config.num_channels
    height, width = (grid[:, 1:].amax(0) * patch).tolist()
    longest = grid[grid.prod(-1).argmax()]
    longest_height, longest_width = (longest[1:] * patch).tolist()
    return {
        "packed": {"pixel_values": torch.randn(int(grid.prod(-1).sum()), config.patch_dim), "image_grid_thw": grid},
        "frame": {
            "pixel_values": torch.randn(len(grid), channels, height, width),
            "image_sizes": grid[:, 1:] * patch,
        },
        "longest": {"pixel_values": torch.randn(len(grid), channels, longest_height, longest_width)},
    }


def measure(report: Report, name: str, config: TuringViTConfig, grid: torch.Tensor) -> None:
    """Images/s of each form, and their ratio."""
    model = TuringViTModel(config).eval()
    forms = make_forms(config, grid)

    @torch.inference_mode()
    def run(form: str) -> None:
        model(**forms[form])

    timings = time_interleaved({form: lambda form=form: run(form) for form in forms}, report.options.repeats)
    tokens, longest = int(grid.prod(-1).sum()), int(grid.prod(-1).max())
    computed = {"packed": tokens, "frame": tokens, "longest": len(grid) * longest}
    rows = [
        (
            form,
            f"{computed[form]:,}",
            timing.text,
            f"{len(grid) / timing.best:.2f}",
            f"{timings['longest'].best / timing.best:.2f}",
        )
        for form, timing in timings.items()
    ]
    columns = ("form", "tokens computed", "ms: best / median / worst", "images/s", "ratio to longest")
    report.table(f"{len(grid)} images, {name}", columns, rows)
    ratio = timings["longest"].best / timings["packed"].best
    report.goal(f"packed over padded to the longest, {name}", ratio, ">=", RATIO_GOAL, "times the images/s")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse_arguments(__doc__, arguments, repeats=3)
    torch.manual_seed(0)
    report = Report("Packing on a CPU, float32", options)
    if options.smoke:
        config = TuringViTConfig(
            hidden_size=64, num_attention_heads=2, intermediate_size=128, num_hidden_layers=6, image_size=64
        )
        measure(report, "tiny tower, longer side 32 to 96 pixels", config, photo_grid(4, 32, 96))
    else:
        small = TuringViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_hidden_layers=6)
        two_layers = ["linear_attention", "full_attention"]
        full = TuringViTConfig(layer_types=two_layers, num_hidden_layers=2)
        bounded, native = photo_grid(64, 256, 512), photo_grid(64, 256, 1024)
        measure(report, "six layers of width 384, longer side 256 to 512 pixels", small, bounded)
        measure(report, "six layers of width 384, longer side 256 to 1024 pixels", small, native)
        measure(report, "two layers of width 1280, longer side 256 to 512 pixels", full, bounded)
    report.finish()


if __name__ == "__main__":
    main()
