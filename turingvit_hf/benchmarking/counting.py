# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Floating-point operations of a forward, and the matrix products of its linear layers; nothing is computed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from turingvit_hf.benchmarking.towers import Tower
from turingvit_hf.benchmarking.weights import build_empty, num_parameters


# rows, columns in, columns out of a product of a linear layer
Product = tuple[int, int, int]


@dataclass(frozen=True)
class ForwardCount:
    """What a forward of a tower takes.

    Attributes:
        flops: two for each multiply-add, of all matrix products, attention and convolutions.
        products: the matrix products of linear layers, and how often each occurs.
        parameters: values of all parameters.
    """

    flops: int
    products: dict[Product, int]
    parameters: int

    @property
    def product_flops(self) -> int:
        """Of linear layers alone."""
        return sum(2 * count * rows * inner * columns for (rows, inner, columns), count in self.products.items())


def linear_attention_flops(q_shape: Sequence[int], *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """K^T V and Q S of q (T, H, K): 4·T·H·K²."""
    *tokens, heads, head_dim = q_shape
    return 4 * torch.Size(tokens).numel() * heads * head_dim**2


def count_forward(tower: Tower, side: int, batch: int) -> ForwardCount:
    """Counts a forward of `batch` square images, on the meta device."""
    model = build_empty(tower, side).to("meta")
    products: Counter[Product] = Counter()

    def note(module: nn.Linear, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        products[args[0].shape[:-1].numel(), module.in_features, module.out_features] += 1

    for module in model.modules():
        # the projection inside of MultiheadAttention is no call of it
        if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
            module.register_forward_hook(note)
    formulas = {torch.ops.turingvit.torch_linear_attention: linear_attention_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        model(**tower.inputs(side, batch, torch.device("meta")))
    return ForwardCount(counter.get_total_flops(), dict(products), num_parameters(model))
