# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Readers: endless, deterministic streams of packs, each over its own share of the rows, that resume where they were.

A reader draws a source by weight, takes the next row of its share, puts the sample into a pool that packs are chosen
from, and decodes the pictures of a pack when it is chosen. Its state is a few numbers and the names of the rows that
wait in the pool: when it resumes, it reads these rows again. The packs after that are the ones it would have made.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from turingvit_hf.data.draws import draws, seed_of
from turingvit_hf.data.sources import Source, count_rows
from turingvit_hf.data.streams import RowStream
from turingvit_hf.errors import BadRowError, InputError
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.arguments import DataRecipe
from turingvit_hf.training.data.cursors import Cursor, Read, Ref, RowsCursor, Share, StreamCursor
from turingvit_hf.training.data.samples import Plan, Sample, SampleMaker
from turingvit_hf.training.data.token_packs import TokenPool


# rows after which the share of bad ones counts
MIN_ROWS = 100
SHRUNK = "image is made smaller to fill its pack"
# with max_bad_share 1 a reader gives up after so many bad rows without a pack
MAX_BAD_RUN = 10_000


class Collate(Protocol):
    """What makes a pack of samples: a dict of tensors. `"notes"`, a dict of counts, is taken out by the reader."""

    image_processor: TuringViTImageProcessor
    needs_captions: bool
    needs_crops: bool

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]: ...


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
        self._pool = TokenPool(data.tokens_per_pack, data.open_packs)
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
            if (items := self._pool.take()) is None:
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
        for source, read, _ in self._pool.items():
            waiting[source].append(read)
        return {
            "ordinal": self._ordinal,
            "bad_run": self._bad_run,
            "cursors": [cursor.state(refs) for cursor, refs in zip(self._cursors, waiting, strict=True)],
            "waiting": self._pool.state(lambda item: [item[0], *item[1]]),
            "counts": dict(self._counts),
            "skipped": dict(self._skipped),
            "noted": dict(self._noted),
            "examples": dict(self._examples),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a `state`: the rows in the pool are read again.

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
        plans: dict[tuple[int, ...], Plan] = {}
        for number, (cursor, cursor_state) in enumerate(zip(self._cursors, state["cursors"], strict=True)):
            cursor.restore(cursor_state)
            refs = [item[1:] for item, *_ in state["waiting"] if item[0] == number]
            for read in cursor.again(refs):
                plans[number, *read.ref] = self._plan_again(number, read)

        for item, length, _ in state["waiting"]:
            if (plan := plans[tuple(item)]).num_tokens != length:
                raise InputError(f"{plan.key} has {plan.num_tokens} patches, {length} when the checkpoint was made")
        self._pool.restore(state["waiting"], lambda item: (item[0], item[1:], plans[tuple(item)]))

    def _cursor(self, number: int) -> Cursor:
        source = self._sources[number]
        # two sources may be the same file, and have orders of their own all the same
        share = self._share._replace(seed=seed_of(self._share.seed, number))
        if isinstance(source.rows, RowStream):
            return StreamCursor(source.rows, share=share, path=source.recipe.path, window=self._data.shuffle_window)
        return RowsCursor(source.rows, count_rows(source.rows, source.recipe), share=share)

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
            self._pool.add((number, read.ref, plan), plan.num_tokens, plan.least_tokens)

    def _plan(self, number: int, read: Read) -> Plan:
        if isinstance(read.row, BadRowError):
            raise read.row
        source = self._sources[number]
        key = f"{source.recipe.path}/{read.name}"
        # without the path: data that were moved give the same run
        draw_key = f"{self._share.seed}/{number}/{read.name}/{read.epoch}"
        return self._maker.plan(source, read.row, key=key, draw_key=draw_key)

    def _plan_again(self, number: int, read: Read) -> Plan:
        try:
            return self._plan(number, read)
        except BadRowError as error:
            raise InputError(f"a row that the checkpoint holds cannot be read any more: {error}") from error

    def _make(self, items: list[tuple[tuple[int, Ref, Plan], int]]) -> list[Sample]:
        samples = []
        for (_, _, whole), room in items:
            plan = self._maker.smaller(whole, room)
            sample = self._attempt(lambda plan=plan: self._maker.make(plan))
            if sample is not None:
                samples.append(sample)
                if plan is not whole:
                    self._noted[SHRUNK] += 1
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
            is_enough = num_rows >= MIN_ROWS or self._data.max_bad_share == 0
            if is_hopeless or (is_enough and num_bad > self._data.max_bad_share * num_rows):
                reasons = "; ".join(
                    f"{count}: {reason} ({self._examples[reason]})" for reason, count in self._skipped.most_common()
                )
                raise InputError(
                    f"{num_bad} of {num_rows} rows cannot be used, max_bad_share is {self._data.max_bad_share}: "
                    f"{reasons}"
                ) from error
            return None
