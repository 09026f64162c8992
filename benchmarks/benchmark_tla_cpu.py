# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Turing Linear Attention on a CPU: its share of its layer, its backends, and softmax attention beside it."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from harness import Report, parse_arguments, photo_grid

from turingvit_hf import TuringViTConfig
from turingvit_hf.benchmarking.timing import time_interleaved
from turingvit_hf.kernels.linear_attention import turing_linear_attention
from turingvit_hf.modeling.modeling_turingvit import TuringViTLayer
from turingvit_hf.modeling.packing import cu_seqlens_from_grid, positions_from_grid
from turingvit_hf.modeling.rope import rope_table, rotate


DTYPES = (torch.float32, torch.bfloat16)
SHARE_GOAL = 6  # percent of a TLA layer's time


class Operands:
    """Random projections of one pack, and the operators to be compared as functions of nothing."""

    def __init__(self, config: TuringViTConfig, grid: torch.Tensor, dtype: torch.dtype):
        self.cu_seqlens = cu_seqlens_from_grid(grid)
        num_tokens = int(self.cu_seqlens[-1])
        self.rope = rope_table(positions_from_grid(grid, num_tokens), config.head_dim, config.rope_theta)
        heads = (num_tokens, config.num_attention_heads, config.head_dim)
        self.q, self.k, self.v = (torch.randn(heads, dtype=dtype, requires_grad=True) for _ in range(3))
        self.gate = torch.randn(num_tokens, config.hidden_size, dtype=dtype, requires_grad=True)
        self.norm_weight = torch.ones(config.hidden_size, dtype=dtype, requires_grad=True)

    def tla(self, backend: str) -> torch.Tensor:
        """All of TLA between its projections: activation, rotation, state, product, norm and gate."""
        cos, sin = self.rope
        return turing_linear_attention(
            *(self.q, self.k, self.v, self.cu_seqlens),
            cos=cos,
            sin=sin,
            gate=self.gate,
            norm_weight=self.norm_weight,
            backend=backend,
        )

    def softmax(self) -> torch.Tensor:
        """All of softmax attention between its projections: rotation, and one SDPA call for each image."""
        q, k, v = rotate(self.q, *self.rope), rotate(self.k, *self.rope), self.v
        # split and not slices: the backward pass of each slice would fill zeros for the whole pack
        parts = zip(*(x.split(self.cu_seqlens.diff().tolist()) for x in (q, k, v)), strict=True)
        images = ((x[None].transpose(1, 2) for x in part) for part in parts)
        outputs = [F.scaled_dot_product_attention(*image)[0].transpose(0, 1).flatten(1) for image in images]
        return torch.cat(outputs)


def forward_of(function: Callable[[], torch.Tensor]) -> Callable[[], object]:
    """The function without gradients."""
    return torch.inference_mode()(function)


def backward_of(function: Callable[[], torch.Tensor], tensors: Sequence[torch.Tensor]) -> Callable[[], object]:
    """The function, then the gradients of the tensors."""
    grad = torch.randn_like(function())
    return lambda: torch.autograd.grad(function(), tensors, grad)


def measure_share(report: Report, config: TuringViTConfig, side: int) -> None:
    """The operator's time as a share of its layer's time, on one image of side x side patches."""
    grid, rows = torch.tensor([[1, side, side]]), []
    for dtype in DTYPES:
        operands = Operands(config, grid, dtype)
        layer = TuringViTLayer(config, "linear_attention").to(dtype)
        x = torch.randn(side * side, config.hidden_size, dtype=dtype, requires_grad=True)

        def run_layer(layer=layer, x=x, operands=operands):
            return layer(x, operands.cu_seqlens, operands.rope)

        def run_operator(operands=operands):
            return operands.tla("torch")

        inputs = (operands.q, operands.k, operands.v, operands.gate, operands.norm_weight)
        passes = {
            "forward": (forward_of(run_layer), forward_of(run_operator)),
            "forward + backward": (
                backward_of(run_layer, (x, *layer.parameters())),
                backward_of(run_operator, inputs),
            ),
        }
        for name, (of_layer, of_operator) in passes.items():
            timing = time_interleaved({"layer": of_layer, "operator": of_operator}, report.options.repeats)
            share = 100 * timing["operator"].best / timing["layer"].best
            rows.append((f"{str(dtype)[6:]}, {name}", timing["layer"].text, timing["operator"].text, f"{share:.1f} %"))
            report.goal(f"TLA's share of its layer, {rows[-1][0]}", share, "<=", SHARE_GOAL, "%")
    columns = ("pass", "layer, ms: best / median / worst", "TLA operator, ms", "share (best)")
    report.table(f"One TLA layer at {side * side:,} tokens, width {config.hidden_size}", columns, rows)


def measure_packs(report: Report, config: TuringViTConfig, packs: dict[str, torch.Tensor]) -> None:
    """The torch backend against the reference and against softmax attention, on packs."""
    rows = []
    for dtype in DTYPES:
        for name, grid in packs.items():
            operands = Operands(config, grid, dtype)
            forward = time_interleaved(
                {
                    "torch": forward_of(lambda operands=operands: operands.tla("torch")),
                    "reference": forward_of(lambda operands=operands: operands.tla("reference")),
                    "softmax": forward_of(operands.softmax),
                },
                report.options.repeats,
            )
            inputs = (operands.q, operands.k, operands.v)
            both = time_interleaved(
                {
                    "torch": backward_of(lambda operands=operands: operands.tla("torch"), inputs),
                    "softmax": backward_of(operands.softmax, inputs),
                },
                max(1, report.options.repeats // 2),
            )
            rows.append(
                (
                    f"{str(dtype)[6:]}, {name}",
                    forward["torch"].text,
                    f"{forward['reference'].best / forward['torch'].best:.2f}",
                    f"{forward['softmax'].best / forward['torch'].best:.2f}",
                    both["torch"].text,
                    f"{both['softmax'].best / both['torch'].best:.2f}",
                )
            )
    columns = (
        "pack",
        "forward, ms: best / median / worst",
        "reference / torch",
        "softmax / torch",
        "forward + backward, ms",
        "softmax / torch, both",
    )
    report.table("TLA operator, torch backend, and how many times longer the others take", columns, rows)


def equal_grid(num_images: int, side: int) -> torch.Tensor:
    """Grid of equal square images."""
    return torch.tensor([[1, side, side]]).repeat(num_images, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse_arguments(__doc__, arguments, repeats=5)
    torch.manual_seed(0)
    report = Report("Turing Linear Attention on a CPU", options)
    if options.smoke:
        config = TuringViTConfig(hidden_size=64, num_attention_heads=2, intermediate_size=128)
        packs = {"1 x 64": equal_grid(1, 8), "4 ragged": photo_grid(4, 64, 128)}
        measure_share(report, config, side=8)
    else:
        config = TuringViTConfig()
        ragged = photo_grid(64, 256, 512)
        packs = {f"1 x {side**2:,}": equal_grid(1, side) for side in (16, 32, 64, 96)}
        packs["8 x 1,024"] = equal_grid(8, 32)
        packs[f"64 ragged, {int(ragged.prod(-1).sum()):,} in all"] = ragged
        packs["256 x 64"] = equal_grid(256, 8)
        packs["512 x 16"] = equal_grid(512, 4)
        short = photo_grid(256, 48, 128)
        packs[f"256 short, {int(short.prod(-1).sum()):,} in all"] = short
        measure_share(report, config, side=64)
    measure_packs(report, config, packs)
    report.finish()


if __name__ == "__main__":
    main()
