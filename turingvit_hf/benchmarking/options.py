# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the sub-commands of `turingvit benchmark` can be told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from turingvit_hf.errors import InputError


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
MODES = ("eager", "compiled", "onnxruntime")


@dataclass(frozen=True)
class RunOptions:
    """What all sub-commands have.

    Attributes:
        out: the folder of figures; a later run with the same one adds to them. None: figures are only shown.
        repeats: runs of each form, all forms in turn.
        warmup: runs of each form before.
        threads: of torch; None leaves them as they are. With 1 the clock is processor time, otherwise wall time.
        device: such as `"cpu"` or `"cuda"`.
    """

    out: Path | None = None
    repeats: int = 5
    warmup: int = 1
    threads: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class LatencyOptions(RunOptions):
    """Of `turingvit benchmark latency`.

    Attributes:
        towers: names of `towers.TOWERS`; the first is what the others are compared with.
        sides: of the square images, in pixels.
        dtype: one of DTYPES, or its short name.
        mode: one of MODES.
        batch: images of a forward.
        memory: whether each tower runs once more in a process of its own, for its peak memory on a CPU.
        operations: whether a forward of each tower is profiled, for the share of time of each kind of operation.
        matmul_rate: whether the rate of this device's matrix products is measured, for the floor.
    """

    towers: tuple[str, ...] = ()
    sides: tuple[int, ...] = (512, 768, 1024, 1280, 1536)
    dtype: str = "float32"
    mode: str = "eager"
    batch: int = 1
    memory: bool = False
    operations: bool = True
    matmul_rate: bool = True


@dataclass(frozen=True)
class PreprocessingOptions(RunOptions):
    """Of `turingvit benchmark preprocessing`.

    Attributes:
        pictures: how many pictures are prepared in a run.
        max_patches: most patches of a picture; each value is a row of the table.
    """

    pictures: int = 32
    max_patches: tuple[int, ...] = (256, 1024, 4096)


@dataclass(frozen=True)
class TrainingStepOptions(RunOptions):
    """Of `turingvit benchmark training`.

    Attributes:
        layers: of the tower; 18 is TuringViT-18L.
        width: of the tower, in heads of 64; the MLP is four times as wide inside.
        dtype: one of DTYPES, or its short name.
        images: in a step.
        tokens: patches in a step, which the images share.
    """

    layers: int = 18
    width: int = 1280
    dtype: str = "float32"
    images: int = 8
    tokens: int = 4096


def split_names(values: Sequence[str] | None) -> tuple[str, ...]:
    """What was given with commas or in several options, each once, in its order."""
    return tuple(dict.fromkeys(name.strip() for value in values or () for name in value.split(",") if name.strip()))


def split_numbers(values: Sequence[str] | None) -> tuple[int, ...]:
    """The same of whole numbers.

    Raises:
        InputError: one is no whole number above 0.
    """
    names = split_names(values)
    for name in names:
        if not name.isdecimal() or int(name) < 1:
            raise InputError(f"{name!r} is no whole number above 0")
    return tuple(int(name) for name in names)


def resolve_dtype(name: str) -> str:
    """The name torch has for a dtype, `"bfloat16"` for `"bf16"`.

    Raises:
        InputError: it is none of DTYPES.
    """
    full = DTYPE_NAMES.get(name, name)
    if full not in DTYPES:
        raise InputError(f"dtype={name!r}: allowed are {', '.join((*DTYPES, *DTYPE_NAMES))}")
    return full


def check_run(options: RunOptions) -> None:
    """Refuses what no run can be, before anything is built.

    Raises:
        InputError: naming the option.
    """
    for name, least in (("repeats", 1), ("warmup", 0), ("threads", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"{name}={value}: it is {least} or more")
    if options.out is not None and options.out.is_file():
        raise InputError(f"{options.out} is a file; the output is a folder")
    try:
        device = torch.device(options.device)
    except RuntimeError as error:
        raise InputError(f"device={options.device!r}: torch knows no such device") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device={options.device!r}: allowed are cpu and cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device={options.device!r}: torch sees {torch.cuda.device_count()} CUDA devices here")
