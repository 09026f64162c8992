# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Models of tests that are none: they answer from the question alone, and write down what they were asked."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from turingvit_hf.curation.models.answers import Answer, Failure, Question, key_of
from turingvit_hf.curation.models.scorers import TextEmbeddings


WORDS = ("boat", "button", "dog", "kite", "lamp", "river", "stone", "tree", "wheel", "window")
WIDTH = 8


class CountingCaptioner:
    """Captions that follow from the question; each question and each answer is a line of a file.

    Args:
        log: the file.
        failing: while this file is there, questions about some images fail for a reason that may pass.
    """

    def __init__(self, log: str, failing: str | None = None):
        self.name = self.model = "counting"
        self.revision = None
        self.parameters: dict[str, Any] = {}
        self._log = log
        self._failing = failing

    def answer(self, questions: Sequence[Question], done: Callable[[int, Answer], None]) -> None:
        """Answer every question."""
        for index, question in enumerate(questions):
            key = key_of(self, question)
            self._write(f"asked {key}")
            if (
                self._failing is not None
                and Path(self._failing).exists()
                and int(question.image_hash or "0", 16) % 3 == 0
            ):
                done(index, Answer(failure=Failure("server error", "500", passing=True)))
                continue
            chosen = [WORDS[int(digit, 16) % len(WORDS)] for digit in key[:6]]
            done(
                index,
                Answer(text=f"A {' '.join(chosen)}.", finish_reason="stop", prompt_tokens=7, completion_tokens=3),
            )
            self._write(f"answered {key}")

    def _fails(self, question: Question) -> bool:
        is_chosen = int(question.image_hash or "0", 16) % 3 == 0
        return is_chosen and self._failing is not None and Path(self._failing).exists()

    def _write(self, line: str) -> None:
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)


class HashScorer:
    """Unit vectors that follow from the pixels and from the words."""

    name = "hash"
    revision = None
    tau = 0.05
    is_sigmoid = False

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return (N, 8) float16."""
        return np.stack([_vector(np.ascontiguousarray(image).tobytes()) for image in images])

    def embed_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Return the embeddings of texts."""
        return TextEmbeddings(np.stack([_vector(text.encode()) for text in texts]), [False] * len(texts))


def _vector(value: bytes) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "big")
    vector = np.random.default_rng(seed).normal(size=WIDTH)
    return (vector / np.linalg.norm(vector)).astype(np.float16)


class Refusing:
    """A verifier that finds nothing grounded."""

    name = model = "refusing"
    revision = None
    parameters: ClassVar[dict[str, Any]] = {}

    def answer(self, questions: Sequence[Question], done: Callable[[int, Answer], None]) -> None:
        """Answer every question."""
        for index, _ in enumerate(questions):
            verdict = '{"grounded": false, "hallucinated_phrases": [], "quality": 1}'
            done(index, Answer(text=verdict, finish_reason="stop"))
