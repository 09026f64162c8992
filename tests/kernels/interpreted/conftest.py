# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The tests of this folder run in Triton's interpreter, which a process has from its start on or not at all.

So a run of the whole suite hands each module of this folder to a process of its own and reports what that said of
each test. To stay in one process, for a debugger: TRITON_INTERPRET=1 pytest tests/kernels/interpreted.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.processes import run_command


HERE = Path(__file__).parent
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Where a process that was handed a module writes what became of each test.
OUTCOMES_VARIABLE = "TURINGVIT_INTERPRETER_OUTCOMES"
MODULES = pytest.StashKey[dict]()


class Outcome(NamedTuple):
    """What became of a test: passed, failed or skipped, and what pytest says about it."""

    name: str
    text: str


class InterpretedTest(pytest.Item):
    """Stands for a test that runs in the interpreter's process."""

    def runtest(self) -> None:
        """Fails, is skipped or passes as the test did there."""
        modules = self.config.stash.setdefault(MODULES, {})
        if self.path not in modules:
            items = [item for item in self.session.items if isinstance(item, InterpretedTest)]
            modules[self.path] = run_interpreted([item.nodeid for item in items if item.path == self.path])
        outcomes, end = modules[self.path]
        outcome = outcomes.get(self.nodeid, Outcome("failed", f"the interpreter's process ended before it: {end}"))
        if outcome.name == "skipped":
            pytest.skip(outcome.text)
        if outcome.name != "passed":
            pytest.fail(outcome.text, pytrace=False)


def run_interpreted(names: list[str]) -> tuple[dict[str, Outcome], str]:
    """What became of the tests of these names in a process of their own, and the end of what that printed."""
    # workers of pytest-xdist mark their environment, which that process is no part of
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcomes"
        file.touch()
        environment = inherited | {"TRITON_INTERPRET": "1", OUTCOMES_VARIABLE: str(file)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *names]
        process = run_command(command, env=environment)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    outcomes: dict[str, Outcome] = {}
    for name, *outcome in lines:
        # a test that passed can still fail while its fixtures are torn down
        if name not in outcomes or outcomes[name].name == "passed":
            outcomes[name] = Outcome(*outcome)
    return outcomes, f"exit status {process.returncode}\n{(process.stdout + process.stderr)[-3000:]}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put stand-ins in the place of this folder's tests, unless this is the interpreter's process."""
    if not INTERPRETED:
        for index, item in enumerate(items):
            if HERE in item.path.parents and isinstance(item, pytest.Function) and item.parent is not None:
                items[index] = InterpretedTest.from_parent(item.parent, name=item.name)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down what became of a test, for the process that asked."""
    if (file := os.environ.get(OUTCOMES_VARIABLE)) and (report.when == "call" or report.outcome != "passed"):
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        with open(file, "a", encoding="utf-8") as outcomes:
            print(json.dumps([report.nodeid, report.outcome, text]), file=outcomes)


if INTERPRETED:
    from tests.kernels.interpreted import bfloat16

    bfloat16.install()


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Memory that nobody has written to holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
