# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What an endpoint's response of status 200 holds. The client checks nothing of it, and servers have their own ideas
of what belongs there."""

from typing import Any, NamedTuple

from turingvit_hf.curation.models.requests import BadResponseError


class Reply(NamedTuple):
    """An answer as it came.

    Attributes:
        text: of the answer; empty where there is none.
        refusal: what the model says instead of an answer.
        finish_reason: as the server calls it.
        tokens: of the prompt and of the answer, None where the server does not count them.
    """

    text: str
    refusal: str | None
    finish_reason: str
    tokens: tuple[int, int] | None


def read_reply(completion: Any) -> Reply:
    """Return the first answer of a response.

    Args:
        completion: what the client made of the response: of an object its own class, with values of any type in it;
            of a proxy's page in HTML a text.

    Raises:
        BadResponseError: there is no answer in it.
    """
    choices = getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None:
        # some servers tell of an error so
        raise BadResponseError(f"no choices in {str(getattr(completion, 'error', None) or completion)[:80]!r}")
    content = getattr(message, "content", None)
    if isinstance(content, list):  # parts, of which thoughts and the like are no texts
        content = "".join(_text_of(part) for part in content)
    if isinstance(message, str) or not isinstance(content, str | None):
        raise BadResponseError(f"no message in {str(completion)[:80]!r}")
    refusal, reason = getattr(message, "refusal", None), getattr(choice, "finish_reason", None)
    usage = getattr(completion, "usage", None)
    return Reply(
        content or "",
        str(refusal) if refusal else None,
        str(reason or ""),
        None if usage is None else (_count(usage, "prompt_tokens"), _count(usage, "completion_tokens")),
    )


def _text_of(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
    return text if isinstance(text, str) else ""


def _count(usage: Any, name: str) -> int:
    number = getattr(usage, name, None)
    return number if isinstance(number, int) else 0
