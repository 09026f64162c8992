# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How each Triton kernel is launched: a static table, so that nothing is tuned or compiled again while a model runs.

The entries were chosen by compiling ahead of time (`python -m turingvit_hf.kernels.compile_report` shows them): no
register spills, tensor-core instructions in every matrix product, shared memory that fits the smallest card of the
family. They were not timed on a GPU.
"""

from typing import NamedTuple


class Launch(NamedTuple):
    """Tokens of a tile, warps, and software-pipeline stages of one kernel."""

    tokens: int
    num_warps: int
    num_stages: int


CHUNK_KERNELS = ("forward_state", "forward_squares", "forward_output", "backward_query", "backward_key_value")

# By family and head size, the launches of CHUNK_KERNELS in that order. sm_80 serves every 8.x and 12.x card (and stays
# below their 99 KB of shared memory), sm_90 serves 9.0 and 10.0, gfx9 serves gfx90a and gfx942.
SIXTEEN_BIT = {
    "sm_80": {
        32: (Launch(32, 2, 1), Launch(128, 4, 2), Launch(128, 4, 1), Launch(32, 2, 2), Launch(128, 8, 2)),
        64: (Launch(16, 2, 2), Launch(64, 4, 2), Launch(64, 4, 1), Launch(32, 4, 1), Launch(64, 4, 2)),
        128: (Launch(64, 8, 2), Launch(32, 2, 2), Launch(32, 2, 2), Launch(16, 8, 2), Launch(16, 4, 2)),
    },
    "sm_90": {
        32: (Launch(32, 2, 1), Launch(128, 4, 1), Launch(128, 4, 2), Launch(32, 2, 2), Launch(128, 4, 2)),
        64: (Launch(32, 4, 3), Launch(64, 4, 2), Launch(64, 4, 2), Launch(32, 4, 2), Launch(64, 4, 3)),
        128: (Launch(64, 8, 1), Launch(64, 4, 1), Launch(64, 4, 1), Launch(16, 8, 2), Launch(16, 8, 2)),
    },
    "gfx9": {
        32: (Launch(32, 2, 1), Launch(128, 4, 1), Launch(128, 4, 2), Launch(32, 2, 2), Launch(128, 4, 2)),
        64: (Launch(32, 4, 2), Launch(64, 4, 2), Launch(64, 4, 2), Launch(32, 4, 2), Launch(64, 4, 2)),
        128: (Launch(64, 8, 1), Launch(64, 4, 1), Launch(64, 4, 1), Launch(16, 8, 2), Launch(16, 8, 2)),
    },
}
# At 128 the float32 operands of the backward products do not fit into shared memory.
THIRTY_TWO_BIT = {
    family: {
        32: (Launch(32, 4, 2), Launch(32, 4, 2), Launch(32, 4, 2), Launch(16, 4, 2), Launch(16, 4, 2)),
        64: (Launch(32, 4, 2), Launch(32, 4, 2), Launch(32, 4, 2), Launch(16, 4, 1), Launch(16, 4, 2)),
    }
    for family in SIXTEEN_BIT
}


def head_dims(bits: int) -> tuple[int, ...]:
    """Head sizes that the kernels take for elements of so many bits."""
    return tuple((THIRTY_TWO_BIT if bits == 32 else SIXTEEN_BIT)["sm_90"])


def launch(kernel: str, family: str, bits: int, head_dim: int) -> Launch:
    """The launch of one of `CHUNK_KERNELS` on a family, for elements of `bits` bits and heads of `head_dim`."""
    table = THIRTY_TWO_BIT if bits == 32 else SIXTEEN_BIT
    return table[family][head_dim][CHUNK_KERNELS.index(kernel)]
