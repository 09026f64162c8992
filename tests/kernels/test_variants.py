# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""One compiled kernel serves every pack: the real launches, compiled for a GPU that is not there, and counted."""

from functools import partial

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from tests.helpers import cu_seqlens_of, make_tla_inputs, values_and_gradients
from turingvit_hf.kernels.linear_attention import ahead_of_time, triton_backend, triton_kernels
from turingvit_hf.kernels.linear_attention.launch_table import CHUNK_KERNELS


TARGET = GPUTarget("cuda", 90, 32)
PACKS = [(1024,), (256, 300, 17), (1,) * 5, (4096,), (777,) * 3, (16384,), (1001,)]
KERNELS = (*CHUNK_KERNELS, "reduce_state", "backward_rows")


class AbsentGPU:
    """A driver that names a GPU and launches nothing."""

    def get_current_target(self):
        return TARGET

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")


@pytest.fixture
def variants(monkeypatch, tmp_path):
    """By kernel, the signatures that were compiled for it while the test ran."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", AbsentGPU())
    monkeypatch.setattr(triton_backend, "launch_family", lambda device: "sm_90")
    compiled = {name: set() for name in KERNELS}
    run = JITFunction.run

    def compile_only(kernel, *arguments, grid, warmup, **options):
        before = list(kernel.device_caches[0][0].values())
        run(kernel, *arguments, grid=grid, warmup=True, **options)
        for variant in kernel.device_caches[0][0].values():
            if variant not in before:
                compiled[kernel.fn.__name__].add(variant)

    monkeypatch.setattr(JITFunction, "run", compile_only)
    yield compiled
    for name in KERNELS:
        getattr(triton_kernels, name).device_caches.clear()


def run_pack(cu_seqlens, *, q, k, v, gate, norm_weight, cos, sin):
    return triton_backend.linear_attention(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, 1e-6, "silu", None)


def test_every_pack_runs_the_same_kernels_and_the_report_compiles_those(variants):
    for lengths in PACKS:
        inputs = make_tla_inputs(lengths, num_heads=20, head_dim=64, dtype=torch.bfloat16, layout="fused")
        inputs["norm_weight"] = inputs["norm_weight"].detach().float().requires_grad_()
        values_and_gradients(partial(run_pack, cu_seqlens_of(lengths)), inputs)
    assert {name: len(found) for name, found in variants.items()} == dict.fromkeys(KERNELS, 1)
    for case in ahead_of_time.cases("cuda:90", "bf16", 64):
        (variant,) = variants[case.kernel]
        types, _, aligned = ahead_of_time.signature_of(case)
        names = getattr(triton_kernels, case.kernel).arg_names
        assert variant.src.signature == types
        divisible = {
            names[i[0]] for i, attributes in variant.src.attrs.items() if ["tt.divisibility", 16] in attributes
        }
        assert divisible == aligned, case.kernel
        assert variant.metadata.num_warps == case.launch.num_warps
        assert variant.metadata.num_stages == case.launch.num_stages
