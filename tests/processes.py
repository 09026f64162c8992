# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Commands that tests run in processes of their own: a test fails where one takes too long, and ends what it began."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest


ROOT = Path(__file__).parents[1]
# seconds; some fifty times what the slowest command takes, for the time of a test is never what it is about
PATIENCE = 600
# seconds in which a process writes down where it stood
LAST_WORDS = 10


def run_command(
    command: Sequence[str | Path], *, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What a command printed and its exit status, which it has in good time or the test fails; see `result_of`."""
    return result_of(start_command(command, cwd=cwd, env=env))


def start_command(
    command: Sequence[str | Path], *, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """A command that runs, with nothing to read and its output in pipes."""
    environment = (os.environ if env is None else env) | {"PYTHONFAULTHANDLER": "1"}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, **pipes)


def result_of(process: subprocess.Popen[str], *, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """What a command printed and its exit status, once it has ended.

    After `timeout` seconds all processes that it started end as well, and the test fails with the stack of each. That
    is where `subprocess.run` waits on: it kills only the process it started, and a launcher's ranks hold the pipes.
    """
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            end([process.pid])
            out, err = process.communicate()
            what = " ".join(map(str, process.args))
            pytest.fail(f"{what} had not ended after {timeout} s:\n{out[-5000:]}\n{err[-20_000:]}")
        except BaseException:
            end([process.pid])
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def launch(arguments: Sequence[str | Path], *, num_ranks: int = 2) -> subprocess.CompletedProcess[str]:
    """`run_command` for torchrun, with a script or `-m` and a module, and one thread a rank.

    The ranks meet on this machine's loopback: what its own name leads to does not matter. They print into one pipe,
    unbuffered, so that words of one may stand in the middle of another's line: what each of them found belongs into a
    file of its own.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return run_command([*launcher, f"--nproc-per-node={num_ranks}", *arguments], env=environment)


def end(numbers: Sequence[int]) -> None:
    """Ends processes and all that descend from them; those with a fault handler print the stack of each thread."""
    family = []
    for number in numbers:
        try:
            process = psutil.Process(number)
            family += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    for process in family:
        # one after the other, since they write into one pipe, and a launcher before it could end its ranks
        _signal(process, signal.SIGABRT)
        deadline = time.monotonic() + LAST_WORDS
        while _is_alive(process) and time.monotonic() < deadline:
            time.sleep(0.01)
    for process in family:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(family, timeout=LAST_WORDS)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
