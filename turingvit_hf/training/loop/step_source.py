# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the trainer asks of a source of steps, such as `StepLoader`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from turingvit_hf.training.distributed import gather_objects, world_size
from turingvit_hf.training.loop.meter import Throughput


class StepSource(Protocol):
    """An endless source of steps that can say where it is and go on from there."""

    @property
    def fill(self) -> float:
        """The share of the patches that packs had room for, so far on this rank."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """`{"packs": [pack, ...], "kind": "image" | "video"}`, as many packs on every rank."""

    def state_dict(self) -> dict[str, Any]:
        """Where this rank's source is, after every step that was handed out, as plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a merged state."""

    @staticmethod
    def merge_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """One state of all ranks, which any number of ranks can load."""

    def counts(self) -> Mapping[str, Any]:
        """What this rank has read; under `"skipped"` the number of rows left out by reason."""


class WaitedFor:
    """The steps of a source, where the time spent waiting for one is measured. Has no length, as the source has none.

    Args:
        source: gives the steps.
        throughput: told of the waiting.
    """

    def __init__(self, source: StepSource, throughput: Throughput):
        self.source = source
        self.throughput = throughput

    def __iter__(self) -> Iterator[dict[str, Any]]:
        steps = iter(self.source)
        while True:
            with self.throughput.waiting():
                step = next(steps, None)
            if step is None:
                return
            yield step


def skipped_rows(source: StepSource) -> dict[str, int]:
    """The number of rows that all ranks have left out, by reason. Collective."""
    total: Counter[str] = Counter()
    for skipped in gather_objects(dict(source.counts()["skipped"])):
        total.update(skipped)
    return dict(sorted(total.items()))


def padding_share(source: StepSource) -> float:
    """The share of the room in packs that stayed empty, over all ranks. Collective."""
    return 1 - sum(gather_objects(source.fill)) / world_size()
