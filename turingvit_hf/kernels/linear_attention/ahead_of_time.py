# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Compiles the Triton kernels for GPUs that need not be there, and reads from the machine code what they will need."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from turingvit_hf.kernels.linear_attention import triton_kernels as kernels
from turingvit_hf.kernels.linear_attention.launch_table import (
    CHUNK_KERNELS,
    REDUCE,
    REDUCE_NUMBERS,
    ROWS,
    ROWS_COLUMNS,
    Launch,
    amd_family,
    head_dims,
    launch,
    nvidia_family,
)
from turingvit_hf.kernels.linear_attention.triton_backend import compiler_options, padded_heads, product_precision


# Elements of q by the names that Triton gives to their types.
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# Heads of all sizes make up the width of the model.
WIDTH = 1280
FLOAT_POINTERS = ("p_cos", "p_sin", "p_partial", "p_squares", "p_delta", "p_rms", "p_factor", "p_partial_weight")
INTEGER_POINTERS = ("p_table", "p_offset")
WEIGHT_POINTER = "p_weight"


@dataclass(frozen=True)
class Limits:
    """What a GPU has: KB of shared memory a block may take and a multiprocessor holds, warps and blocks it holds."""

    block_shared: int
    shared: int
    warps: int
    blocks: int


LIMITS = {
    "cuda:80": Limits(163, 164, 64, 32),
    "cuda:86": Limits(99, 100, 48, 16),
    "cuda:89": Limits(99, 100, 48, 24),
    "cuda:90": Limits(227, 228, 64, 32),
    "cuda:100": Limits(227, 228, 64, 32),
    "cuda:120": Limits(99, 100, 48, 24),
    "hip:gfx90a": Limits(64, 64, 32, 32),
    "hip:gfx942": Limits(64, 64, 32, 32),
}


@dataclass(frozen=True)
class Case:
    """One kernel as one GPU runs it."""

    kernel: str
    target: str
    dtype: str
    head_dim: int
    launch: Launch

    @property
    def gpu(self) -> GPUTarget:
        """The target as Triton's compiler names it."""
        backend, architecture = self.target.split(":")
        return GPUTarget("cuda", int(architecture), 32) if backend == "cuda" else GPUTarget("hip", architecture, 64)


@dataclass(frozen=True)
class Resources:
    """What the machine code of a kernel needs.

    Attributes:
        registers: 32-bit registers of a thread; on AMD vector and accumulation registers together.
        spills: Instructions that move registers to local memory and back; on AMD spilled registers.
        stack: Bytes of a thread's local memory.
        shared: Bytes of shared memory of a block.
        warps: Warps that are resident on a multiprocessor (wavefronts on a compute unit of AMD's).
        products: Matrix products in the kernel.
        slow_products: Those of them that do not run on tensor cores.
        tensor_core: Tensor-core instructions by name.
        transposes: Transposes of what a product left in registers, which releases of Triton got wrong on 9.0.
        instructions: Instructions that a warp issues in the main loop, for each token and head; 0 where unknown.
    """

    registers: int
    spills: int
    stack: int
    shared: int
    warps: int
    products: int
    slow_products: int
    tensor_core: dict[str, int]
    transposes: int
    instructions: float = 0.0


def family_of(target: str) -> str:
    """The family of `launch_table` that "cuda:80", "hip:gfx942" and the like belong to.

    Raises:
        ValueError: It is no target that this module knows.
    """
    if target not in LIMITS:
        raise ValueError(f"no target {target!r}; there are {sorted(LIMITS)}")
    backend, architecture = target.split(":")
    family = nvidia_family(int(architecture) // 10) if backend == "cuda" else amd_family(architecture)
    assert family is not None
    return family


def cases(target: str, dtype: str, head_dim: int) -> Iterator[Case]:
    """All kernels with the launches of the table; none if the kernels refuse such heads."""
    family = family_of(target)
    bits = DTYPES[dtype].itemsize * 8
    if head_dim not in head_dims(bits):
        return
    for kernel in CHUNK_KERNELS:
        yield Case(kernel, target, dtype, head_dim, launch(kernel, family, bits, head_dim))
    yield Case("reduce_state", target, dtype, head_dim, REDUCE)
    yield Case("backward_rows", target, dtype, head_dim, ROWS)


def signature_of(case: Case) -> tuple[dict[str, str], dict[str, bool | int | str], set[str]]:
    """The types of a kernel's arguments, the values of its constants, and the arguments that 16 divides.

    They are those of a normed, gated layer whose projections are views of 16-byte aligned tensors.
    """
    function = getattr(kernels, case.kernel)
    num_heads = WIDTH // case.head_dim
    constants = {
        "K": case.head_dim,
        "HP": padded_heads(num_heads),
        "BT": case.launch.tokens,
        "BE": ROWS_COLUMNS,
        "BLOCK": REDUCE_NUMBERS,
        "ROPE": True,
        "ACTIVATION": "silu",
        "NORM": True,
        "GATE": True,
        "PRECISION": product_precision(DTYPES[case.dtype], amd=case.gpu.backend == "hip"),
    }
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    types, aligned = {}, set()
    for name in function.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name.startswith("p_"):
            floats = name in FLOAT_POINTERS or name == WEIGHT_POINTER
            types[name] = "*fp32" if floats else "*i32" if name in INTEGER_POINTERS else f"*{case.dtype}"
            aligned.add(name)
        else:
            types[name] = "fp32" if name == "eps" else "i32"
            aligned |= {name} if name.startswith("stride") else set()
    return types, constants, aligned


def compile_case(case: Case):
    """The compiled kernel, Triton's `CompiledKernel`."""
    function = getattr(kernels, case.kernel)
    types, constants, aligned = signature_of(case)
    attributes = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(function.arg_names) if name in aligned}
    source = ASTSource(fn=function, signature=types, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=case.gpu, options=compiler_options(case.launch))


def resources_of(case: Case, compiled) -> Resources:
    """What the machine code of a compiled case needs."""
    ir = compiled.asm["ttgir"]
    products = re.findall(r"(?:tt|ttng)\.(?:dot|warp_group_dot|tc_gen5_mma)\b.*", ir)
    shared = compiled.metadata.shared
    common = {
        "shared": shared,
        "products": len(products),
        "slow_products": sum(1 for line in products if re.search(r"-> tensor<[^>]*#blocked\w*>", line)),
        "transposes": len(re.findall(r"tt\.trans .*#(?:mma|linear)", ir)),
    }
    if case.gpu.backend == "hip":
        return _measure_amd(case, compiled.asm["amdgcn"], common)
    return _measure_nvidia(case, compiled.asm["cubin"], common)


def _measure_nvidia(case: Case, cubin: bytes, common: dict) -> Resources:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        usage = _run(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(file))
        sass = _run(knobs.nvidia.nvdisasm.path, "-c", str(file))
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    assert found is not None, usage
    registers, stack, local = map(int, found.groups())
    limits, warps = LIMITS[case.target], case.launch.num_warps
    # a warp's registers come in units of 256, a block's shared memory with 1 KB for the system
    by_registers = 65536 // (-(-registers * 32 // 256) * 256) // warps
    by_shared = limits.shared * 1024 // (common["shared"] + 1024)
    blocks = min(by_registers, by_shared, limits.warps // warps, limits.blocks)
    instructions = {name: len(re.findall(rf"\b{name}\b", sass)) for name in ("HGMMA", "HMMA", "UTCHMMA")}
    return Resources(
        registers=registers,
        spills=len(re.findall(r"\b(?:STL|LDL)\b", sass)),
        stack=stack + local,
        warps=blocks * warps,
        tensor_core={name: count for name, count in instructions.items() if count},
        instructions=_loop_length(sass) * warps / max(case.launch.tokens, 1),
        **common,
    )


def _loop_length(sass: str) -> int:
    """Instructions of the longest innermost loop: from a label to the branch back to it."""
    labels, count, last_start, longest = {}, 0, -1, 0
    for line in sass.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = count
        elif re.match(r"\s*/\*[0-9a-f]+\*/\s+\S", line):
            count += 1
            target = re.search(r"\bBRA\b.*(\.L_x_\d+)", line)
            start = labels.get(target[1]) if target else None
            # a loop that holds an earlier one starts before it
            if start is not None and start > last_start and count - start > 1:
                longest, last_start = max(longest, count - start), start
    return longest


def _measure_amd(case: Case, assembly: str, common: dict) -> Resources:
    def entry(name: str) -> int:
        found = re.search(rf"\.{name}:\s*(\d+)", assembly)
        return int(found[1]) if found else 0

    registers, warps = entry("vgpr_count"), case.launch.num_warps
    # four units of 512 registers and at most 8 wavefronts each; registers come in units of 8
    by_registers = 4 * min(8, 512 // (-(-max(registers, 1) // 8) * 8)) // warps
    by_shared = LIMITS[case.target].shared * 1024 // max(common["shared"], 1)
    return Resources(
        registers=registers,
        spills=entry("vgpr_spill_count"),
        stack=entry("private_segment_fixed_size"),
        warps=min(by_registers, by_shared) * warps,
        tensor_core={"MFMA": count} if (count := len(re.findall(r"\bv_mfma", assembly))) else {},
        **common,
    )


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def faults(case: Case, needs: Resources) -> list[str]:
    """What is wrong with a compiled kernel, in words; empty if nothing is."""
    limit = LIMITS[case.target].block_shared
    found = {
        f"{needs.spills} instructions spill registers": needs.spills > 0,
        f"{needs.stack} bytes of stack": needs.stack > 0,
        f"{needs.shared} bytes of shared memory, a block has {limit} KB": needs.shared > limit * 1024,
        f"{needs.slow_products} of {needs.products} products without tensor cores": needs.slow_products > 0,
        "no tensor-core instruction": needs.products > 0 and not needs.tensor_core,
        f"{needs.transposes} transposes of a product's result": needs.transposes > 0,
    }
    return [text for text, wrong in found.items() if wrong]
