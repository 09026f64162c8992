# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a step is: columns of a batch in, new columns of the same length out."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from turingvit_hf.curation.journal import Journal


Batch = dict[str, list[Any]]


class Step(ABC):
    """A measurement or a call of a model, on batches.

    `datasets.map(step, batched=True)` and Ray's `map_batches(step)` call it unchanged. A step keeps nothing between
    batches that would change what it returns for a row. Faults of a single row go into the column `error`: None, or a
    text about what a retry may mend. An exception means that the whole run is at fault: a missing model, a wrong
    configuration, an endpoint that is down for good. What is measured is returned and stored; what follows from it is
    decided elsewhere, from the stored values.

    Attributes:
        name: of the step, in errors and reports.
        reads: the columns that it needs.
        drafts: columns that it makes for later steps of the same batch and that are never stored, such as `image`.
        journal: where answered calls of models are kept. The engine sets one for each shard; alone, a step keeps its
            answers in memory.
    """

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]]
    drafts: ClassVar[tuple[str, ...]] = ()
    journal: Journal | None = None

    @abstractmethod
    def __call__(self, batch: Batch) -> Batch:
        """Return the new columns of a batch, each as long as the batch."""


def batch_length(batch: Batch) -> int:
    """Return how many rows a batch has."""
    return len(next(iter(batch.values()), ()))
