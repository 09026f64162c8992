# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The order in which a reader takes the rows of one source: its share of them, shuffled, epoch after epoch."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from turingvit_hf.data.draws import draws, permuted, seed_of
from turingvit_hf.data.rows import Rows
from turingvit_hf.data.streams import Position, RowStream
from turingvit_hf.errors import BadRowError, InputError


logger = logging.getLogger(__name__)

Ref = list[int]
RowOrError = dict[str, Any] | BadRowError


class Share(NamedTuple):
    """Part number `index` of `num_shares` equal ones, and the seed that everything drawn for it depends on."""

    index: int
    num_shares: int
    seed: int


class Read(NamedTuple):
    """A row that was read: what names it in the state, its name in its source, its epoch, and its values."""

    ref: Ref
    name: str
    epoch: int
    row: RowOrError


class Cursor(Protocol):
    """The rows of one source in the order in which one reader takes them."""

    def next(self) -> Read: ...

    def again(self, refs: Sequence[Ref]) -> list[Read]: ...

    def state(self, waiting: Sequence[Ref]) -> Any: ...

    def restore(self, state: Any) -> None: ...


class RowsCursor:
    """Each epoch a permutation of the rows, every n-th of which belongs to the share.

    With fewer rows than shares every share is all of the rows, in an order of its own.
    """

    def __init__(self, rows: Rows, num_rows: int, *, share: Share):
        self._rows = rows
        self._num_rows = num_rows
        self._share = share
        self._num_read = 0
        self._is_alone = num_rows < share.num_shares

    def next(self) -> Read:
        """Read the next row."""
        index, num_shares, seed = self._share
        first, step = (0, 1) if self._is_alone else (index, num_shares)
        own = len(range(first, self._num_rows, step))
        epoch, place = divmod(self._num_read, own)
        key = seed_of("order", seed, epoch, *([index] if self._is_alone else []))
        self._num_read += 1
        return self._read([epoch, permuted(first + place * step, self._num_rows, key)])

    def again(self, refs: Sequence[Ref]) -> list[Read]:
        """Read rows again that `next` gave."""
        return [self._read(ref) for ref in refs]

    def state(self, waiting: Sequence[Ref]) -> int:
        """Return how many rows were read."""
        return self._num_read

    def restore(self, state: int) -> None:
        """Take over a `state`."""
        self._num_read = state

    def _read(self, ref: Ref) -> Read:
        epoch, index = ref
        try:
            row: RowOrError = self._rows[index]
        except BadRowError as error:
            row = error
        return Read(ref, str(index), epoch, row)


class StreamCursor:
    """Windows of a stream's share, each shuffled by itself. Windows do not reach over the end of an epoch."""

    def __init__(self, stream: RowStream, *, share: Share, path: str, window: int):
        self._stream = stream
        self._share = share
        self._path = path
        self._size = window
        self._window = -1
        self._taken = 0
        self._rows: list[tuple[RowOrError, str]] = []
        self._order: list[int] = []
        # where each window starts that a row may have to be read from again, and the next one
        self._starts: dict[int, Position] = {0: Position()}
        self._is_alone = False
        self._iterator: Iterator[tuple[RowOrError, str, Position]] | None = None

    def next(self) -> Read:
        """Read the next row of the window, or of the next window.

        Raises:
            InputError: the stream has no rows.
        """
        while self._taken == len(self._order):
            self._open(self._window + 1)
        index = self._order[self._taken]
        self._taken += 1
        return self._read(self._window, index, self._rows)

    def again(self, refs: Sequence[Ref]) -> list[Read]:
        """Read rows again that `next` gave, each of their windows once."""
        windows = {number: self._fill(number)[0] for number in sorted({window for window, _ in refs})}
        self._iterator = None
        return [self._read(window, index, windows[window]) for window, index in refs]

    def state(self, waiting: Sequence[Ref]) -> dict[str, Any]:
        """Return the place in the current window and where windows start, of which rows are `waiting` too."""
        needed = {self._window, self._window + 1, *(window for window, _ in waiting)}
        self._starts = {number: start for number, start in self._starts.items() if number in needed}
        return {
            "window": self._window,
            "taken": self._taken,
            "is_alone": self._is_alone,
            "starts": [[number, *start] for number, start in self._starts.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a `state`; the current window is read again."""
        self._is_alone = state["is_alone"]
        self._starts = {number: Position(*start) for number, *start in state["starts"]}
        self._window, self._taken, self._iterator = state["window"], 0, None
        self._order = []
        if self._window >= 0:
            self._open(self._window)
            self._taken = state["taken"]

    def _open(self, number: int) -> None:
        self._rows = []  # so that only one window is in memory while the next one is read
        self._rows, self._starts[number + 1] = self._fill(number)
        self._window, self._taken = number, 0
        self._order = list(range(len(self._rows)))
        draws("window", self._share.seed, self._share.index, number).shuffle(self._order)

    def _fill(self, number: int) -> tuple[list[tuple[RowOrError, str]], Position]:
        """Return the rows of a window and where the next one starts."""
        position = self._starts[number]
        if self._iterator is None or number != self._window + 1:
            self._iterator = self._iterate(position)
        rows: list[tuple[RowOrError, str]] = []
        for row, name, after in self._iterator:
            rows.append((row, name))
            position = after
            if len(rows) == self._size:
                return rows, position
        self._iterator = None
        if position.given == 0:
            self._share_nothing()
            return [], Position()
        return rows, Position(position.epoch + 1)

    def _iterate(self, position: Position) -> Iterator[tuple[RowOrError, str, Position]]:
        index, num_shares, seed = (0, 1, self._share.seed) if self._is_alone else self._share
        return self._stream.iterate(position, index=index, num_shares=num_shares, seed=seed)

    def _share_nothing(self) -> None:
        """Read all rows where the share has none."""
        if self._is_alone or self._share.num_shares == 1:
            raise InputError(f"{self._path!r} has no rows")
        if self._share.index == self._share.num_shares - 1:
            logger.warning(
                "%s has fewer rows than the %d readers: some of them read all of its rows, each in its own order",
                self._path,
                self._share.num_shares,
            )
        self._is_alone = True

    def _read(self, window: int, index: int, rows: list[tuple[RowOrError, str]]) -> Read:
        row, name = rows[index]
        return Read([window, index], name, self._starts[window].epoch, row)
