# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Where the time of a forward goes, by kind of operation, from torch's profiler."""

import os
from collections import Counter
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


KINDS = ("matrix products", "softmax attention", "linear attention", "norms", "elementwise", "other")
# operators that stand for all that they call
WHOLE = {
    "matrix products": {"linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "convolution", "conv2d", "conv3d"},
    "softmax attention": {
        "scaled_dot_product_attention",
        "packed_softmax_attention",
        "_native_multi_head_attention",
        "_flash_attention_forward",
        "_efficient_attention_forward",
    },
    "linear attention": {"torch_linear_attention", "triton_linear_attention"},
    "norms": {"rms_norm", "_fused_rms_norm", "layer_norm", "native_layer_norm"},
}
ELEMENTWISE = {
    "add", "add_", "sub", "mul", "mul_", "div", "div_", "neg", "silu", "silu_", "gelu", "sigmoid", "sigmoid_", "tanh",
    "exp", "where", "cat", "copy_", "_to_copy", "clone", "contiguous", "fill_", "cos", "sin",
}  # fmt: skip


def plain_name(operator: str) -> str:
    """The name of a torch operator without its namespace."""
    return operator.rpartition("::")[2]


def kind_of(operator: str, callers: list[str]) -> str:
    """The kind of an operation, one of KINDS: that of its outermost caller which has one, or else its own.

    Args:
        operator: its name, without namespace.
        callers: the operators around it, the innermost first.
    """
    for name in (*reversed(callers), operator):
        for kind, names in WHOLE.items():
            if name in names:
                return kind
    return "elementwise" if operator in ELEMENTWISE else "other"


def operator_seconds(run: Callable[[], object], device: torch.device | None = None) -> Counter[tuple[str, str]]:
    """Seconds that each torch operator spent itself, by (kind, operator); Python between operators is left out.

    Args:
        run: what is profiled, called once.
        device: where its work is done; on a CUDA device the seconds are those of its kernels.
    """
    is_cuda = device is not None and device.type == "cuda"
    # it is heard before the first profile of a process; otherwise the profiler's own log lines stand among the figures
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        run()
        if is_cuda:
            torch.cuda.synchronize(device)
    seconds: Counter[tuple[str, str]] = Counter()
    for event in profiler.events() or ():
        if event.device_type != torch.autograd.DeviceType.CPU:
            continue
        callers, caller = [], event.cpu_parent
        while caller is not None:
            callers.append(plain_name(caller.name))
            caller = caller.cpu_parent
        name = plain_name(event.name)
        micros = event.self_device_time_total if is_cuda else event.self_cpu_time_total
        if micros > 0:
            seconds[kind_of(name, callers), name] += micros / 1e6
    return seconds


def shares_by_kind(seconds: Counter[tuple[str, str]]) -> dict[str, float]:
    """The share of all seconds that each of KINDS has."""
    total = seconds.total() or 1.0
    return {kind: sum(s for (k, _), s in seconds.items() if k == kind) / total for kind in KINDS}
