# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Captions of images by a model that answers questions: one a style, tried once more where it breaks a limit."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.models.answers import Answer, ChatModel, Question, ask, hash_of_parameters, usage_of
from turingvit_hf.curation.prompts import (
    MAX_WORDS,
    MIN_NOUN_RATIO,
    STYLES,
    caption_prompt,
    prompt_hash,
    shorter_prompt,
)
from turingvit_hf.curation.text import FEW_NOUNS, TOO_MANY_WORDS


# quotation marks around a whole answer, and what chat models put before it
QUOTED = re.compile(r'^["\u201c](.*)["\u201d]$', re.DOTALL)
INTRODUCED = re.compile(r"^\W*caption[\s*_]*:[\s*_]*", re.IGNORECASE)

# a caption's `num_words`, `noun_ratio` and `flags`, as `text.check_caption` gives them
Measure = Callable[[str], dict[str, Any]]


@dataclass
class Described:
    """What a captioner made of one image.

    Args:
        candidates: dicts in the form of the column `candidates`.
        failures: `{"model", "style", "kind", "detail", "passing"}` for each caption that is missing.
        answers: all that was asked for it.
    """

    candidates: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


class Captioner:
    """Asks a model for one caption of each style.

    Args:
        model: answers questions about images.
        measure: what a caption has, and which limits it breaks; one that breaks any gets one more try.
        styles: names out of `prompts.STYLES`, or descriptions of other styles.
        max_words: asked for.
        min_noun_ratio: asked for. What `measure` flags may be less: the report's best caption has 0.27.
    """

    def __init__(
        self,
        model: ChatModel,
        measure: Measure,
        *,
        styles: Sequence[str] = tuple(STYLES),
        max_words: int = MAX_WORDS,
        min_noun_ratio: float = MIN_NOUN_RATIO,
    ):
        self.model = model
        self._measure = measure
        self._max_words = max_words
        self._prompts = {
            style: caption_prompt(style, max_words=max_words, min_noun_ratio=min_noun_ratio) for style in styles
        }

    def describe(
        self, images: Sequence[np.ndarray], image_hashes: Sequence[str | None], journal: Journal
    ) -> list[Described]:
        """Return the captions of each image, in the order of the styles.

        The questions about one image follow each other, so that a server's prefix cache has it.

        Args:
            images: uint8 (H, W, 3).
            image_hashes: sha256 of their media, None to take it from the pixels.
            journal: of answered calls.
        """
        places = [(row, style) for row in range(len(images)) for style in self._prompts]
        questions = [Question(self._prompts[style], (images[row],), image_hashes[row]) for row, style in places]
        answers = ask(self.model, questions, journal)
        drafts = {index: self._draft(answer) for index, answer in enumerate(answers) if answer.failure is None}
        results = [Described() for _ in images]
        for (row, style), answer in zip(places, answers, strict=True):
            results[row].answers.append(answer)
            if answer.failure is not None:
                results[row].failures.append(failure_row(self.model.name, style, answer))

        again = [index for index, draft in drafts.items() if draft["flags"]]
        better = ask(self.model, [self._once_more(questions[index], drafts[index]) for index in again], journal)
        for index, answer in zip(again, better, strict=True):
            results[places[index][0]].answers.append(answer)
            if answer.failure is None:
                drafts[index] = _better(drafts[index], self._draft(answer))
            elif answer.failure.passing:
                # the first one stands until a retry brings a second
                row, style = places[index]
                results[row].failures.append(failure_row(self.model.name, style, answer))
        for index, draft in drafts.items():
            row, style = places[index]
            results[row].candidates.append(self._candidate(draft, style))
        return results

    def usage(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Return what these answers took, see `usage_of`."""
        return usage_of(
            answers,
            prompt_price=getattr(self.model, "prompt_price", 0.0),
            completion_price=getattr(self.model, "completion_price", 0.0),
        )

    def _draft(self, answer: Answer) -> dict[str, Any]:
        """The caption in an answer, with what `measure` says of it."""
        text = clean_caption(answer.text)
        return {"text": text, "answer": answer, **self._measure(text)}

    def _once_more(self, question: Question, draft: dict[str, Any]) -> Question:
        problems = {
            TOO_MANY_WORDS: f"It has {draft['num_words']} words, and {self._max_words} are allowed.",
            FEW_NOUNS: "It has too few nouns.",
        }
        problem = " ".join(problems[flag] for flag in draft["flags"])
        return replace(question, prompt=shorter_prompt(question.prompt, draft["text"], problem))

    def _candidate(self, draft: dict[str, Any], style: str) -> dict[str, Any]:
        answer = draft["answer"]
        return {
            "text": draft["text"],
            "origin": "model",
            "copied_from": None,
            "captioner": self.model.name,
            "captioner_revision": self.model.revision,
            "style": style,
            "prompt_hash": prompt_hash(self._prompts[style]),
            "parameters_hash": hash_of_parameters(self.model),
            "seed": self.model.parameters.get("seed"),
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "latency": answer.latency,
            "num_words": draft["num_words"],
            "noun_ratio": draft["noun_ratio"],
            "flags": draft["flags"],
        }


def _better(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The draft that keeps the hard limit, then the one that keeps more of them; the first of equals."""
    return min(first, second, key=lambda draft: (TOO_MANY_WORDS in draft["flags"], len(draft["flags"])))


def raw_candidate(text: str, measure: Measure, copied_from: str | None = None) -> dict[str, Any]:
    """Return a row's own caption as a candidate; no limit of a prompt holds for it, so it has no flags.

    Args:
        text: the caption.
        measure: what is known of it.
        copied_from: the id of the row that it is taken over from, None for an own one.
    """
    names = ("captioner", "captioner_revision", "style", "prompt_hash", "parameters_hash", "seed", "finish_reason")
    counts = {"prompt_tokens": 0, "completion_tokens": 0, "latency": 0.0}
    return {
        "text": text,
        "origin": "raw",
        "copied_from": copied_from,
        **dict.fromkeys(names),
        **counts,
        **measure(text),
        "flags": [],
    }


def clean_caption(text: str) -> str:
    """Return an answer as a caption: in one line, without quotation marks around it or "Caption:" before it.

    Nothing else is changed; a caption may hold HTML, which whoever shows it has to escape.
    """
    text = INTRODUCED.sub("", " ".join(text.split()))
    quoted = QUOTED.match(text)
    return quoted.group(1).strip() if quoted and '"' not in quoted.group(1) else text


def failure_row(model: str, style: str | None, answer: Answer) -> dict[str, Any]:
    """Return the failure of an answer as reports count it."""
    failure = answer.failure
    assert failure is not None
    return {
        "model": model,
        "style": style,
        "kind": failure.kind,
        "detail": failure.detail,
        "passing": failure.passing,
        "num_tries": answer.num_tries,
    }


def error_text(failures: Sequence[dict[str, Any]], *, is_anything_usable: bool) -> str | None:
    """Return what to put into the column `error`: a text where a retry may help or nothing usable came, else None."""
    passing = [failure for failure in failures if failure["passing"]]
    told = passing or ([] if is_anything_usable else failures)
    if not told:
        return None
    first = told[0]
    return f"{first['model']}: {len(failures)} answers are missing; {first['kind']}: {first['detail']}"
