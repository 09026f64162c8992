# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Where the time of a forward pass goes on a CPU, by part of the tower and by operator of torch."""

from collections import Counter
from collections.abc import Sequence

import torch
from harness import Report, parse_arguments

from turingvit_hf import TuringViTConfig, TuringViTModel
from turingvit_hf.benchmarking.operations import operator_seconds
from turingvit_hf.benchmarking.timing import clock
from turingvit_hf.modeling.attention import TuringViTLinearAttention, TuringViTSoftmaxAttention
from turingvit_hf.modeling.layers import TuringViTMLP, TuringViTRMSNorm
from turingvit_hf.modeling.modeling_turingvit import TuringViTLayer
from turingvit_hf.modeling.pooling import TuringViTPoolingHead


PRODUCTS_GOAL = 80  # percent of the forward's time in matrix products

# What a module does itself, outside of its children. Linear layers count as products, wherever they are.
PARTS = {
    torch.nn.Linear: "matrix products of linear layers",
    TuringViTLinearAttention: "TLA operator (elementwise and its own products)",
    TuringViTSoftmaxAttention: "softmax attention (rotation and its own products)",
    TuringViTMLP: "SwiGLU's elementwise product",
    TuringViTRMSNorm: "norms",
    TuringViTLayer: "residual additions",
    TuringViTPoolingHead: "pooling head",
    TuringViTModel: "patches, RoPE tables and the rest",
}


class PartTimer:
    """Seconds of each part of a tower, children taken out, by hooks on its modules."""

    def __init__(self, model: torch.nn.Module):
        self.seconds: Counter[str] = Counter()
        self.running: list[list[float]] = []  # start of each module that is running, and seconds of its children
        for module in model.modules():
            part = next((name for kind, name in PARTS.items() if isinstance(module, kind)), None)
            if part is not None:
                module.register_forward_pre_hook(self.start)
                module.register_forward_hook(lambda module, args, output, part=part: self.stop(part))

    def start(self, module: torch.nn.Module, args: tuple) -> None:
        """A module begins."""
        self.running.append([clock(), 0.0])

    def stop(self, part: str) -> None:
        """The module that began last ends."""
        start, in_children = self.running.pop()
        elapsed = clock() - start
        self.seconds[part] += elapsed - in_children
        if self.running:
            self.running[-1][1] += elapsed


def is_product(operator: str) -> bool:
    """Whether a torch operator is a matrix product and nothing else."""
    return operator in {"mm", "addmm", "bmm", "baddbmm"} or "linear_pointwise" in operator


def run(model: torch.nn.Module, pixel_values: torch.Tensor) -> None:
    """A forward."""
    with torch.inference_mode():
        model(pixel_values)


def measure_parts(report: Report, config: TuringViTConfig, image_size: int, dtype: torch.dtype) -> None:
    """Shares of a forward, by part of the tower and by torch operator."""
    model = TuringViTModel(config).eval().to(dtype)
    pixel_values = torch.randn(1, 3, image_size, image_size, dtype=dtype)
    setting = f"{image_size} x {image_size}, {str(dtype)[6:]}, {config.num_hidden_layers} layers"
    run(model, pixel_values)  # warm-up
    operators: Counter[str] = Counter()
    for _ in range(report.options.repeats):
        for (_, operator), seconds in operator_seconds(lambda: run(model, pixel_values)).items():
            operators[operator] += seconds
    timer = PartTimer(model)
    for _ in range(report.options.repeats):
        run(model, pixel_values)

    total = timer.seconds.total()
    rows = [
        (name, f"{1e3 * value / report.options.repeats:,.1f}", f"{100 * value / total:.1f} %")
        for name, value in timer.seconds.most_common()
    ]
    report.table(f"Parts of the forward, {setting}", ("part", "ms", "share"), rows)

    total = operators.total()
    products = sum(seconds for name, seconds in operators.items() if is_product(name))
    softmax = sum(seconds for name, seconds in operators.items() if "scaled_dot_product" in name)
    others = Counter({name: s for name, s in operators.items() if not is_product(name) and "scaled_dot" not in name})
    rows = [("matrix products (mm, addmm, bmm)", products), ("scaled_dot_product_attention", softmax)]
    rows += others.most_common(10)
    rows.append(("all other operators", total - sum(seconds for _, seconds in rows)))
    report.table(
        f"Operators of the forward, {setting}",
        ("operator", "ms", "share"),
        [(name, f"{1e3 * s / report.options.repeats:,.1f}", f"{100 * s / total:.1f} %") for name, s in rows],
    )
    report.goal(f"matrix products, {setting}", 100 * products / total, ">=", PRODUCTS_GOAL, "%")
    both = 100 * (products + softmax) / total
    report.line(f"with softmax attention's, which are fused with its softmax: {both:.1f} %")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse_arguments(__doc__, arguments, repeats=3)
    torch.manual_seed(0)
    report = Report("A forward pass on a CPU", options)
    if options.smoke:
        tiny = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 6}
        measure_parts(report, TuringViTConfig(**tiny), 64, torch.float32)
    else:
        for dtype in (torch.float32, torch.bfloat16):
            for image_size in (1024, 1536):
                measure_parts(report, TuringViTConfig(num_hidden_layers=6), image_size, dtype)
    report.finish()


if __name__ == "__main__":
    main()
