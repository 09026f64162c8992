# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures side by side in threads, as many as torch computes with."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


# below this many values read or written, about a millisecond of work, threads cost more than they bring
LEAST_VALUES = 2**20


def map_in_threads(function: Callable[..., Any], *arguments: list[Any], num_values: int) -> list[Any]:
    """Return `function` of each entry of `arguments`, in order, whichever thread computes it.

    There are `torch.get_num_threads()` threads at most: all cores in a process of one's own, one in a worker of
    `DataLoader`, and what `torch.set_num_threads` or OMP_NUM_THREADS says. They end with the call: a process that is
    forked later would inherit a pool without its threads. Pillow and NumPy let other threads run while they compute.

    Args:
        function: of one entry of each argument; it shares nothing with its other calls.
        *arguments: lists of one length.
        num_values: how many values it reads and writes in all calls together; few are not worth a thread.

    Raises:
        Exception: what `function` raised for the first entry for which it did.
    """
    num_threads = min(torch.get_num_threads(), len(arguments[0]))
    if num_threads < 2 or num_values < LEAST_VALUES:
        return [function(*entries) for entries in zip(*arguments, strict=True)]
    with ThreadPoolExecutor(num_threads, thread_name_prefix="turingvit-pictures") as pool:
        return list(pool.map(function, *arguments))
