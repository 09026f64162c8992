# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Conversations about images as rows hold them: chat `messages` and the JSON of LLaVA, brought to one form."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turingvit_hf.data.media import Media, find_media
from turingvit_hf.errors import BadRowError, InputError


# what stands for an image in a text, whatever the VLM's own image token is
PLACEHOLDER = "<image>"
# who speaks, in the words of LLaVA's JSON and in those of chat templates
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
IMAGE_KEYS = ("image", "path")
# the one reason to leave out a row that is not bad
NO_IMAGE = "conversation has no image"


@dataclass(frozen=True)
class Conversation:
    """One sample.

    Attributes:
        messages: what a chat template takes: `role`, and `content` as a list of `{"type": "text", "text": ...}` and
            `{"type": "image"}`.
        images: the images of its messages, in order.
    """

    messages: list[dict[str, Any]]
    images: list[Media]


def read_rows(path: str | Path) -> list[Any]:
    """The rows of a `.json` file (one list) or of a `.jsonl` file (one object a line; a broken line is a bad row).

    Raises:
        InputError: there is no such file, or it is no list in JSON.
    """
    path = Path(path)
    if path.suffix not in (".json", ".jsonl"):
        raise InputError(f"{path} is neither a .json nor a .jsonl file")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if path.suffix == ".jsonl":
        return [_parse_line(line) for line in text.splitlines() if line.strip()]
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise InputError(f"{path} holds a {type(rows).__name__}; a list of conversations is needed")
    return rows


def _parse_line(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def parse_conversation(row: Any, image_folder: Path | None = None) -> Conversation:
    """Return the conversation in a row.

    Two forms are read. `messages`: `role` and `content`, a text or a list of parts; an image part holds its image
    (`image` or `path`), or takes the next one of the row's `images`. LLaVA's: `conversations` of `from` and `value`,
    and `image`, a path or a list of them. In both, `<image>` in a text stands for the next of the row's images.

    Args:
        row: a dict, as JSON or `datasets` has it. Images are paths, bytes, pictures, or dicts with `bytes` or `path`.
        image_folder: where relative paths start.

    Raises:
        BadRowError: it is none of both forms, its images are more, fewer or missing, or nothing is answered.
    """
    if not isinstance(row, dict):
        raise BadRowError("row is no JSON object")
    turns = row.get("messages") or row.get("conversations")
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise BadRowError("row has neither messages nor conversations", f"it has {sorted(row)}")
    waiting = _row_images(row)
    messages, images = [], []
    for turn in turns:
        role, parts = _read_turn(turn)
        content = []
        for part in parts:
            if part["type"] == "image":
                if "image" not in part and not waiting:
                    raise BadRowError("conversation asks for more images than its row has")
                value = part["image"] if "image" in part else waiting.pop(0)
                images.append(find_media(value, "image", root=image_folder, is_confined=False))
                part = {"type": "image"}
            content.append(part)
        messages.append({"role": role, "content": content})
    if waiting:
        raise BadRowError("row has more images than its conversation asks for", f"{len(waiting)} more")
    _check_turns(messages)
    return Conversation(messages, images)


def _row_images(row: dict[str, Any]) -> list[Any]:
    for name in ("images", "image"):
        value = row.get(name)
        if value is not None:
            return list(value) if isinstance(value, list | tuple) else [value]
    return []


def _read_turn(turn: Any) -> tuple[str, list[dict[str, Any]]]:
    """Who speaks, and the parts of what is said: texts, and images with what they hold themselves, if anything."""
    if not isinstance(turn, dict):
        raise BadRowError("turn is no JSON object")
    speaker = turn.get("role", turn.get("from"))
    if speaker not in ROLES:
        raise BadRowError("turn is by an unknown speaker", f"{speaker!r:.40}, known are {sorted(ROLES)}")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise BadRowError("turn has no text")
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image":
            held = [part[key] for key in IMAGE_KEYS if part.get(key) is not None]
            parts.append({"type": "image", "image": held[0]} if held else {"type": "image"})
        elif kind == "text" and isinstance(part.get("text"), str):
            parts.extend(_split_placeholders(part["text"]))
        else:
            raise BadRowError("turn has a part that is neither text nor image", f"{kind!r:.40}")
    return ROLES[speaker], parts


def _split_placeholders(text: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(text.split(PLACEHOLDER)):
        if index:
            parts.append({"type": "image"})
        # the line break between an image and a text is for the chat template to make
        piece = piece.strip("\n") if PLACEHOLDER in text else piece
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _check_turns(messages: list[dict[str, Any]]) -> None:
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise BadRowError("conversation has no answer")
    if roles[0] == "assistant":
        raise BadRowError("conversation begins with an answer")
    for message in messages:
        if message["role"] != "assistant":
            continue
        if any(part["type"] == "image" for part in message["content"]):
            raise BadRowError("answer holds an image")
        if not "".join(part["text"] for part in message["content"]).strip():
            raise BadRowError("answer is empty")
