# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The tower beside the towers of SigLIP2 (NaFlex) and Qwen3-VL in transformers, random weights, on a CPU.

All have six layers of one width and, in linear layers, the same multiplications for each token and layer: SwiGLU has
three matrices of ratio 4, the others' MLP two of ratio 6. What differs is attention and how images of several sizes
travel: TuringViT and Qwen3-VL pack them, SigLIP2 pads them to the longest and masks.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from harness import Report, parse_arguments, photo_grid, time_interleaved
from torch import nn
from transformers import Qwen3VLVisionConfig, Qwen3VLVisionModel, Siglip2VisionConfig, Siglip2VisionModel

from turingvit_hf import TuringViTConfig, TuringViTModel


def make_turingvit(width: int, heads: int) -> TuringViTModel:
    """Five linear-attention layers and a softmax layer, with the pooling head."""
    return TuringViTModel(
        TuringViTConfig(hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width, num_hidden_layers=6)
    )


def make_siglip2(width: int, heads: int) -> Siglip2VisionModel:
    """Six softmax layers, with the pooling head; positions are a table, resized for each image."""
    return Siglip2VisionModel(
        Siglip2VisionConfig(
            hidden_size=width, num_attention_heads=heads, intermediate_size=6 * width, num_hidden_layers=6
        )
    )


def make_qwen3_vl(width: int, heads: int) -> Qwen3VLVisionModel:
    """Six softmax layers and the merger of 2 x 2 tokens in place of a pooling head; no deepstack mergers."""
    return Qwen3VLVisionModel(
        Qwen3VLVisionConfig(
            hidden_size=width,
            num_heads=heads,
            intermediate_size=6 * width,
            depth=6,
            out_hidden_size=width,
            deepstack_visual_indexes=[],
        )
    )


def turingvit_inputs(grid: torch.Tensor) -> dict[str, torch.Tensor]:
    """Packed patches of 16 x 16 pixels."""
    return {"pixel_values": torch.randn(int(grid.prod(-1).sum()), 768), "image_grid_thw": grid}


def siglip2_inputs(grid: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sequences of patches padded to the longest, with mask."""
    lengths = grid.prod(-1)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return {
        "pixel_values": torch.randn(*mask.shape, 768),
        "pixel_attention_mask": mask.to(torch.int32),
        "spatial_shapes": grid[:, 1:],
    }


def qwen3_vl_inputs(grid: torch.Tensor) -> dict[str, torch.Tensor]:
    """Packed patches; an image is two equal frames in one patch."""
    return {"hidden_states": torch.randn(int(grid.prod(-1).sum()), 2 * 768), "grid_thw": grid}


PEERS: dict[str, tuple[Callable[[int, int], nn.Module], Callable[[torch.Tensor], dict]]] = {
    "TuringViT": (make_turingvit, turingvit_inputs),
    "SigLIP2": (make_siglip2, siglip2_inputs),
    "Qwen3-VL": (make_qwen3_vl, qwen3_vl_inputs),
}


def even_sides(grid: torch.Tensor) -> torch.Tensor:
    """The grid with sides of whole 2 x 2 groups of patches, which Qwen3-VL merges."""
    grid[:, 1:] = (grid[:, 1:] // 2 * 2).clamp_min(2)
    return grid


def measure(report: Report, options: argparse.Namespace, sets: dict[str, torch.Tensor], width: int, heads: int):
    """Times of each tower on each set of images, as multiples of TuringViT's."""
    models = {name: make(width, heads).eval() for name, (make, _) in PEERS.items()}
    rows = []
    for set_name, grid in sets.items():
        inputs = {name: make_inputs(grid) for name, (_, make_inputs) in PEERS.items()}

        @torch.inference_mode()
        def run(name: str, inputs=inputs) -> None:
            models[name](**inputs[name])

        timings = time_interleaved({name: lambda name=name: run(name) for name in PEERS}, options.repeats)
        ours = timings["TuringViT"].best
        rows.append(
            (
                set_name,
                f"{int(grid.prod(-1).sum()):,}",
                *(timing.text for timing in timings.values()),
                *(f"{timings[name].best / ours:.2f}" for name in ("SigLIP2", "Qwen3-VL")),
            )
        )
    columns = ("images", "tokens", *(f"{name}, ms" for name in PEERS), "SigLIP2 / ours", "Qwen3-VL / ours")
    report.table(f"Six layers of width {width}: best / median / worst, and multiples of TuringViT", columns, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse_arguments(__doc__.partition("\n")[0], arguments, repeats=3)
    torch.manual_seed(0)
    report = Report("Towers of transformers on a CPU, float32, sdpa", options)
    if options.smoke:
        sets = {"one of 64 x 64": torch.tensor([[1, 4, 4]]), "4 ragged": even_sides(photo_grid(4, 32, 96))}
        measure(report, options, sets, width=64, heads=2)
    else:
        sets = {f"one of {16 * side} x {16 * side}": torch.tensor([[1, side, side]]) for side in (16, 32, 64, 96)}
        sets["8 of 512 x 512"] = torch.tensor([[1, 32, 32]] * 8)
        sets["32 ragged, longer side 256 to 512"] = even_sides(photo_grid(32, 256, 512))
        measure(report, options, sets, width=768, heads=12)
    report.finish()


if __name__ == "__main__":
    main()
