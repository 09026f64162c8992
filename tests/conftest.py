# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Settings of every test run, and transformers' own common tests, fetched for the installed version.

The modules named `test_common_*.py` inherit from the mixins that transformers tests its own models with. Those are not
in the installed package, only in its source distribution, so this file fetches that once into `.cache/` and unpacks
its test modules as the package `transformers_common_tests`. It happens when this file is imported, since the test
classes inherit from the mixins at collection. `common_stubs/` holds what those modules import and the distribution
lacks.
"""

import importlib.metadata
import importlib.util
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import settings


# No test depends on how busy the machine is.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

# As `make test` has it, before anything imports torch: what tests fork would wait for threads that it does not have.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test talks to a hub; set before any test module imports huggingface_hub, which reads it on import.
os.environ["HF_HUB_OFFLINE"] = "1"

collect_ignore = ["common_stubs"]

VERSION = importlib.metadata.version("transformers")
CACHE = Path(__file__).parents[1] / ".cache"
UNPACKED = CACHE / f"transformers-{VERSION}"
STUBS = Path(__file__).parent / "common_stubs"
# Workers of pytest-xdist inherit the environment: what the first process could not fetch, they do not try again.
REASON_VARIABLE = "TURINGVIT_NO_COMMON_TESTS"


def fetch_common_tests() -> str | None:
    """Unpack transformers' common tests into the cache unless they are there; the reason if they cannot be had."""
    if UNPACKED.is_dir():
        return None
    if REASON_VARIABLE in os.environ:
        return os.environ[REASON_VARIABLE]
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        # pip prepares the metadata of a source distribution with setuptools, which the extra `tests` installs
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            f"transformers=={VERSION}",
            "--no-deps",
            "--no-binary=:all:",
        ]
        command += ["--no-build-isolation", "--retries=1", "--timeout=20", "--dest", scratch]
        result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if result.returncode:
            last_line = (result.stderr.strip() or "no message").splitlines()[-1]
            return f"pip cannot download the source distribution of transformers {VERSION}: {last_line}"
        (archive,) = Path(scratch).glob("transformers-*.tar.gz")
        package = Path(scratch) / "unpacked" / "transformers_common_tests"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                path = PurePosixPath(member.name)
                if path.match("transformers-*/tests/test_*.py") and (file := tar.extractfile(member)):
                    (package / path.name).write_bytes(file.read())
        try:
            package.parent.rename(UNPACKED)
        except OSError:
            # another process was faster; a rename is atomic, so what it left is whole
            if not UNPACKED.is_dir():
                raise
    return None


def make_common_tests_importable() -> None:
    """Put the unpacked package on the path, with our stubs as if they lay inside it."""
    sys.path.append(str(UNPACKED))
    sys.path.append(str(STUBS / "utils"))
    import transformers_common_tests

    transformers_common_tests.__path__.append(str(STUBS))


NO_COMMON_TESTS = fetch_common_tests()
if NO_COMMON_TESTS is None:
    make_common_tests_importable()
elif os.environ.get("CI") == "true":
    raise RuntimeError(NO_COMMON_TESTS)
else:
    os.environ[REASON_VARIABLE] = NO_COMMON_TESTS


# How to seed what tests may have imported; the common tests have a generator of their own.
SEEDED = {
    "numpy": lambda module: module.random.seed(0),
    "torch": lambda module: module.manual_seed(0),
    "transformers_common_tests.test_modeling_common": lambda module: module.global_rng.seed(0),
}


# Triton is for Linux; these modules import it, or something of the package that does.
HAS_TRITON = importlib.util.find_spec("triton") is not None
NEED_TRITON = (
    "kernels/interpreted/test_*.py",
    "kernels/test_variants.py",
    "kernels/test_rehearsal.py",
    "gpu/test_*.py",
)


def reason_to_skip(module_path: Path) -> str | None:
    """Why a test module cannot be imported here, or None if it can."""
    if NO_COMMON_TESTS and module_path.name.startswith("test_common_"):
        return f"transformers' common tests: {NO_COMMON_TESTS}"
    if not HAS_TRITON and any(module_path.match(f"tests/{pattern}") for pattern in NEED_TRITON):
        return "Triton is not installed"
    return None


class SkippedTest(pytest.Item):
    """Stands for all tests of a module that cannot be imported."""

    def runtest(self) -> None:
        """Skip, with the reason."""
        pytest.skip(reason_to_skip(self.path) or "")


class SkippedModule(pytest.File):
    """A test module that is skipped unread, because something that it imports is missing."""

    def collect(self) -> Iterator[pytest.Item]:
        """One test, which is skipped."""
        yield SkippedTest.from_parent(self, name="all")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.File | None:
    """The module to collect tests from; None leaves the choice to pytest."""
    return SkippedModule.from_parent(parent, path=module_path) if reason_to_skip(module_path) else None


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks that the unpacked modules carry."""
    flash_attention = ("flash_attn_test", "flash_attn_3_test", "flash_attn_4_test")
    for mark in ("accelerate_tests", "torch_compile_test", *flash_attention):
        config.addinivalue_line("markers", f"{mark}: a mark of transformers' common tests")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end of a run that the common tests were missing: a count of skipped tests would hide it."""
    if NO_COMMON_TESTS:
        terminalreporter.write_line(f"transformers' common tests did not run: {NO_COMMON_TESTS}", yellow=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seed what draws at random, so that no test depends on those that its worker ran before."""
    random.seed(0)
    for name, seed in SEEDED.items():
        if name in sys.modules:
            seed(sys.modules[name])
