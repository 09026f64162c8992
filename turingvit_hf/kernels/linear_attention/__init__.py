# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Turing Linear Attention: one operator, several backends, one reference that is the law."""

from turingvit_hf.kernels.linear_attention.backends import (
    BACKENDS,
    choose_backend,
    explain_backend,
    use_linear_attention_backend,
)
from turingvit_hf.kernels.linear_attention.op import turing_linear_attention


__all__ = [
    "BACKENDS",
    "choose_backend",
    "explain_backend",
    "turing_linear_attention",
    "use_linear_attention_backend",
]
