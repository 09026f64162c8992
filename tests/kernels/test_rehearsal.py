# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The tests for GPUs, run on the CPU as far as that goes, and skipped by name where there is neither."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch


ROOT = Path(__file__).parents[2]


def run_gpu_tests(*arguments: str, **environment: str) -> str:
    """What pytest prints of tests/gpu in a process of its own."""
    # workers of pytest-xdist mark their environment, which this process is no part of
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-rs", "-p", "no:xdist", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.slow
def test_the_gpu_tests_pass_in_the_interpreter():
    output = run_gpu_tests(
        "--show-capture=no", TRITON_INTERPRET="1", TURINGVIT_REHEARSE_GPU_TESTS="1", OMP_NUM_THREADS="1"
    )
    passed, skipped = map(int, re.search(r"(\d+) passed, (\d+) skipped", output).groups())
    assert passed >= 18
    assert skipped <= 15
    reasons = {line.split(": ", 1)[1] for line in output.splitlines() if line.startswith("SKIPPED")}
    assert all("rehearsal on the CPU" in reason for reason in reasons), reasons


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_every_one_of_them_is_skipped_for_one_reason():
    output = run_gpu_tests()
    assert re.search(r"\n\d{2,} skipped in ", output)
    reasons = {line.split(": ", 1)[1] for line in output.splitlines() if line.startswith("SKIPPED")}
    assert reasons == {"needs a GPU, and torch sees none here"}
