# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Questions to a model that sees and writes, and its answers: read, checked, recorded, and asked once more if need be.

What goes wrong is an answer too, with a `Failure` in it: one question must not end a batch.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ValidationError

from turingvit_hf.curation.journal import Journal, call_key
from turingvit_hf.curation.prompts import correction_prompt
from turingvit_hf.curation.text import well_formed
from turingvit_hf.errors import InputError


# how models decline; a caption starts with none of these
REFUSAL = re.compile(
    r"\W*(i['\u2019]m (very )?sorry|(i am )?sorry[,.!]|i can(no|['\u2019])t\b|i( a|['\u2019])m unable|as an ai\b)",
    re.IGNORECASE,
)
# thoughts before an answer, where the server has not taken them out; the template of some models begins them itself
THOUGHTS = re.compile(r"^.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class Failure:
    """Why a question has no usable answer.

    Args:
        kind: what failures like it are counted by: `"time-out"`, `"connection"`, `"rate limit"`, `"server error"`,
            `"bad response"` (passing); `"rejected"`, `"refused"`, `"empty"`, `"cut short"`, `"not JSON"`,
            `"wrong schema"`.
        detail: in a few words.
        passing: whether the same question may well be answered another time.
    """

    kind: str
    detail: str
    passing: bool


@dataclass(frozen=True)
class Question:
    """A prompt, with the images that it is about.

    Args:
        prompt: the text.
        images: uint8 (H, W, 3) each; none for a question about text alone.
        image_hash: sha256 of the media they came from; None takes it from the pixels.
        schema: of the JSON object to answer with; None asks for plain text.
    """

    prompt: str
    images: tuple[np.ndarray, ...] = field(default=(), repr=False)
    image_hash: str | None = None
    schema: type[BaseModel] | None = None


@dataclass(frozen=True)
class Answer:
    """What came back for a question.

    Args:
        text: as the model wrote it, without white space around it; empty where there is a failure.
        finish_reason: `"stop"`, `"length"` or what else the server says.
        prompt_tokens: of this answer and of tries that could not be used.
        completion_tokens: likewise.
        latency: seconds that the model took; 0 for an answer out of the journal tells nothing, see `recorded`.
        num_tries: how many requests were sent.
        failure: None for an answer that can be used.
        recorded: whether it came out of the journal.
        value: the JSON object, validated; None for plain text and failures.
    """

    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency: float = 0.0
    num_tries: int = 1
    failure: Failure | None = None
    recorded: bool = False
    value: Any = None


class ChatModel(Protocol):
    """Anything that answers questions about images: an endpoint, a local model, a plug-in.

    Attributes:
        name: how reports call it.
        model: what it is: its name at the endpoint, its hub id or folder.
        revision: of its weights where it is known.
        parameters: whatever beside image and prompt decides an answer; values of JSON.
    """

    name: str
    model: str
    revision: str | None
    parameters: Mapping[str, Any]

    def answer(self, questions: Sequence[Question], done: Callable[[int, Answer], None]) -> None:
        """Answer every question, in any order; `done(index, answer)` is called as soon as one is answered.

        Raises:
            InputError: the fault is not one question's: a model that does not exist, a key that is refused, an
                endpoint that is down for good.
        """
        ...


def ask(model: ChatModel, questions: Sequence[Question], journal: Journal) -> list[Answer]:
    """Return the answers, in order: out of the journal, or from the model and then recorded.

    Equal questions are asked once, and for all but the first the answer counts as recorded. An answer that cannot be
    used (empty, refused, cut short, not what the schema asks for) gets one more try with a note of what was wrong;
    failures are never recorded, so that a retry asks again.
    """
    keys = [key_of(model, question) for question in questions]
    answers: dict[str, Answer] = {}
    for key, question in zip(keys, questions, strict=True):
        recorded = journal.get(key)
        if recorded is not None:
            answers[key] = read_answer(Answer(**recorded, recorded=True), question)

    open_questions = {key: question for key, question in zip(keys, questions, strict=True) if key not in answers}
    _ask_round(model, open_questions, answers, journal)
    again = {}
    for key, question in open_questions.items():
        failure = answers[key].failure
        if failure is not None and not failure.passing and failure.kind != "rejected":
            again[key] = replace(question, prompt=correction_prompt(question.prompt, failure.detail))
    _ask_round(model, again, answers, journal)
    given: set[str] = set()
    in_order = []
    for key in keys:
        in_order.append(replace(answers[key], recorded=True) if key in given else answers[key])
        given.add(key)
    return in_order


def key_of(model: ChatModel, question: Question) -> str:
    """Return the key of a question's answer in the journal.

    The address of an endpoint is no part of it: the same model on another port is the same model.
    """
    image_hash = question.image_hash
    if image_hash is None and question.images:
        image_hash = hash_of_pixels(question.images)
    name = model.model if model.revision is None else f"{model.model}@{model.revision}"
    schema = None if question.schema is None else question.schema.model_json_schema()
    return call_key(image_hash, question.prompt, name, {**model.parameters, "schema": schema})


def hash_of_pixels(images: Sequence[np.ndarray]) -> str:
    """Return the sha256 in hex over shapes and pixels."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr(image.shape).encode())
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def hash_of_parameters(model: ChatModel) -> str:
    """Return 16 hex digits over what beside image and prompt decides a model's answers, for provenance."""
    text = json.dumps({**model.parameters}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_answer(answer: Answer, question: Question) -> Answer:
    """Return the answer with its `value`, or with the failure that keeps it from use."""
    answer = replace(answer, text=well_formed(answer.text))
    if answer.failure is not None:
        return replace(answer, failure=replace(answer.failure, detail=well_formed(answer.failure.detail)))
    text = THOUGHTS.sub("", answer.text).strip()
    if answer.finish_reason == "length":
        return _failed(answer, "cut short", "it was longer than the limit of tokens")
    if answer.finish_reason == "content_filter" or REFUSAL.match(text):
        return _failed(answer, "refused", f"it is a refusal: {text[:80]!r}")
    if not text:
        return _failed(answer, "empty", "it was empty")
    if text.startswith("<think>"):
        return _failed(answer, "empty", "it was thoughts alone")
    if question.schema is None:
        return replace(answer, text=text)
    try:
        # models that were asked for JSON alone still like to put words or a fence around it
        value = well_formed(json.JSONDecoder().raw_decode(text, max(text.find("{"), 0))[0])
    except (ValueError, RecursionError) as error:  # the latter of a model that opens one brace after another
        return _failed(answer, "not JSON", f"it is not one JSON object ({error})")
    try:
        return replace(answer, text=text, value=question.schema.model_validate(value))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the object"
        return _failed(answer, "wrong schema", f"{place}: {first['msg']}")


def usage_of(answers: Sequence[Answer], *, prompt_price: float = 0.0, completion_price: float = 0.0) -> dict[str, Any]:
    """Return what answers took: `num_calls`, `num_recorded`, `num_retries`, `num_failures`, tokens and `cost`.

    Args:
        answers: those of one row.
        prompt_price: for a million tokens; the cost has its currency.
        completion_price: likewise.
    """
    asked = [answer for answer in answers if not answer.recorded]
    prompt_tokens = sum(answer.prompt_tokens for answer in asked)
    completion_tokens = sum(answer.completion_tokens for answer in asked)
    return {
        "num_calls": sum(answer.num_tries for answer in asked),
        "num_recorded": len(answers) - len(asked),
        "num_retries": sum(answer.num_tries - 1 for answer in asked),
        "num_failures": sum(answer.failure is not None for answer in asked),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost": (prompt_tokens * prompt_price + completion_tokens * completion_price) / 1e6,
    }


def _ask_round(
    model: ChatModel, questions: Mapping[str, Question], answers: dict[str, Answer], journal: Journal
) -> None:
    """Puts the answers of these questions into `answers`, on top of those of an earlier round."""
    keys = list(questions)
    called = set()

    def done(index: int, answer: Answer) -> None:
        key = keys[index]
        called.add(key)
        answer = read_answer(answer, questions[key])
        if key in answers:
            answer = _on_top_of(answers[key], answer)
        answers[key] = answer
        if answer.failure is None:
            journal.put(key, _to_record(answer))

    if keys:
        model.answer([questions[key] for key in keys], done)
        if not called.issuperset(keys):
            raise InputError(f"the model {model.name!r} answered {len(called)} of {len(keys)} questions")


def _on_top_of(first: Answer, second: Answer) -> Answer:
    return replace(
        second,
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
        latency=first.latency + second.latency,
        num_tries=first.num_tries + second.num_tries,
    )


def _failed(answer: Answer, kind: str, detail: str) -> Answer:
    return replace(answer, text="", failure=Failure(kind, detail, passing=False))


def _to_record(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in asdict(answer).items() if name not in ("failure", "recorded", "value")}
