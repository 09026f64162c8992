# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How each Triton kernel is launched: a static table, so that nothing is tuned or compiled again while a model runs.

The entries were chosen by compiling ahead of time (`python -m turingvit_hf.kernels.compile_report` shows them): no
register spills, tensor-core instructions in every matrix product, shared memory that fits the smallest card of the
family. They were not timed on a GPU.
"""

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Launch(NamedTuple):
    """Tokens of a tile, warps, and software-pipeline stages of one kernel."""

    tokens: int
    num_warps: int
    num_stages: int


# Names a file of launches that go before those of the table.
FILE_VARIABLE = "TURINGVIT_LAUNCH_TABLE"
# What such a file may say: `tl.dot` takes tiles of 16 rows and more, and a block has at most 1,024 threads, which are
# 16 wavefronts of AMD's.
ALLOWED = {"tokens": (16, 32, 64, 128, 256), "num_warps": (1, 2, 4, 8, 16), "num_stages": (1, 2, 3, 4, 5)}

CHUNK_KERNELS = ("forward_state", "forward_squares", "forward_output", "backward_query", "backward_key_value")

# The other two: `backward_rows` takes blocks of so many columns, `reduce_state` so many numbers of a state a program.
ROWS, ROWS_COLUMNS = Launch(8, 4, 1), 256
REDUCE, REDUCE_NUMBERS = Launch(0, 4, 1), 1024

# By family and head size, the launches of CHUNK_KERNELS in that order.
SIXTEEN_BIT = {
    "sm_80": {
        32: (Launch(32, 2, 1), Launch(128, 4, 2), Launch(128, 4, 1), Launch(32, 2, 2), Launch(128, 8, 2)),
        64: (Launch(16, 2, 2), Launch(64, 4, 2), Launch(64, 4, 1), Launch(64, 4, 2), Launch(64, 4, 2)),
        128: (Launch(64, 8, 2), Launch(32, 2, 2), Launch(32, 2, 2), Launch(16, 8, 2), Launch(16, 8, 2)),
    },
    "sm_90": {
        32: (Launch(32, 2, 1), Launch(128, 4, 1), Launch(128, 4, 2), Launch(32, 2, 2), Launch(128, 4, 2)),
        64: (Launch(32, 4, 3), Launch(64, 4, 2), Launch(64, 4, 2), Launch(64, 4, 2), Launch(64, 4, 3)),
        128: (Launch(64, 8, 1), Launch(64, 4, 1), Launch(64, 4, 1), Launch(16, 8, 2), Launch(64, 8, 1)),
    },
    "sm_100": {
        32: (Launch(32, 2, 1), Launch(128, 4, 1), Launch(128, 4, 2), Launch(32, 2, 2), Launch(128, 4, 2)),
        64: (Launch(32, 4, 2), Launch(64, 4, 2), Launch(64, 4, 2), Launch(64, 4, 1), Launch(64, 4, 2)),
        128: (Launch(64, 8, 1), Launch(64, 4, 1), Launch(64, 4, 1), Launch(64, 8, 1), Launch(64, 8, 2)),
    },
    "gfx9": {
        32: (Launch(32, 2, 1), Launch(128, 4, 1), Launch(128, 4, 2), Launch(32, 2, 2), Launch(128, 4, 2)),
        64: (Launch(32, 4, 2), Launch(64, 4, 2), Launch(64, 4, 2), Launch(64, 4, 1), Launch(64, 4, 2)),
        128: (Launch(64, 8, 1), Launch(64, 4, 1), Launch(64, 4, 1), Launch(16, 4, 1), Launch(16, 8, 2)),
    },
}
# At 128 the float32 operands of the backward products do not fit into shared memory.
THIRTY_TWO_BIT = {
    family: {
        32: (Launch(32, 4, 2), Launch(32, 4, 2), Launch(32, 4, 2), Launch(16, 4, 2), Launch(16, 4, 2)),
        64: (Launch(32, 4, 2), Launch(32, 4, 2), Launch(32, 4, 2), Launch(16, 8, 1), Launch(16, 4, 2)),
    }
    for family in SIXTEEN_BIT
}


def nvidia_family(major: int) -> str | None:
    """The family whose launches a card of this compute capability takes; those of sm_80 fit 99 KB of shared memory."""
    return {8: "sm_80", 9: "sm_90", 10: "sm_100", 12: "sm_80"}.get(major)


def amd_family(architecture: str) -> str | None:
    """The family whose launches an AMD architecture like "gfx942" takes."""
    return "gfx9" if architecture in ("gfx90a", "gfx942") else None


def head_dims(bits: int) -> tuple[int, ...]:
    """Head sizes that the kernels take for elements of so many bits."""
    return tuple((THIRTY_TWO_BIT if bits == 32 else SIXTEEN_BIT)["sm_90"])


def launch(kernel: str, family: str, bits: int, head_dim: int) -> Launch:
    """The launch of one of `CHUNK_KERNELS` on a family, for elements of `bits` bits and heads of `head_dim`.

    It is that of the file named by the environment variable TURINGVIT_LAUNCH_TABLE if the file has one, else that of
    the table. `python -m turingvit_hf.kernels.tune` writes such files.
    """
    path = os.environ.get(FILE_VARIABLE)
    if path and (entry := read_launches(path).get((family, bits, head_dim, kernel))):
        return entry
    table = THIRTY_TWO_BIT if bits == 32 else SIXTEEN_BIT
    return table[family][head_dim][CHUNK_KERNELS.index(kernel)]


@cache
def read_launches(path: str) -> dict[tuple[str, int, int, str], Launch]:
    """The launches of a JSON file, by family, bits of an element, head size and kernel; read once a process.

    The file is {"launches": {family: {bits: {head size: {kernel: {"tokens", "num_warps", "num_stages"}}}}}}, beside
    which "about" may say where it comes from. Kernels that it does not name keep the launches of the table.

    Raises:
        ValueError: It is no such file; the message names the entry and what is allowed there.
    """
    try:
        file = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    launches = {}
    families = dict(_entries(file, ("launches", "about"), path)).get("launches")
    for family, by_bits in _entries(families, SIXTEEN_BIT, place := f"{path}, launches"):
        for bits, by_head_dim in _entries(by_bits, (16, 32), f"{place}, {family}"):
            for head_dim, by_kernel in _entries(by_head_dim, head_dims(int(bits)), f"{place}, {family}, {bits}"):
                for kernel, entry in _entries(by_kernel, CHUNK_KERNELS, f"{place}, {family}, {bits}, {head_dim}"):
                    key = (family, int(bits), int(head_dim), kernel)
                    launches[key] = _read_launch(entry, f"{place}, {family}, {bits}, {head_dim}, {kernel}")
    return launches


def _read_launch(found: object, place: str) -> Launch:
    numbers = dict(_entries(found, Launch._fields, place))
    for field, allowed in ALLOWED.items():
        # not isinstance: JSON's true is an int, too
        if type(numbers.get(field)) is not int or numbers[field] not in allowed:
            raise ValueError(f"{place}: {field} must be one of {allowed}, not {numbers.get(field)!r}")
    return Launch(**numbers)


def _entries(found: object, allowed: Iterable, place: str) -> list[tuple[str, Any]]:
    """Keys and values of a JSON object; ValueError if it is none or has a key that is not allowed."""
    if not isinstance(found, dict):
        raise ValueError(f"{place}: must be an object, not {found!r}")
    allowed = [str(key) for key in allowed]
    for key in found:
        if key not in allowed:
            raise ValueError(f"{place}: {key!r} is none of {allowed}")
    return list(found.items())
