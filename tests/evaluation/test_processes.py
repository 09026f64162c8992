# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Processes of an evaluation find each other soon or never, and then wait for as long as it takes."""

import os
import socket
import sys

from tests.processes import launch, run_command
from turingvit_hf.evaluation.processes import Processes


# torch's own time limit, 30 minutes, is 2 seconds here
ALONE = """
from datetime import timedelta
from torch.distributed import DistNetworkError, distributed_c10d
from turingvit_hf.evaluation.processes import Processes

distributed_c10d.default_pg_timeout = timedelta(seconds=2)
try:
    Processes(cpu=True)
except DistNetworkError as error:
    print("nobody there:", error)
"""
LIMITS = """
import sys
from pathlib import Path

import torch
from torch import distributed
from turingvit_hf.evaluation.processes import Processes

def limit_of(group):
    return group._get_backend(torch.device("cpu")).options._timeout

processes = Processes(cpu=True)
processes.wait()
found = processes.number, processes.is_main, limit_of(distributed.group.WORLD), limit_of(processes._group)
Path(sys.argv[1], f"rank_{processes.index}.txt").write_text(" ".join(map(str, found)))
"""


def test_one_process_waits_for_nobody():
    processes = Processes(cpu=True)
    assert (processes.index, processes.number, processes.is_main) == (0, 1, True)
    processes.wait()


def test_a_process_whose_launcher_is_gone_ends():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    result = run_command(
        [sys.executable, "-c", ALONE], env=os.environ | {name: str(value) for name, value in places.items()}
    )
    assert "nobody there:" in result.stdout, result.stderr


def test_the_slowest_is_waited_for_beyond_the_limit_of_torch(tmp_path):
    script = tmp_path / "limits.py"
    script.write_text(LIMITS)
    result = launch([script, tmp_path])
    assert result.returncode == 0, result.stderr
    found = {path.name: path.read_text() for path in tmp_path.glob("rank_*.txt")}
    limits = "0:30:00 2 days, 0:00:00"
    assert found == {"rank_0.txt": f"2 True {limits}", "rank_1.txt": f"2 False {limits}"}
