# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The tests for GPUs, run on the CPU as far as that goes, and skipped by name where there is neither."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu import test_tower_on_gpu, test_triton_on_gpu
from tests.processes import run_command


ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_gpu_tests_pass_in_the_interpreter():
    # workers of pytest-xdist mark their environment, which this process is no part of
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = inherited | {"TRITON_INTERPRET": "1", "TURINGVIT_REHEARSE_GPU_TESTS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-rs", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command.append("--show-capture=no")
    result = run_command(command, env=environment)
    output = result.stdout
    assert result.returncode == 0, output
    passed, skipped = map(int, re.search(r"(\d+) passed, (\d+) skipped", output).groups())
    assert passed >= 18
    assert skipped <= 15
    reasons = {line.split(": ", 1)[1] for line in output.splitlines() if line.startswith("SKIPPED")}
    assert all("rehearsal on the CPU" in reason for reason in reasons), reasons


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_they_are_skipped_for_one_reason():
    for module in (test_tower_on_gpu, test_triton_on_gpu):
        assert "gpu" in {mark.name for mark in module.pytestmark}
        (condition,) = (mark for mark in module.pytestmark if mark.name == "skipif")
        assert condition.args == (True,)
        assert condition.kwargs == {"reason": "needs a GPU, and torch sees none here"}
