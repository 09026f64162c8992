# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Engines: they run the stages of shards somewhere, and have no part in what comes of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from turingvit_hf.curation.ambiguity import BatchResult, ContrastBatches
from turingvit_hf.curation.shard_work import Task
from turingvit_hf.curation.stages import STAGES
from turingvit_hf.errors import InputError


NAMES = ("local", "ray")
# whose models, or products of embeddings, torch has on a GPU where there is one
ON_GPU = ("consistency", "caption", "verify", "judge", "embed", "score", "ground")
# which workers have a part in: duplicates are found by the process that was started
SPREAD = tuple(name for name in STAGES if name != "deduplicate")


class Engine(Protocol):
    """Runs tasks, in any order and place."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
        """Yield the manifest of each task of one stage as soon as it is done.

        Raises:
            InputError: a task found the whole run at fault.
        """

    def contrast(self, step: ContrastBatches, num_jobs: int) -> Iterator[BatchResult]:
        """Yield what the step gives for each job, in the order of the jobs."""


@dataclass(frozen=True)
class EngineOptions:
    """Where the work is done. None of it changes a result, but for how torch rounds: a GPU does so other than a CPU,
    and a scorer or detector on a CPU may by its number of threads, of which each of several workers has its share.

    Attributes:
        name: `"local"`: processes of this machine; `"ray"`: actors of a Ray cluster.
        num_workers: shards that are worked on at a time.
        num_cpus: CPUs of each worker of a stage, by the stage's name; `""` is for all others. Ray only.
        num_gpus: GPUs likewise; `""` is for all others that can use one. Ray only.
        address: of a Ray cluster, such as `ray://head:10001`; None: the one that the environment names, or a new one
            on this machine. Ray only.

    Raises:
        InputError: there is no such engine, or it does not take one of these.
    """

    name: str = "local"
    num_workers: int = 1
    num_cpus: Mapping[str, float] = field(default_factory=dict)
    num_gpus: Mapping[str, float] = field(default_factory=dict)
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise InputError(f"there is no engine {self.name!r}; there are {', '.join(NAMES)}")
        if self.num_workers < 1:
            raise InputError(f"num_workers={self.num_workers} must be 1 or more")
        _check("num_cpus", self.num_cpus, SPREAD)
        _check("num_gpus", self.num_gpus, ON_GPU)
        of_ray = {name: getattr(self, name) for name in ("num_cpus", "num_gpus", "address")}
        if self.name == "local" and any(of_ray.values()):
            named = ", ".join(name for name, value in of_ray.items() if value)
            raise InputError(
                f"{named}: only the engine ray takes this; processes of this machine share its CPUs and take the "
                "device that a model's `device` names, or the first GPU"
            )

    def cpus_of(self, stage: str) -> float:
        """CPUs of a worker of a stage."""
        return self.num_cpus.get(stage, self.num_cpus.get("", 1.0))

    def gpus_of(self, stage: str) -> float:
        """GPUs of a worker of a stage."""
        return self.num_gpus.get(stage, self.num_gpus.get("", 0.0) if stage in ON_GPU else 0.0)


def _check(name: str, amounts: Mapping[str, float], stages: Sequence[str]) -> None:
    for stage, amount in amounts.items():
        if stage and stage not in STAGES:
            raise InputError(f"{name}: there is no stage {stage!r}; there are {', '.join(STAGES)}")
        if stage and stage not in stages:
            raise InputError(f"{name}: stage {stage} has no use for them; those that have are {', '.join(stages)}")
        if not 0 <= amount < math.inf:
            raise InputError(f"{name}: {stage + '=' if stage else ''}{amount:g} must be 0 or more")


def contrast_job(step: ContrastBatches, job: int) -> BatchResult:
    """Return what the step gives for a job."""
    found = step({"job": [job]})
    return BatchResult(found["captions"][0], found["ambiguity"][0])


def make_engine(options: EngineOptions) -> Engine:
    """Return the engine that these options ask for.

    Raises:
        InputError: Ray is asked for and not installed.
    """
    if options.name == "ray":
        from turingvit_hf.curation.engines.ray import RayEngine

        return RayEngine(options)
    from turingvit_hf.curation.engines.local import LocalEngine

    return LocalEngine(options)
