# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What is seen while a run goes on: a bar on a terminal, else a line of JSON every few seconds."""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


INTERVAL = 10.0  # seconds between two lines

logger = logging.getLogger(__name__)


class RunProgress:
    """Follows the stages of a run by the manifests of shards.

    Args:
        as_json: True: lines of JSON; False: a bar; None: a bar where there is a terminal, else lines.
        write: takes a line of JSON; None logs it.
        interval: seconds between two lines.
    """

    def __init__(
        self,
        as_json: bool | None = None,
        write: Callable[[str], None] | None = None,
        interval: float = INTERVAL,
    ):
        self._as_json = not sys.stderr.isatty() if as_json is None else as_json
        self._write = write if write is not None else logger.info
        self._interval = interval
        self._bar: Progress | None = None
        self._stage = ""
        self._begin_counts(0)

    def begin(self, stage: str, num_shards: int) -> None:
        """A stage begins, with so many shards left to do."""
        self.end()
        self._stage = stage
        self._begin_counts(num_shards)
        if not self._as_json:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("shards, {task.fields[note]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.add_task(stage, total=num_shards, note="")
            self._bar.start()

    def advance(self, manifest: Mapping[str, Any]) -> None:
        """A shard is done."""
        self._done += 1
        self._rows.update({name: manifest[name] for name in ("rows", "kept", "errors")})
        self._usage.update(manifest["usage"])
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, note=self._note())
        elif time.monotonic() - self._last_line >= self._interval:
            self._line()

    def end(self) -> None:
        """The stage ends, whether all of it was done or not."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self._stage and self._written < self._done:
            self._line()
        self._stage = ""

    def _begin_counts(self, num_shards: int) -> None:
        self._total, self._done, self._written = num_shards, 0, 0
        self._rows: Counter[str] = Counter()
        self._usage: Counter[str] = Counter()
        self._began = self._last_line = time.monotonic()

    def _speed(self) -> float:
        return self._rows["rows"] / max(1e-9, time.monotonic() - self._began)

    def _note(self) -> str:
        share = self._rows["kept"] / max(1, self._rows["rows"])
        return f"{self._speed():,.0f} rows/s, {share:.0%} kept, {self._rows['errors']:,} errors"

    def _line(self) -> None:
        self._last_line, self._written = time.monotonic(), self._done
        elapsed = self._last_line - self._began
        left = elapsed / self._done * (self._total - self._done) if self._done else None
        values = {
            "stage": self._stage,
            "shards_done": self._done,
            "shards": self._total,
            "rows": self._rows["rows"],
            "rows_per_second": round(self._speed(), 1),
            "seconds_left": round(left, 1) if left is not None else None,
            "kept_share": round(self._rows["kept"] / max(1, self._rows["rows"]), 4),
            "errors": self._rows["errors"],
            **{name: self._usage[name] for name in ("num_calls", "prompt_tokens", "completion_tokens") if self._usage},
        }
        if self._usage["cost"]:
            values["cost"] = round(self._usage["cost"], 6)
        self._write(json.dumps(values))
