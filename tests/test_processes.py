# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Commands of tests end with them, and so does what the commands started."""

import subprocess
import sys
import textwrap

import psutil
import pytest

from tests.processes import end, run_command


# a launcher that outlives its patience, and a rank that holds its pipes
LAUNCHER = """
    import pathlib, subprocess, sys, time

    def wait_for_the_other_rank():
        time.sleep(1000)

    if len(sys.argv) == 2:
        rank = subprocess.Popen([sys.executable, __file__, sys.argv[1], "rank"], start_new_session=True)
        rank.wait()
    pathlib.Path(sys.argv[1]).write_text(str(__import__("os").getpid()))
    print("begun", flush=True)
    wait_for_the_other_rank()
"""


def test_a_command_is_what_it_printed():
    code = "import sys; print('out'); print('err', file=sys.stderr); print(sys.stdin.read() == ''); sys.exit(3)"
    result = run_command([sys.executable, "-c", code])
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\nTrue\n", "err\n")


def test_a_command_that_hangs_fails_with_the_stacks_of_its_processes_and_leaves_none(tmp_path):
    script, number = tmp_path / "launcher.py", tmp_path / "number"
    script.write_text(textwrap.dedent(LAUNCHER))
    with pytest.raises(pytest.fail.Exception, match="had not ended after 5 s") as failure:
        run_command([sys.executable, script, number], timeout=5)
    assert "begun" in str(failure.value)
    assert "in wait_for_the_other_rank" in str(failure.value)
    assert not psutil.pid_exists(int(number.read_text()))


def test_a_process_that_is_gone_already_and_one_that_is_not_end():
    codes = ("", "import time; time.sleep(1000)")
    children = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    children[0].wait()
    end([child.pid for child in children])
    children[1].wait()
    assert not any(psutil.pid_exists(child.pid) for child in children)
