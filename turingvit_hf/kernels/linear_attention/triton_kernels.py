# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The Triton kernels of Turing Linear Attention by name; README.md beside this file derives them.

One program works on one chunk of one segment and one head, head fastest, so that the heads of a chunk share rotation
tables in cache. Kernels are launched, tuned and compiled as attributes of this module.
"""

from turingvit_hf.kernels.linear_attention.triton_backward import backward_key_value, backward_query, backward_rows
from turingvit_hf.kernels.linear_attention.triton_blocks import FAST, triton
from turingvit_hf.kernels.linear_attention.triton_forward import (
    forward_output,
    forward_squares,
    forward_state,
    reduce_state,
)


__all__ = [
    "FAST",
    "backward_key_value",
    "backward_query",
    "backward_rows",
    "forward_output",
    "forward_squares",
    "forward_state",
    "reduce_state",
    "triton",
]
