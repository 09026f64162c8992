# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Verdicts on captions by a second model, which should be another than the one that wrote them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.models.answers import Answer, ChatModel, Question, ask
from turingvit_hf.curation.prompts import Verdict, verification_prompt


class Verifier:
    """Asks a model whether captions are grounded in their image.

    Args:
        model: answers questions about images.
    """

    def __init__(self, model: ChatModel):
        self.model = model

    def verify(
        self,
        images: Sequence[np.ndarray] | Sequence[tuple[np.ndarray, ...]],
        image_hashes: Sequence[str | None],
        captions: Sequence[str],
        journal: Journal,
    ) -> list[Answer]:
        """Return an answer for each caption, whose `value` is a `Verdict` unless it has a failure.

        Args:
            images: uint8 (H, W, 3) for each caption, or a tuple of frames.
            image_hashes: sha256 of their media, None to take it from the pixels.
            captions: what to check.
            journal: of answered calls.
        """
        questions = []
        for image, image_hash, caption in zip(images, image_hashes, captions, strict=True):
            frames = image if isinstance(image, tuple) else (image,)
            if isinstance(image, tuple) and image_hash is not None:
                # which frames of a clip they are follows from how many
                image_hash = f"{image_hash}/{len(frames)}"
            questions.append(Question(verification_prompt(caption), frames, image_hash, Verdict))
        return ask(self.model, questions, journal)


def merge_verdicts(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return what several verifiers say together: grounded if all say so, all their phrases, the least quality."""
    phrases = dict.fromkeys(phrase for verdict in verdicts for phrase in verdict.hallucinated_phrases)
    return {
        "grounded": all(verdict.grounded for verdict in verdicts),
        "hallucinated_phrases": list(phrases),
        "quality": min(verdict.quality for verdict in verdicts),
    }
