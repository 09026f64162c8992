# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A polite end: the first SIGTERM or SIGINT asks training to save and stop, the second one acts as always."""

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


SIGNALS = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


class StopSignals:
    """A block in which the first of the signals is noted instead of ending the process.

    Trainer's own `enable_jit_checkpoint` waits three seconds, knows SIGTERM only and lets every rank save at the step
    where the signal reached it, at which other ranks may not save; here the trainer lets ranks agree.

    Attributes:
        received: name of the signal, or None.
    """

    def __init__(self):
        self.received: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self.received = None
        # Python lets only the main thread choose what signals do
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()
        logger.warning("%s: saving a checkpoint after this step, then training ends", self.received)
