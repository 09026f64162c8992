# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Embeddings of images and candidates, their alignment, and the entropy of each caption."""

from typing import Any

import numpy as np

from turingvit_hf.curation.models.registry import build
from turingvit_hf.curation.models.scorers import Scorer
from turingvit_hf.curation.steps.base import Batch, Step
from turingvit_hf.curation.text import entropy


# a caption whose end the scorer has not read
CUT_FOR_SCORER = "cut for scorer"


class EmbeddingStep(Step):
    """Embeds images and candidates, so that all scores can be computed anew without them.

    It reads `image` (uint8 (H, W, 3), or None) and `candidates`. It makes `image_embedding`, (E,) float16 of length 1,
    None without an image, and `candidate_embeddings`, (number of candidates, E) float16, and adds to the candidates:
    `alignment`, the cosine with the image computed from these float16 vectors; `entropy` in bits; and a flag where the
    scorer takes no texts of that length. `error` tells where a vector is no number: one would spoil the ambiguity of
    all rows that it is contrasted with.

    Args:
        scorer: a model, as `registry.build` takes it or built already.
    """

    name = "embed"
    reads = ("image", "candidates")

    def __init__(self, *, scorer: Any):
        self.scorer: Scorer = build("scorer", scorer)

    @property
    def tau(self) -> float:
        """The temperature that the scorer was trained with."""
        return self.scorer.tau

    def __call__(self, batch: Batch) -> Batch:
        """Return `image_embedding`, `candidate_embeddings`, `candidates` and `error` of each row."""
        images: list[np.ndarray | None] = [None] * len(batch["image"])
        rows = [row for row, image in enumerate(batch["image"]) if image is not None]
        if rows:
            for row, vector in zip(rows, self.scorer.embed_images([batch["image"][row] for row in rows]), strict=True):
                images[row] = vector
        candidates = [[{**candidate} for candidate in row or ()] for row in batch["candidates"]]
        places = [(row, candidate) for row, found in enumerate(candidates) for candidate in found]
        texts: list[list[np.ndarray]] = [[] for _ in candidates]
        if places:
            embedded = self.scorer.embed_texts([candidate["text"] for _, candidate in places])
            for (row, candidate), vector, is_cut in zip(places, embedded.vectors, embedded.is_cut, strict=True):
                texts[row].append(vector)
                candidate["entropy"] = entropy(candidate["text"])
                candidate["alignment"] = _cosine(images[row], vector)
                if is_cut:
                    candidate["flags"] = [*candidate["flags"], CUT_FOR_SCORER]
        return checked(self.scorer, images, texts) | {"candidates": candidates}


def checked(scorer: Scorer, images: list[np.ndarray | None], texts: list[list[np.ndarray]]) -> Batch:
    """Return `image_embedding`, `candidate_embeddings` and `error`; rows with a vector that is no number have none."""
    errors: list[str | None] = []
    for image, vectors in zip(images, texts, strict=True):
        what = "picture" if image is not None and not np.isfinite(image).all() else "candidate"
        is_sound = all(np.isfinite(vector).all() for vector in (image, *vectors) if vector is not None)
        errors.append(None if is_sound else f"{scorer.name}: the embedding of a {what} is no number")
    return {
        "image_embedding": [None if error else image for image, error in zip(images, errors, strict=True)],
        "candidate_embeddings": [[] if error else vectors for vectors, error in zip(texts, errors, strict=True)],
        "error": errors,
    }


def _cosine(image: np.ndarray | None, text: np.ndarray) -> float | None:
    if image is None:
        return None
    return float(image.astype(np.float32) @ text.astype(np.float32))
