# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Candidate captions: the rows' own, and those of every captioner in every style."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from turingvit_hf.curation.decisions import CaptionThresholds
from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.models.captioners import Captioner, Described, Measure, error_text, raw_candidate
from turingvit_hf.curation.models.registry import build
from turingvit_hf.curation.prompts import MAX_WORDS, MIN_NOUN_RATIO, STYLES
from turingvit_hf.curation.steps.base import Batch, Step, batch_length
from turingvit_hf.curation.text import check_caption, is_visible


class CaptionStep(Step):
    """Makes the column `candidates`; with no captioner it holds the rows' own captions alone.

    It reads `raw_caption` (a text, several, or None) and `copied_captions` (`text` and `sample_id` of captions of the
    row's copies, or None), for captioners `image` (uint8 (H, W, 3), or None for a row that could not be decoded) and,
    where there is one, `sha256`. It also makes `caption_failures`, one entry for each
    caption that is missing, and `caption_usage`, what the calls took.

    Args:
        captioners: models, as `registry.build` takes them or built already.
        styles: which prompts are used.
        use_raw: whether the rows' own captions, and those of their copies, are candidates.
        tagger: of nouns, likewise.
        thresholds: limits that captions get one more try for; None takes the defaults.
    """

    name = "caption"
    reads = ("image", "raw_caption", "copied_captions")

    def __init__(
        self,
        *,
        captioners: Sequence[Any] = (),
        styles: Sequence[str] = tuple(STYLES),
        use_raw: bool = True,
        tagger: Any = MappingProxyType({"kind": "lexicon"}),
        thresholds: CaptionThresholds | None = None,
    ):
        thresholds = thresholds or CaptionThresholds()
        self._measure = partial(check_caption, tagger=build("tagger", tagger), thresholds=thresholds)
        self._use_raw = use_raw
        self._captioners = [
            Captioner(
                build("captioner", captioner),
                self._measure,
                styles=styles,
                max_words=thresholds.max_words or MAX_WORDS,
                min_noun_ratio=MIN_NOUN_RATIO,
            )
            for captioner in captioners
        ]

    def __call__(self, batch: Batch) -> Batch:
        """Return `candidates`, `caption_failures`, `caption_usage` and `error` of each row."""
        if self.journal is None:
            self.journal = Journal()
        size = batch_length(batch)
        candidates = raw_candidates(batch, self._measure) if self._use_raw else [[] for _ in range(size)]
        failures: list[list[dict[str, Any]]] = [[] for _ in range(size)]
        errors: list[str | None] = [None] * size
        usage: list[dict[str, Any]] = [{} for _ in range(size)]
        images = batch.get("image", [None] * size)
        rows = [row for row, image in enumerate(images) if image is not None]
        hashes = batch.get("sha256", [None] * size)
        for captioner in self._captioners:
            described = captioner.describe([images[row] for row in rows], [hashes[row] for row in rows], self.journal)
            for row, made in zip(rows, described, strict=True):
                candidates[row] += made.candidates
                failures[row] += made.failures
                errors[row] = errors[row] or self._error(made)
                usage[row] = add_usage(usage[row], captioner.usage(made.answers))
        return {"candidates": candidates, "caption_failures": failures, "caption_usage": usage, "error": errors}

    @staticmethod
    def _error(made: Described) -> str | None:
        return error_text(made.failures, is_anything_usable=bool(made.candidates))


def raw_candidates(batch: Batch, measure: Measure) -> list[list[dict[str, Any]]]:
    """Return the candidates that nobody has to write: of each row its own captions, then other ones of its copies,
    which say in `copied_from` whose they are."""
    nothing = [None] * batch_length(batch)
    found = []
    columns = (batch.get("raw_caption", nothing), batch.get("copied_captions", nothing))
    for raw, copied in zip(*columns, strict=True):
        sources: dict[str, str | None] = dict.fromkeys(_texts(raw))
        for caption in copied or ():
            sources.setdefault(caption["text"], caption["sample_id"])
        found.append([raw_candidate(text, measure, source) for text, source in sources.items()])
    return found


def add_usage(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sum of what two groups of answers took."""
    return {name: first.get(name, 0) + second.get(name, 0) for name in second}


def _texts(raw: Any) -> list[str]:
    """The captions that a row brought along, those without a visible sign left out, each once."""
    values = [raw] if isinstance(raw, str) or raw is None else list(raw)
    return list(dict.fromkeys(text for text in values if isinstance(text, str) and is_visible(text)))
