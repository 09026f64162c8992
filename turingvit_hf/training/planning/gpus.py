# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""GPUs by name: how much they compute, by the table that utilization is measured with, and how much they hold."""

import math
from dataclasses import dataclass

from turingvit_hf.errors import InputError
from turingvit_hf.training.loop.flops import PEAK_BFLOAT16


# nominal memory in units of 10^9 bytes, from the data sheets of PEAK_BFLOAT16; where there are two, the larger one
MEMORY_GB = {
    "NVIDIA B200": 180,
    "NVIDIA H200": 141,
    "NVIDIA H100": 80,
    "NVIDIA H100 PCIe": 80,
    "NVIDIA H100 NVL": 94,
    "NVIDIA H800": 80,
    "NVIDIA A100": 80,
    "NVIDIA A800": 80,
    "NVIDIA L40S": 48,
    "NVIDIA L4": 24,
    "NVIDIA A10": 24,
    "NVIDIA GeForce RTX 4090": 24,
    "NVIDIA GeForce RTX 3090": 24,
    "AMD Instinct MI250X": 64,  # of one of its two dies, which is what a process gets
    "AMD Instinct MI300X": 192,
    "AMD Instinct MI325X": 256,
}
# what the driver and the libraries take, and what the allocator cannot use; a rule of thumb, no measurement
CONTEXT_BYTES, USABLE_SHARE = 1 * 2**30, 0.95


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        name: the maker's.
        peak_flops: dense bfloat16 operations a second.
        memory_bytes: nominal.
    """

    name: str
    peak_flops: float
    memory_bytes: int

    @property
    def usable_bytes(self) -> int:
        """What a training process may fill."""
        return int(self.memory_bytes * USABLE_SHARE) - CONTEXT_BYTES


def find_gpu(name: str) -> Gpu:
    """The GPU of a name, whole or without its maker, in any case: `"H100"`, `"NVIDIA L40S"`, `"rtx 4090"`.

    Any other is given as `NAME:TFLOPS:GB`, its dense bfloat16 operations in 10^12 a second and its memory in 10^9
    bytes: `"H20:148:96"`.

    Raises:
        InputError: none is known by that name, and it lists those that are; or these are no numbers above 0.
    """
    if ":" in name:
        return _gpu_in_numbers(name)
    wanted = name.strip().lower()
    found = [known for known in PEAK_BFLOAT16 if known in MEMORY_GB and wanted in _short_names(known)]
    if not found:
        known = ", ".join(_short_names(key, lower=False)[-1] for key in PEAK_BFLOAT16)
        raise InputError(f"no GPU is known as {name!r}; known are {known}, and any other as NAME:TFLOPS:GB")
    peak = PEAK_BFLOAT16[found[0]]
    if found[0] == "AMD Instinct MI250X":
        peak /= 2
    return Gpu(found[0], peak, MEMORY_GB[found[0]] * 10**9)


def _gpu_in_numbers(text: str) -> Gpu:
    name, *numbers = (part.strip() for part in text.split(":"))
    try:
        tera_flops, gigabytes = (float(number) for number in numbers)
    except ValueError:
        tera_flops = gigabytes = math.nan
    if not name or not (0 < tera_flops < math.inf and 0 < gigabytes < math.inf):
        raise InputError(f"gpu={text!r} is not NAME:TFLOPS:GB with numbers above 0, such as H20:148:96")
    return Gpu(name, tera_flops * 1e12, round(gigabytes * 1e9))


def _short_names(name: str, *, lower: bool = True) -> list[str]:
    names = [name]
    for prefix in ("NVIDIA ", "AMD Instinct ", "GeForce "):
        if names[-1].startswith(prefix):
            names.append(names[-1].removeprefix(prefix))
    return [entry.lower() for entry in names] if lower else names
