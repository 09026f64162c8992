# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Shards in actors of a Ray cluster, by Ray Data. The run folder must be at the same path on all of its machines."""

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from turingvit_hf.curation.ambiguity import BatchResult, ContrastBatches
from turingvit_hf.curation.engines import EngineOptions, contrast_job
from turingvit_hf.curation.models.loading import pick_device
from turingvit_hf.curation.optional import require
from turingvit_hf.curation.shard_work import Task, run_task
from turingvit_hf.errors import InputError


logger = logging.getLogger(__name__)


class ShardActor:
    """A worker: it keeps the models of its stage loaded from shard to shard."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Return the manifests of a batch of tasks, or what is at fault, as JSON."""
        results = []
        for text in batch["task"]:
            try:
                results.append(json.dumps(run_task(Task(**json.loads(text)))))
            except InputError as error:  # as a value: Ray would wrap it, and try again
                results.append(json.dumps({"input_error": str(error)}))
        return {"manifest": results}


class ContrastActor:
    """A worker of the ambiguity.

    Args:
        step: what contrasts captions within batches of images.
        on_gpu: whether it was given a GPU, or a part of one.
    """

    def __init__(self, step: ContrastBatches, *, on_gpu: bool = False):
        self._step = step
        if on_gpu:
            step.device = pick_device(None)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Return the captions of jobs and their ambiguities, as bytes."""
        found = [contrast_job(self._step, int(job)) for job in batch["job"]]
        return {
            "captions": [result.captions.astype(np.int64).tobytes() for result in found],
            "ambiguity": [result.ambiguity.astype(np.float64).tobytes() for result in found],
        }


class RayEngine:
    """A pool of actors a stage, each with the CPUs and GPUs that the options give that stage.

    Raises:
        InputError: Ray is not installed.
    """

    def __init__(self, options: EngineOptions):
        self._ray = require("ray", "ray")
        require("ray.data", "ray")
        self._options = options
        self._is_own = False

    def __enter__(self) -> Self:
        if not self._ray.is_initialized():
            self._ray.init(address=self._options.address, log_to_driver=False, include_dashboard=False)
            self._is_own = True
        if any(self._options.num_gpus.values()) and not self._ray.cluster_resources().get("GPU"):
            logger.warning("the cluster has no GPU at present: stages that ask for one wait until it has")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_own:
            self._ray.shutdown()

    def run(self, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
        """Yield the manifest of each task of one stage as soon as it is done.

        Raises:
            InputError: a task found the whole run at fault.
        """
        if not tasks:
            return
        data = self._ray.data
        stage, size = tasks[0].stage, min(self._options.num_workers, len(tasks))
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        rows = [{"task": json.dumps(dataclasses.asdict(task))} for task in tasks]
        results = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ShardActor,
            batch_size=1,
            compute=data.ActorPoolStrategy(size=size),
            num_cpus=self._options.cpus_of(stage),
            num_gpus=self._options.gpus_of(stage),
        )
        for row in results.iter_rows():
            manifest = json.loads(row["manifest"])
            if "input_error" in manifest:
                raise InputError(manifest["input_error"])
            yield manifest

    def contrast(self, step: ContrastBatches, num_jobs: int) -> Iterator[BatchResult]:
        """Yield what the step gives for each job, in the order of the jobs."""
        data = self._ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        results = data.from_items([{"job": job} for job in range(num_jobs)], override_num_blocks=num_jobs).map_batches(
            ContrastActor,
            fn_constructor_kwargs={"step": step, "on_gpu": self._options.gpus_of("score") > 0},
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(self._options.num_workers, num_jobs)),
            num_cpus=self._options.cpus_of("score"),
            num_gpus=self._options.gpus_of("score"),
        )
        for row in results.iter_rows():
            yield BatchResult(np.frombuffer(row["captions"], np.int64), np.frombuffer(row["ambiguity"], np.float64))
