# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Readers: endless, deterministic streams of packs, each over its own share of the rows, that resume where they were.

A reader draws a source by weight, takes the next row of its share, gives the sample a place in one of its open packs,
and decodes the pictures of a pack when that is finished. Its state is a few numbers and the names of the rows that
wait in open packs: when it resumes, it reads these rows again. The packs after that are the ones it would have made.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.arguments import DataRecipe
from turingvit_hf.training.draws import draws, permuted, seed_of
from turingvit_hf.training.errors import BadRowError, InputError
from turingvit_hf.training.rows import Rows
from turingvit_hf.training.samples import Plan, Sample, SampleMaker
from turingvit_hf.training.sources import Source
from turingvit_hf.training.streams import Position, RowStream
from turingvit_hf.training.token_packs import OpenPacks


# rows after which the share of bad ones counts
MIN_ROWS = 100
# with max_bad_share 1 a reader gives up after so many bad rows without a pack
MAX_BAD_RUN = 10_000

logger = logging.getLogger(__name__)

Ref = list[int]
RowOrError = dict[str, Any] | BadRowError


class Collate(Protocol):
    """What makes a pack of samples: a dict of tensors. `"notes"`, a dict of counts, is taken out by the reader."""

    image_processor: TuringViTImageProcessor
    needs_captions: bool
    needs_crops: bool

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]: ...


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


class PackReader:
    """An endless stream of packs over one share of the rows of some sources.

    Args:
        sources: what is read, all of one kind.
        collate: makes a pack of samples.
        data: how rows become packs.
        share: which rows, and the seed.
    """

    def __init__(self, sources: Sequence[Source], collate: Collate, data: DataRecipe, *, share: Share):
        self._sources = sources
        self._collate = collate
        self._data = data
        self._share = share
        processor = collate.image_processor
        self._maker = SampleMaker(data, processor.patch_size, int(processor.resample), keep_crops=collate.needs_crops)
        self._cursors = [self._cursor(number) for number in range(len(sources))]
        self._packs = OpenPacks(data.tokens_per_pack, data.open_packs)
        self._ordinal = 0
        self._bad_run = 0
        self._counts = {"rows": 0, "images": 0, "packs": 0, "patches": 0}
        self._skipped: Counter[str] = Counter()
        self._noted: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def next(self) -> dict[str, Any]:
        """The next pack, never an empty one.

        Raises:
            InputError: too many of the rows are bad, or none is left that can be used.
        """
        while True:
            if (items := self._packs.take()) is None:
                self._add_row()
            elif samples := self._make(items):
                pack = self._collate(samples)
                self._noted.update(pack.pop("notes", {}))
                self._counts["images"] += len(samples)
                self._counts["packs"] += 1
                self._counts["patches"] += len(pack["pixel_values"])
                return pack

    def state(self) -> dict[str, Any]:
        """Return plain values that describe the reader between two packs."""
        waiting: list[list[Ref]] = [[] for _ in self._sources]
        for source, read, _ in self._packs.items():
            waiting[source].append(read)
        return {
            "ordinal": self._ordinal,
            "bad_run": self._bad_run,
            "cursors": [cursor.state(refs) for cursor, refs in zip(self._cursors, waiting, strict=True)],
            "packs": self._packs.state(lambda item: [item[0], *item[1], item[2].num_tokens]),
            "counts": dict(self._counts),
            "skipped": dict(self._skipped),
            "noted": dict(self._noted),
            "examples": dict(self._examples),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a `state`: the rows in open packs are read again.

        Raises:
            InputError: such a row cannot be used any more, or has another size than it had.
        """
        self._ordinal, self._bad_run = state["ordinal"], state["bad_run"]
        self._counts = dict(state["counts"])
        self._skipped, self._noted = Counter(state["skipped"]), Counter(state["noted"])
        self._examples = dict(state["examples"])
        if len(state["cursors"]) != len(self._cursors):
            raise InputError(
                f"the checkpoint was written with {len(state['cursors'])} sources, there are {len(self._cursors)}"
            )
        stored = [item for group in ("finished", "open") for pack in state["packs"][group] for item in pack[2]]
        plans: dict[tuple[int, ...], Plan] = {}
        for number, (cursor, cursor_state) in enumerate(zip(self._cursors, state["cursors"], strict=True)):
            cursor.restore(cursor_state)
            refs = [item[1:-1] for item in stored if item[0] == number]
            for read in cursor.again(refs):
                plans[number, *read.ref] = self._plan_again(number, read)

        def revive(item: list[int]) -> tuple[int, Ref, Plan]:
            plan = plans[tuple(item[:-1])]
            if plan.num_tokens != item[-1]:
                raise InputError(f"{plan.key} has {plan.num_tokens} patches, {item[-1]} when the checkpoint was made")
            return item[0], item[1:-1], plan

        self._packs.restore(state["packs"], revive)

    def _cursor(self, number: int) -> Cursor:
        source = self._sources[number]
        # two sources may be the same file, and have orders of their own all the same
        share = self._share._replace(seed=seed_of(self._share.seed, number))
        if isinstance(source.rows, RowStream):
            return StreamCursor(source.rows, share=share, path=source.recipe.path, window=self._data.shuffle_window)
        return RowsCursor(source.rows, source.num_rows, share=share)

    def _add_row(self) -> None:
        """Read one row and put it into a pack, or count why not."""
        weights = [source.recipe.weight for source in self._sources]
        number = 0
        if len(weights) > 1:
            rng = draws("source", self._share.seed, self._share.index, self._ordinal)
            (number,) = rng.choices(range(len(weights)), weights)
        read = self._cursors[number].next()
        self._ordinal += 1
        self._counts["rows"] += 1
        plan = self._attempt(lambda: self._plan(number, read))
        if plan is not None:
            self._noted.update(plan.notes)
            self._packs.add((number, read.ref, plan), plan.num_tokens)

    def _plan(self, number: int, read: Read) -> Plan:
        if isinstance(read.row, BadRowError):
            raise read.row
        source = self._sources[number]
        key = f"{source.recipe.path}/{read.name}"
        return self._maker.plan(source, read.row, key=key, draw_key=f"{self._share.seed}/{number}/{key}/{read.epoch}")

    def _plan_again(self, number: int, read: Read) -> Plan:
        try:
            return self._plan(number, read)
        except BadRowError as error:
            raise InputError(f"a row that the checkpoint holds cannot be read any more: {error}") from error

    def _make(self, items: list[tuple[int, Ref, Plan]]) -> list[Sample]:
        made = [self._attempt(lambda plan=plan: self._maker.make(plan)) for _, _, plan in items]
        samples = [sample for sample in made if sample is not None]
        if samples:
            self._bad_run = 0
        return samples

    def _attempt(self, work: Callable[[], Any]) -> Any:
        """What the work gives, or None where the row is bad, which is counted.

        Raises:
            InputError: more than `max_bad_share` of the rows are bad.
        """
        try:
            return work()
        except BadRowError as error:
            self._skipped[error.reason] += 1
            self._examples.setdefault(error.reason, error.detail)
            self._bad_run += 1
            num_rows, num_bad = self._counts["rows"], self._skipped.total()
            is_hopeless = self._bad_run >= MAX_BAD_RUN
            if is_hopeless or (num_rows >= MIN_ROWS and num_bad > self._data.max_bad_share * num_rows):
                reasons = "; ".join(
                    f"{count}: {reason} ({self._examples[reason]})" for reason, count in self._skipped.most_common()
                )
                raise InputError(
                    f"{num_bad} of {num_rows} rows cannot be used, max_bad_share is {self._data.max_bad_share}: "
                    f"{reasons}"
                ) from error
            return None
