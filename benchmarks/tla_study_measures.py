# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What `tla_study.py` measures of each tower."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tla_study_pictures import Pictures
from torch import Tensor, nn

from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.evaluation.neighbors import nearest_neighbor_scores
from turingvit_hf.evaluation.retrieval import retrieval_hits
from turingvit_hf.evaluation.statistics import bootstrap_interval
from turingvit_hf.training.losses import chunked_siglip_loss


KS = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")
NEIGHBORS = "k-NN"
ORDER = "order"
# so that a tower's own limit, that of its training, does not make a larger picture smaller
MAX_PATCHES = 1_000_000
# about as many pairs as a step of training has
PAIRS_PER_LOSS = 40


class TowerMeasures:
    """Measures a trained dual encoder on held-out pictures.

    Args:
        model: its folder.
        gallery: pictures whose classes are known, from training; None: no neighbors are sought.
    """

    def __init__(self, model: Path, gallery: Pictures | None):
        self.encoder = TransformersEncoder(str(model))
        self._options = self.encoder.image_options
        self._gallery = gallery is not None
        if gallery is None:
            return
        self._names = sorted({name for name in gallery.classes if name})
        known = [row for row, name in enumerate(gallery.classes) if name]
        self._labels = torch.tensor([self._names.index(gallery.classes[row]) for row in known])
        self._neighbors = self.encoder.image_features([gallery.images[row] for row in known], "pooled")

    @torch.inference_mode()
    def __call__(self, pictures: Pictures, *, side: int | None = None) -> dict[str, Any]:
        """The measurements of these pictures.

        Recalls, right neighbors and right orders stand under `"hits"`, a list of 0 and 1 for each picture, so that
        towers can be compared picture by picture; `"siglip"` is a mean over batches of 40 pairs.

        Args:
            pictures: with captions, and with classes where neighbors are sought.
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
        if self._gallery:
            hits[NEIGHBORS] = self._neighbor_hits(pooled, pictures.classes)
        if pictures.swapped:
            hits[ORDER] = order_hits(images, texts, pictures.swapped)
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


def order_hits(images: Tensor, texts: Tensor, swapped: Sequence[int]) -> list[float]:
    """Whether each scene is nearer to its text than to that of its pictures in the other order; a tie is half of one.

    Args:
        images: (N, E) normalized.
        texts: (N, E) likewise.
        swapped: the number of the scene with the other order.
    """
    margins = (images * texts).sum(1) - (images * texts[list(swapped)]).sum(1)
    return ((margins.sign() + 1) / 2).double().tolist()


def largest_class_share(pictures: Pictures, gallery: Pictures) -> float:
    """How often the gallery's most common class would be the right answer for the pictures that have a class."""
    names = [name for name in gallery.classes if name]
    asked = [name for name in pictures.classes if name in names]
    return asked.count(max(sorted(set(names)), key=names.count)) / len(asked)


def with_interval(hits: Sequence[float]) -> dict[str, float]:
    """The mean of hits with its bootstrap interval over pictures."""
    low, high = bootstrap_interval(hits)
    return {"value": sum(hits) / len(hits), "low": low, "high": high}
