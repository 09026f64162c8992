# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a model draws in a forward in training, such as the factors of its positions or dropout, as part of the pack.

A pack that carries a seed is drawn for from this seed, whichever process has it, whatever was drawn before, and every
time that it is embedded. So one process and two train on the same, and so does a run that was resumed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from turingvit_hf.data.draws import seed_of
from turingvit_hf.training.distributed import rank
from turingvit_hf.training.gradient_cache import generators_kept
from turingvit_hf.training.packs import MODEL_SEED, device_of


def with_seeds(packs: Sequence[Mapping[str, Any]], *, seed: int, step: int) -> list[dict[str, Any]]:
    """This rank's packs of a step, each with a seed that follows from the run's, the step and its place in the step.

    Ranks have equal numbers of a step's packs, in order, so that a pack has the same place for any number of ranks.
    """
    first = rank() * len(packs)
    return [{**pack, MODEL_SEED: seed_of("model", seed, step, first + number)} for number, pack in enumerate(packs)]


@contextmanager
def seeded(pack: Mapping[str, Any]) -> Iterator[None]:
    """Inside, random numbers are those of the pack's seed; afterwards, as if nothing had been drawn inside.

    A pack without a seed changes nothing: what is drawn inside comes from the process's generators.
    """
    if MODEL_SEED not in pack:
        yield
        return
    with generators_kept(device_of(pack)):
        torch.manual_seed(pack[MODEL_SEED])
        yield
