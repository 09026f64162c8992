# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The towers that `tla_study.py` compares, and what it measures of each."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import photo_grid
from tla_study_pictures import Pictures
from torch import Tensor, nn

from turingvit_hf.benchmarking.timing import time_interleaved
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.evaluation.neighbors import nearest_neighbor_scores
from turingvit_hf.evaluation.retrieval import retrieval_hits
from turingvit_hf.evaluation.statistics import bootstrap_interval
from turingvit_hf.modeling import modeling_turingvit
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.training.losses import chunked_siglip_loss


KS = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")
NEIGHBORS = "k-NN"
# so that a tower's own limit, that of its training, does not make a larger picture smaller
MAX_PATCHES = 1_000_000
# about as many pairs as a step of training has
PAIRS_PER_LOSS = 40


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
    "no_rescale": Variant("5 : 1, no rescaled positions", ("model.pos_embed_rescale=null",)),
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


class TowerMeasures:
    """Measures a trained dual encoder on held-out pictures.

    Args:
        model: its folder.
        gallery: pictures whose classes are known, from training.
    """

    def __init__(self, model: Path, gallery: Pictures):
        self.encoder = TransformersEncoder(str(model))
        self._options = self.encoder.image_options
        self._names = sorted({name for name in gallery.classes if name})
        known = [row for row, name in enumerate(gallery.classes) if name]
        self._labels = torch.tensor([self._names.index(gallery.classes[row]) for row in known])
        self._neighbors = self.encoder.image_features([gallery.images[row] for row in known], "pooled")

    @torch.inference_mode()
    def __call__(self, pictures: Pictures, *, side: int | None = None) -> dict[str, Any]:
        """The measurements of these pictures.

        Recalls and the share of right neighbors stand under `"hits"`, a list of 0 and 1 for each picture, so that
        towers can be compared picture by picture; `"siglip"` is a mean over batches of 40 pairs.

        Args:
            pictures: with captions and classes.
            side: the longer side that all of them are brought to, in pixels; None: as the tower was trained, larger or
                smaller ones brought into its bounds.
        """
        bounds = {"resolution": "bounded", "min_side": side, "max_side": side, "max_patches": MAX_PATCHES}
        self.encoder.image_options = self._options | (bounds if side is not None else {})
        pooled = self.encoder.image_features(pictures.images, "pooled")
        network = self.encoder.network
        images = nn.functional.normalize(network.visual_projection(pooled), dim=-1)
        texts = nn.functional.normalize(self.encoder.text_features(pictures.captions), dim=-1)
        ks = [k for k in KS if k <= len(images)]
        found = retrieval_hits(images, texts, torch.arange(len(images)), ks=ks)
        hits = {
            f"{way}_R@{k}": row.tolist()
            for way, rows in zip(DIRECTIONS, found, strict=True)
            for k, row in zip(ks, rows, strict=True)
        }
        hits[NEIGHBORS] = self._neighbor_hits(pooled, pictures.classes)
        losses = [
            float(chunked_siglip_loss(*pair, network.logit_scale, network.logit_bias))
            for pair in zip(images.split(PAIRS_PER_LOSS), texts.split(PAIRS_PER_LOSS), strict=True)
            if len(pair[0]) == min(PAIRS_PER_LOSS, len(images))
        ]
        return {"siglip": sum(losses) / len(losses), "hits": hits}

    def _neighbor_hits(self, pooled: Tensor, classes: Sequence[str]) -> list[float]:
        """Whether the 20 nearest of the gallery vote for the right class, of pictures whose class is among theirs."""
        rows = [row for row, name in enumerate(classes) if name in self._names]
        wanted = torch.tensor([self._names.index(classes[row]) for row in rows])
        votes = nearest_neighbor_scores(pooled[rows], self._neighbors, self._labels, num_classes=len(self._names))
        return (votes.argmax(1) == wanted).double().tolist()


def largest_class_share(pictures: Pictures, gallery: Pictures) -> float:
    """How often the gallery's most common class would be the right answer for the pictures that have a class."""
    names = [name for name in gallery.classes if name]
    asked = [name for name in pictures.classes if name in names]
    return asked.count(max(sorted(set(names)), key=names.count)) / len(asked)


def with_interval(hits: Sequence[float]) -> dict[str, float]:
    """The mean of hits with its bootstrap interval over pictures."""
    low, high = bootstrap_interval(hits)
    return {"value": sum(hits) / len(hits), "low": low, "high": high}


def time_towers(
    models: Mapping[str, tuple[Mapping[str, Any], Variant]], *, repeats: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of each tower in float32, the best of interleaved runs.

    Timed are forward and backward for a pack of 64 pictures whose longer sides are 128 to 256 pixels, and the forward
    of one picture of 1,536 x 1,536.

    Args:
        models: by name, the recipe's section `model` and the variant.
        repeats: how many runs.
    """
    towers = {name: _tower(model, variant) for name, (model, variant) in models.items()}
    config = next(iter(towers.values())).config
    small = photo_grid(64, 128, 256, patch_size=config.patch_size)
    large = torch.tensor([[1, 1536 // config.patch_size, 1536 // config.patch_size]])
    small_pixels, large_pixels = (torch.randn(int(grid.prod(-1).sum()), config.patch_dim) for grid in (small, large))

    def train(tower: nn.Module) -> None:
        tower(small_pixels, image_grid_thw=small).pooler_output.square().mean().backward()

    @torch.inference_mode()
    def look(tower: nn.Module) -> None:
        tower(large_pixels, image_grid_thw=large)

    forms = {"training, 128 to 256": train, "forward, 1536 x 1536": look}
    timed = {
        form: time_interleaved({name: partial(run, tower) for name, tower in towers.items()}, repeats)
        for form, run in forms.items()
    }
    return {form: {name: timing.best * 1e3 for name, timing in timings.items()} for form, timings in timed.items()}


def _tower(model: Mapping[str, Any], variant: Variant) -> modeling_turingvit.TuringViTModel:
    with linear_attention_without(variant.removed):
        return modeling_turingvit.TuringViTModel(TuringViTConfig(**model))
