# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The journal of answered model calls: whatever was answered, and perhaps paid for, is not asked again."""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any


def call_key(image_hash: str | None, prompt: str, model: str, parameters: dict[str, Any]) -> str:
    """Return what a call of a model is known by: sha256 in hex over image, prompt, model and parameters.

    Args:
        image_hash: sha256 of the media that the call is about, None for a call on text alone.
        prompt: the whole text that is sent.
        model: its name with its revision, and the endpoint's where that decides the answer.
        parameters: of sampling, and the schema of the answer.
    """
    parts = json.dumps([image_hash, prompt, model, parameters], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(parts.encode()).hexdigest()


class Journal:
    """Answers by key, each on disk before it is used; only appended to, so that a killed process loses none.

    Threads may share one. Two processes must not: each shard has its own.

    Args:
        path: a JSON-lines file, made when the first answer comes; None keeps the answers in memory.
        earlier: another such file, which is read and not written.
    """

    def __init__(self, path: Path | None = None, *, earlier: Path | None = None):
        self._path = path
        self._lock = threading.Lock()
        self._answers: dict[str, Any] = {}
        self.num_added = 0
        if earlier is not None and earlier.exists():
            self._answers |= Journal(earlier)._answers
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def get(self, key: str) -> Any:
        """Return the answer to a call, or None where it has none."""
        return self._answers.get(key)

    def put(self, key: str, answer: Any) -> None:
        """Keep an answer, which must be plain values of JSON; when this returns it is on disk."""
        line = json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n"
        with self._lock:
            if self._path is not None:
                is_new = not self._path.exists()
                with self._path.open("ab") as file:
                    file.write(line.encode())
                    file.flush()
                    os.fsync(file.fileno())
                if is_new:
                    _sync_folder(self._path.parent)
            self._answers[key] = answer
            self.num_added += 1

    def _read(self, path: Path) -> None:
        """Takes in what is there, and cuts off a last line that a killed process left unfinished."""
        complete = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                complete += len(line)
                try:
                    entry = json.loads(line)
                    self._answers[entry["key"]] = entry["answer"]
                except (ValueError, KeyError, TypeError):
                    continue  # a line that a full disk cut short in an earlier run; its call is asked again
        if complete != path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(complete)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
