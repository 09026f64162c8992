# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Where the time of a forward pass goes on a CPU, and the time and memory of TuringViT-18L at high resolution."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import torch
from harness import Report, clock, parse_arguments, peak_memory
from torch.profiler import ProfilerActivity, profile

from turingvit_hf import TuringViTConfig, TuringViTModel
from turingvit_hf.modeling.attention import TuringViTLinearAttention, TuringViTSoftmaxAttention
from turingvit_hf.modeling.layers import TuringViTMLP, TuringViTRMSNorm
from turingvit_hf.modeling.modeling_turingvit import TuringViTLayer
from turingvit_hf.modeling.pooling import TuringViTPoolingHead


PRODUCTS_GOAL = 80  # percent of the forward's time in matrix products
MEMORY_GOAL = 8  # GiB, 18L in float32 at 1536 x 1536 pixels

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


def operator_seconds(model: torch.nn.Module, pixel_values: torch.Tensor) -> Counter[str]:
    """Seconds that each torch operator spent itself, by torch's profiler; Python between operators is left out."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        model(pixel_values)
    events = ((event.key, event.self_cpu_time_total / 1e6) for event in profiler.key_averages())
    return Counter({name.removeprefix("aten::"): seconds for name, seconds in events})


def is_product(operator: str) -> bool:
    """Whether a torch operator is a matrix product and nothing else."""
    return operator in {"mm", "addmm", "bmm", "baddbmm"} or "linear_pointwise" in operator


def measure_parts(report: Report, config: TuringViTConfig, image_size: int, dtype: torch.dtype) -> None:
    """Shares of a forward, by part of the tower and by torch operator."""
    model = TuringViTModel(config).eval().to(dtype)
    pixel_values = torch.randn(1, 3, image_size, image_size, dtype=dtype)
    setting = f"{image_size} x {image_size}, {str(dtype)[6:]}, {config.num_hidden_layers} layers"
    with torch.inference_mode():
        model(pixel_values)  # warm-up
    operators: Counter[str] = Counter()
    for _ in range(report.options.repeats):
        operators += operator_seconds(model, pixel_values)
    timer = PartTimer(model)
    for _ in range(report.options.repeats):
        with torch.inference_mode():
            model(pixel_values)

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


def forward_alone(config: dict, image_size: int, threads: int) -> dict:
    """Seconds and peak memory of a forward in this process, which does nothing else."""
    torch.set_num_threads(threads)
    model = TuringViTModel(TuringViTConfig(**config)).eval()
    before = peak_memory()
    pixel_values = torch.randn(1, 3, image_size, image_size)
    start, wall = clock(), time.perf_counter()
    with torch.inference_mode():
        model(pixel_values)
    return {
        "seconds": clock() - start,
        "wall": time.perf_counter() - wall,
        "before": before,
        "peak": peak_memory(),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def measure_memory(report: Report, config: dict, image_sizes: Sequence[int]) -> None:
    """Time and peak memory of whole towers in float32, each in a fresh process."""
    rows = []
    for image_size in image_sizes:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            result = pool.submit(forward_alone, config, image_size, torch.get_num_threads()).result()
        tokens = (image_size // 16) ** 2
        figures = (f"{result['parameters'] / 1e6:,.0f}", f"{result['seconds']:.1f}", f"{result['wall']:.1f}")
        rows.append(
            (
                f"{image_size} x {image_size}",
                f"{tokens:,}",
                *figures,
                *map("{:.2f}".format, list(result.values())[2:4]),
            )
        )
        if image_size == max(image_sizes):
            report.goal(f"peak memory at {image_size} x {image_size}", result["peak"], "<=", MEMORY_GOAL, "GiB")
    columns = ("image", "tokens", "M parameters", "s", "s, wall", "GiB with weights", "GiB at the peak")
    report.table("A first forward of TuringViT-18L in float32, in a process of its own", columns, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse_arguments(__doc__, arguments, repeats=3)
    torch.manual_seed(0)
    report = Report("A forward pass on a CPU", options)
    if options.smoke:
        tiny = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 6}
        measure_parts(report, TuringViTConfig(**tiny), 64, torch.float32)
        measure_memory(report, tiny, [64])
    else:
        for dtype in (torch.float32, torch.bfloat16):
            for image_size in (1024, 1536):
                measure_parts(report, TuringViTConfig(num_hidden_layers=6), image_size, dtype)
        measure_memory(report, {}, [1024, 1536])
    report.finish()


if __name__ == "__main__":
    main()
