# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Shards in processes of this machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from turingvit_hf.curation.ambiguity import BatchResult, ContrastBatches
from turingvit_hf.curation.engines import EngineOptions, contrast_job
from turingvit_hf.curation.shard_work import Task, run_task
from turingvit_hf.errors import InputError


class LocalEngine:
    """One worker is this process; more are processes that end with it, even when it is killed."""

    def __init__(self, options: EngineOptions):
        self._num_workers = options.num_workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            if kind is KeyboardInterrupt:  # not when their shards are done: what was answered is on disk
                for process in list(self._pool._processes.values()):
                    process.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def run(self, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
        """Yield the manifest of each task of one stage as soon as it is done.

        Raises:
            InputError: a task found the whole run at fault, or a worker died.
        """
        if self._num_workers == 1:
            yield from map(run_task, tasks)
            return
        futures: list[Future[dict[str, Any]]] = []
        try:
            with _deaths_told():
                futures += (self._workers().submit(run_task, task) for task in tasks)
                for future in as_completed(futures):
                    yield future.result()
        finally:
            for future in futures:
                future.cancel()

    def contrast(self, step: ContrastBatches, num_jobs: int) -> Iterator[BatchResult]:
        """Yield what the step gives for each job, in the order of the jobs.

        Raises:
            InputError: a worker died.
        """
        job, jobs = partial(contrast_job, step), range(num_jobs)
        with _deaths_told():
            yield from map(job, jobs) if self._num_workers == 1 else self._workers().map(job, jobs)

    def _workers(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # not forked: torch's threads and open connections do not survive that
            context = multiprocessing.get_context("spawn")
            threads = max(1, (os.cpu_count() or 1) // self._num_workers)
            self._pool = ProcessPoolExecutor(
                self._num_workers, mp_context=context, initializer=_begin_worker, initargs=(threads,)
            )
        return self._pool


@contextmanager
def _deaths_told() -> Iterator[None]:
    """Turns the end of a worker, at whatever it was, into an `InputError`."""
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(
            "a worker died, perhaps for want of memory; the same command goes on, with fewer --num-workers if so"
        ) from error


def _begin_worker(num_threads: int) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal: one of them says so
    torch.set_num_threads(num_threads)
    if find_spec("cv2"):
        import cv2

        # else each worker starts a thread a core, and they wait for each other
        cv2.setNumThreads(num_threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when its parent is gone: it would go on asking models, beside the run that resumes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
