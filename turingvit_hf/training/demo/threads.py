# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""As many threads as help: where other programs use the cores too, a thread that waits for another costs much.

Measured with a small tower on 2 cores that four other processes kept busy: a training step took 15 s on two threads
and 0.6 s on one, since the waiting thread spins while the other is not running. On idle cores two threads are faster.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


SECONDS_BETWEEN_PROBES = 5.0


@contextmanager
def one_thread() -> Iterator[int]:
    """A block in which torch uses one thread, which no other program can hold up; it is given the number outside."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield num_threads
    finally:
        torch.set_num_threads(num_threads)


def fastest_num_threads(most: int) -> int:
    """The number that does a small tower's work fastest now, among `most`, half of it, a quarter, and so on to 1."""
    seconds = {}
    num_threads = most
    with one_thread():
        while num_threads not in seconds:
            seconds[num_threads] = _time_probe(num_threads)
            num_threads = max(1, num_threads // 2)
    return min(seconds, key=seconds.__getitem__)


class FastestThreads(TrainerCallback):
    """Gives training the fastest number of threads, looking again every five seconds, and one thread when it is over.

    Args:
        most: upper limit.
    """

    def __init__(self, most: int):
        self.most = most
        self._next_probe = 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Looks again if the last time is long enough ago."""
        if time.monotonic() >= self._next_probe:
            torch.set_num_threads(fastest_num_threads(self.most))
            self._next_probe = time.monotonic() + SECONDS_BETWEEN_PROBES

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Goes back to one thread."""
        torch.set_num_threads(1)


@torch.inference_mode()
def _time_probe(num_threads: int) -> float:
    """Seconds for two MLP blocks of a small tower, after one to wake the threads."""
    torch.set_num_threads(num_threads)
    tokens, up, down = torch.ones(1024, 192), torch.full((768, 192), 0.01), torch.full((192, 768), 0.01)
    start = 0.0
    for repetition in range(3):
        if repetition == 1:
            start = time.perf_counter()
        hidden = torch.nn.functional.silu(tokens @ up.T)
        tokens = torch.nn.functional.rms_norm(hidden @ down.T, (192,)) + tokens
    return time.perf_counter() - start
