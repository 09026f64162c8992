# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Grounding: the noun phrases of the chosen caption, looked for in the image."""

from types import MappingProxyType
from typing import Any

from turingvit_hf.curation.models.detectors import Detector
from turingvit_hf.curation.models.registry import build
from turingvit_hf.curation.steps.base import Batch, Step
from turingvit_hf.curation.taggers import Tagger
from turingvit_hf.curation.text import noun_phrases


class GroundingStep(Step):
    """Looks for what the captions name.

    It reads `image` (uint8 (H, W, 3), or None) and `caption` (the chosen one, or None). It makes `phrases`; `boxes`,
    a list of `{phrase, score, x0, y0, x1, y1}` in pixels of the image; and `grounding_recall`, the share of the
    phrases that have a box, None where there is no phrase to look for.

    Args:
        detector: a model, as `registry.build` takes it or built already.
        tagger: of noun phrases, likewise.
    """

    name = "ground"
    reads = ("image", "caption")

    def __init__(self, *, detector: Any, tagger: Any = MappingProxyType({"kind": "lexicon"})):
        self.detector: Detector = build("detector", detector)
        self.tagger: Tagger = build("tagger", tagger)

    def __call__(self, batch: Batch) -> Batch:
        """Return `phrases`, `boxes` and `grounding_recall` of each row."""
        phrases = [noun_phrases(caption, self.tagger) if caption else [] for caption in batch["caption"]]
        boxes: list[list[dict[str, Any]]] = [[] for _ in phrases]
        recalls: list[float | None] = [None] * len(phrases)
        rows = [row for row, image in enumerate(batch["image"]) if image is not None and phrases[row]]
        if rows:
            found = self.detector.detect([batch["image"][row] for row in rows], [phrases[row] for row in rows])
            for row, image_boxes in zip(rows, found, strict=True):
                boxes[row] = [box._asdict() for box in image_boxes]
                grounded = {box.phrase for box in image_boxes}
                recalls[row] = sum(phrase in grounded for phrase in phrases[row]) / len(phrases[row])
        return {"phrases": phrases, "boxes": boxes, "grounding_recall": recalls}
