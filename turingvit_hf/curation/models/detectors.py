# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Detectors: boxes for phrases, by any zero-shot detector of transformers."""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from turingvit_hf.curation.models.loading import load, move, pick_device
from turingvit_hf.errors import InputError


class Box(NamedTuple):
    """Where a phrase was found, in pixels of the original image: x0 ≤ x < x1 from the left, y0 ≤ y < y1 from above."""

    phrase: str
    score: float
    x0: float
    y0: float
    x1: float
    y1: float


class Detector(Protocol):
    """Anything that looks for phrases in images. `name` and `revision` are part of a box's provenance."""

    name: str
    revision: str | None

    def detect(self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]) -> list[list[Box]]:
        """Return the boxes in each image, uint8 (H, W, 3), of each of its phrases, best first."""
        ...


class TransformersDetector:
    """A detector that `AutoModelForZeroShotObjectDetection` loads.

    OWLv2, OWL-ViT and OmDet-Turbo take the phrases of an image as a list, and each box belongs to one of them.
    Grounding DINO reads one text, and would join words of neighboring phrases; it is asked for one phrase at a time.

    Args:
        model: hub id or folder.
        name: how reports call it; empty: `model`.
        revision: of a hub model.
        dtype: of the weights.
        device: None takes an accelerator where there is one.
        batch_size: images at a time.
        min_score: boxes below are left out.
        max_area: boxes that cover more than this share of the image are left out, since they locate nothing.
        max_overlap: of two boxes of one phrase with a greater intersection over union the better one is kept.
    """

    def __init__(
        self,
        model: str,
        *,
        name: str = "",
        revision: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
        batch_size: int = 8,
        min_score: float = 0.1,
        max_area: float = 0.95,
        max_overlap: float = 0.5,
    ):
        if batch_size < 1:
            raise InputError(f"batch_size must be 1 or more, not {batch_size}")
        for option, value in {"min_score": min_score, "max_area": max_area, "max_overlap": max_overlap}.items():
            if not 0 <= value <= 1:
                raise InputError(f"{option} must be between 0 and 1, not {value}")
        self.model = model
        self.name = name or model
        self.revision = revision
        self._dtype = dtype
        self._device = device
        self._batch_size = batch_size
        self._min_score = min_score
        self._max_area = max_area
        self._max_overlap = max_overlap
        self._network: Any = None
        self._processor: Any = None

    def detect(self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]) -> list[list[Box]]:
        """Return the boxes in each image of each of its phrases, best first.

        Args:
            images: uint8 (H, W, 3).
            phrases: of each image; there may be none.

        Raises:
            InputError: the model cannot be loaded.
        """
        boxes: list[list[Box]] = [[] for _ in images]
        for group in self._groups(phrases):
            found = self._detect([images[row] for row, _ in group], [list(asked) for _, asked in group])
            for (row, _), new in zip(group, found, strict=True):
                boxes[row] += new
        return [suppress(sorted(found, key=lambda box: -box.score), max_overlap=self._max_overlap) for found in boxes]

    def _groups(self, phrases: Sequence[Sequence[str]]) -> list[list[tuple[int, tuple[str, ...]]]]:
        """Batches of (row, phrases) that the model can take at once.

        Where numbers of phrases differ the processors of OWL fill up with empty phrases, and boxes of these cannot be
        told from any other's; so each batch has one number of phrases.
        """
        self._load()
        wanted = []
        for row, asked in enumerate(phrases):
            distinct = tuple(dict.fromkeys(asked))
            if distinct:
                wanted += [(row, (phrase,)) for phrase in distinct] if self._reads_text() else [(row, distinct)]
        groups = []
        for size in sorted({len(asked) for _, asked in wanted}):
            alike = [pair for pair in wanted if len(pair[1]) == size]
            groups += [alike[start : start + self._batch_size] for start in range(0, len(alike), self._batch_size)]
        return groups

    @torch.inference_mode()
    def _detect(self, images: list[np.ndarray], phrases: list[list[str]]) -> list[list[Box]]:
        texts = [f"{asked[0].lower().rstrip('.')}." for asked in phrases] if self._reads_text() else phrases
        # as pictures, since of an array three pixels high nobody could tell which side the colors are on
        pictures = [Image.fromarray(image) for image in images]
        inputs = self._processor(images=pictures, text=texts, return_tensors="pt", **self._text_options())
        outputs = self._network(**move(inputs, self._network))
        sizes = [image.shape[:2] for image in images]
        options: dict[str, Any] = {"threshold": self._min_score, "target_sizes": sizes}
        if self._reads_text():
            # whatever words of the one phrase a box was found by
            options |= {"input_ids": inputs["input_ids"], "text_threshold": 0.0}
        results = self._processor.post_process_grounded_object_detection(outputs, **options)
        return [self._boxes(result, asked, size) for result, asked, size in zip(results, phrases, sizes, strict=True)]

    def _boxes(self, result: dict[str, Any], asked: list[str], size: tuple[int, int]) -> list[Box]:
        height, width = size
        # of Grounding DINO's own labels, texts put together out of tokens, nothing is needed
        labels = [0] * len(result["scores"]) if self._reads_text() else result["labels"].tolist()
        limits = torch.tensor([width, height, width, height], dtype=torch.float32)
        # OWLv2 fills an image up to a square, and may find something partly out there
        corners = result["boxes"].float().cpu().clamp(min=0).minimum(limits)
        boxes = []
        for label, score, (x0, y0, x1, y1) in zip(labels, result["scores"].tolist(), corners.tolist(), strict=True):
            area = (x1 - x0) * (y1 - y0)
            if 0 < area <= self._max_area * height * width:
                boxes.append(Box(asked[label], score, x0, y0, x1, y1))
        return boxes

    def _load(self) -> None:
        if self._network is not None:
            return
        self._device = pick_device(self._device)
        self._processor = load(AutoProcessor, self.model, self.revision)
        if not hasattr(self._processor, "post_process_grounded_object_detection"):
            raise InputError(f"{self.model!r} is no zero-shot detector: its processor finds no boxes for texts")
        network = load(AutoModelForZeroShotObjectDetection, self.model, self.revision, dtype=self._dtype)
        self._network = network.to(self._device).eval()

    def _reads_text(self) -> bool:
        """Whether the model reads one text and not a list of phrases; its post-processing then needs the tokens."""
        process = self._processor.post_process_grounded_object_detection
        return "input_ids" in inspect.signature(process).parameters

    def _text_options(self) -> dict[str, Any]:
        """How long phrases are cut; the processors would hand on more tokens than the model has places for."""
        config = self._network.config
        limits = [getattr(config, "max_text_len", None)]
        limits.append(getattr(getattr(config, "text_config", None), "max_position_embeddings", None))
        limit = min((limit for limit in limits if limit is not None), default=None)
        options = {"truncation": True} | ({"max_length": limit} if limit else {})
        return options | ({"padding": True} if self._reads_text() else {})

    def __getstate__(self) -> dict[str, Any]:
        # each process loads it for itself
        return self.__dict__ | {"_network": None, "_processor": None}


def suppress(boxes: Sequence[Box], *, max_overlap: float) -> list[Box]:
    """Return the boxes without those that overlap an earlier one of the same phrase by more than allowed.

    Args:
        boxes: best first.
        max_overlap: greatest intersection over union.
    """
    kept: list[Box] = []
    for box in boxes:
        same = (other for other in kept if other.phrase == box.phrase)
        if all(overlap(box, other) <= max_overlap for other in same):
            kept.append(box)
    return kept


def overlap(first: Box, second: Box) -> float:
    """Return the area of the intersection over that of the union, in [0, 1]."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box.x1 - box.x0) * (box.y1 - box.y0) for box in (first, second))
    return shared / (areas - shared)
