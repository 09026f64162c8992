# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How fast this device multiplies matrices of a tower's own shapes: the floor that its forward is compared with."""

from collections.abc import Callable, Iterable, Mapping

import torch

from turingvit_hf.benchmarking.counting import ForwardCount, Product


# products with less than this share of a tower's are left out: single rows of pooling heads
LEAST_SHARE = 0.005


def large_products(count: ForwardCount) -> dict[Product, int]:
    """The products of a tower that matter for its time, and how often each occurs."""
    least = LEAST_SHARE * count.product_flops
    return {product: number for product, number in count.products.items() if number * flops_of(product) >= least}


def flops_of(product: Product) -> int:
    """Two for each multiply-add."""
    rows, inner, columns = product
    return 2 * rows * inner * columns


def product_name(product: Product) -> str:
    """Rows, columns in and columns out, such as `"1024 x 1280 x 5120"`."""
    return " x ".join(map(str, product))


def product_functions(
    products: Iterable[Product], dtype: torch.dtype, device: torch.device
) -> dict[Product, Callable[[], object]]:
    """A function for each product that does it once, as a linear layer does, into memory that is there already."""
    products = list(products)
    sizes = zip(*(((m * k), (n * k), (m * n)) for m, k, n in products), strict=True)
    left, right, out = (torch.full((max(size),), 0.01, dtype=dtype, device=device) for size in sizes)
    for block in (left, right):
        block.normal_(0, 0.02)

    def make(product: Product) -> Callable[[], object]:
        rows, inner, columns = product
        x = left[: rows * inner].view(rows, inner)
        weight = right[: columns * inner].view(columns, inner)
        y = out[: rows * columns].view(rows, columns)
        return lambda: torch.mm(x, weight.t(), out=y)

    return {product: make(product) for product in products}


def product_rate(count: ForwardCount, seconds: Mapping[Product, float]) -> float:
    """Operations a second of a tower's linear layers: all their operations by the time all their products take.

    Args:
        count: of the tower.
        seconds: of each product, once.
    """
    products = large_products(count)
    operations = sum(number * flops_of(product) for product, number in products.items())
    return operations / sum(number * seconds[product] for product, number in products.items())
