# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""bfloat16 for Triton's interpreter, which has it wrong: products multiply bit patterns, casts cut bits off.

Upstream does not support it (https://github.com/triton-lang/triton/issues/11584). The kernels turn whatever they load
into float32 at once, so that casts and products are all there is to replace. `test_interpreter.py` watches for the day
on which this is no longer needed.
"""

import numpy as np
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


ORIGINAL_CAST = InterpreterBuilder.cast_impl
ORIGINAL_DOT = InterpreterBuilder.create_dot
ORIGINAL_FLOAT_CAST = InterpreterBuilder.create_fp_to_fp


def to_bits(x: np.ndarray) -> np.ndarray:
    """float32 rounded to bfloat16, to nearest and ties to even, as 16-bit patterns; NaN stays NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, np.uint16(0x7FC0), rounded)


def from_bits(bits: np.ndarray) -> np.ndarray:
    """bfloat16 patterns as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _cast(builder, source, target):
    from_type, to_type = source.dtype.scalar, target.scalar
    if from_type == to_type or tl.bfloat16 not in (from_type, to_type):
        return ORIGINAL_CAST(builder, source, target)
    if from_type == tl.bfloat16:
        wide = TensorHandle(from_bits(source.data), tl.float32)
        return wide if to_type == tl.float32 else ORIGINAL_CAST(builder, wide, target)
    wide = source if from_type == tl.float32 else ORIGINAL_CAST(builder, source, tl.float32)
    return TensorHandle(to_bits(wide.data), tl.bfloat16)


def _float_cast(builder, source, target, rounding_mode):
    if tl.bfloat16 in (source.dtype.scalar, target.scalar):
        return _cast(builder, source, target)
    return ORIGINAL_FLOAT_CAST(builder, source, target, rounding_mode)


def _dot(builder, a, b, d, input_precision, max_num_imprecise_acc):
    a, b = (TensorHandle(from_bits(x.data), tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
    return ORIGINAL_DOT(builder, a, b, d, input_precision, max_num_imprecise_acc)


def install() -> None:
    """Makes the interpreter of this process round and multiply as a GPU does."""
    builder = interpreter.InterpreterBuilder
    builder.cast_impl, builder.create_fp_to_fp, builder.create_dot = _cast, _float_cast, _dot


def remove() -> None:
    """Undoes `install`."""
    builder = interpreter.InterpreterBuilder
    builder.cast_impl, builder.create_fp_to_fp = ORIGINAL_CAST, ORIGINAL_FLOAT_CAST
    builder.create_dot = ORIGINAL_DOT
