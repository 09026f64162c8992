# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The towers that `tla_study.py` compares: they differ in their attention and in nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from harness import photo_grid
from torch import Tensor, nn

from turingvit_hf.benchmarking.timing import time_interleaved
from turingvit_hf.modeling import modeling_turingvit
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig


@dataclass(frozen=True)
class Variant:
    """A tower of the study.

    Attributes:
        label: what figures call it.
        changes: of the recipe. `intermediate_size` makes up for matrices that a tower has more or fewer than others.
        removed: parts of linear attention that it lacks, `"gate"` or `"norm"`, or `"attention"` for all of it; no
            configuration has towers without.
    """

    label: str
    changes: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


VARIANTS = {
    "base": Variant("5 TLA : 1 softmax"),
    "softmax": Variant("all softmax", (f"model.layer_types=[{', '.join(['full_attention'] * 6)}]",)),
    "tla": Variant("all TLA", (f"model.layer_types=[{', '.join(['linear_attention'] * 6)}]",)),
    "no_gate": Variant("without gate", ("model.intermediate_size=288",), ("gate",)),
    "no_norm": Variant("without RMSNorm", removed=("norm",)),
    "no_rope": Variant("without RoPE in TLA", ("model.tla_rope=none",)),
    "projection": Variant(
        "with output projection", ("model.tla_output_projection=true", "model.intermediate_size=224")
    ),
    # the control: what differs less from this than from chance does not depend on attention
    "none": Variant(
        "no attention at all",
        (f"model.layer_types=[{', '.join(['linear_attention'] * 6)}]", "model.intermediate_size=400"),
        ("attention",),
    ),
}


class Absent(nn.Module):
    """Stands where linear attention has its gate or its norm; the operator then leaves that step out."""

    weight = None
    eps = 0.0

    def forward(self, hidden_states: Tensor) -> None:
        """No logits for a gate."""


class NoAttention(nn.Module):
    """Stands where a layer has its attention: nothing passes from one patch to another."""

    def __init__(self, config: TuringViTConfig):
        super().__init__()

    def forward(self, hidden_states: Tensor, cu_seqlens: Tensor | None, rope: tuple) -> Tensor:
        """Zeros, shaped like `hidden_states`."""
        return torch.zeros_like(hidden_states)


@contextmanager
def linear_attention_without(removed: Sequence[str]) -> Iterator[None]:
    """Towers that are built or loaded inside of the block have linear attention without these parts."""
    complete = modeling_turingvit.TuringViTLinearAttention

    class Reduced(complete):
        def __init__(self, config: TuringViTConfig):
            super().__init__(config)
            for part in removed:
                setattr(self, {"gate": "output_gate", "norm": "output_norm"}[part], Absent())

    instead = NoAttention if "attention" in removed else Reduced if removed else complete
    modeling_turingvit.TuringViTLinearAttention = instead
    try:
        yield
    finally:
        modeling_turingvit.TuringViTLinearAttention = complete


def count_parameters(model: Mapping[str, Any], variant: Variant) -> int:
    """The parameters of the tower, pooling head included."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in _tower(model, variant).parameters())


def time_towers(
    models: Mapping[str, tuple[Mapping[str, Any], Variant]], *, repeats: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of each tower in float32, the best of interleaved runs.

    Timed are forward and backward for a pack of 32 pictures whose longer sides are 128 to 512 pixels, and the forward
    of one picture of 1,536 x 1,536.

    Args:
        models: by name, the recipe's section `model` and the variant.
        repeats: how many runs.
    """
    towers = {name: _tower(model, variant) for name, (model, variant) in models.items()}
    config = next(iter(towers.values())).config
    small = photo_grid(32, 128, 512, patch_size=config.patch_size)
    large = torch.tensor([[1, 1536 // config.patch_size, 1536 // config.patch_size]])
    small_pixels, large_pixels = (torch.randn(int(grid.prod(-1).sum()), config.patch_dim) for grid in (small, large))

    def train(tower: nn.Module) -> None:
        tower(small_pixels, image_grid_thw=small).pooler_output.square().mean().backward()

    @torch.inference_mode()
    def look(tower: nn.Module) -> None:
        tower(large_pixels, image_grid_thw=large)

    forms = {"training, 128 to 512": train, "forward, 1536 x 1536": look}
    timed = {
        form: time_interleaved({name: partial(run, tower) for name, tower in towers.items()}, repeats)
        for form, run in forms.items()
    }
    return {form: {name: timing.best * 1e3 for name, timing in timings.items()} for form, timings in timed.items()}


def _tower(model: Mapping[str, Any], variant: Variant) -> modeling_turingvit.TuringViTModel:
    with linear_attention_without(variant.removed):
        return modeling_turingvit.TuringViTModel(TuringViTConfig(**model))
