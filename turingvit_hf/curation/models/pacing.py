# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How fast an endpoint may be asked: requests and tokens per minute, and pauses that it asks for."""

import time
from collections.abc import Callable


class Pace:
    """Hands out starting times, evenly spread, so that no minute has more than its share.

    Args:
        per_minute: how much of something a minute may have; None sets no limit.
        clock: seconds that only grow.
    """

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic):
        self.per_minute = per_minute
        self._clock = clock
        self._next = 0.0
        self._paused_until = 0.0

    def reserve(self, amount: float = 1.0) -> float:
        """Return the seconds to wait before so much may be taken, which counts as taken from now on."""
        now = self._clock()
        start = max(now, self._next)
        if self.per_minute is not None:
            self._next = start + 60 * amount / self.per_minute
        return start - now

    def correct(self, amount: float) -> None:
        """Take note that so much more (less, if negative) was taken than had been reserved."""
        if self.per_minute is not None:
            self._next += 60 * amount / self.per_minute

    def pause(self, seconds: float) -> None:
        """Let nobody start for so long."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def paused_for(self) -> float:
        """Return for how many seconds more nobody may start, at least 0."""
        return max(0.0, self._paused_until - self._clock())
