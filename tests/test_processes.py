# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Commands of tests end with them, and so does what the commands started."""

import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from tests.processes import end, result_of, run_command, start_command


# a launcher that waits for a rank, which has a session of its own and holds the pipes of the launcher
LAUNCHER = """
    import os, sys, time

    def wait_for_the_other_rank():
        print("begun", flush=True)
        with open(sys.argv[1] + ".part", "w") as file:
            file.write(str(os.getpid()))
        os.rename(file.name, sys.argv[1])
        time.sleep(1000)

    rank = os.fork()
    if rank:
        os.waitpid(rank, 0)
    os.setsid()
    wait_for_the_other_rank()
"""


def test_a_command_is_what_it_printed():
    code = "import sys; print('out'); print('err', file=sys.stderr); print(sys.stdin.read() == ''); sys.exit(3)"
    result = run_command([sys.executable, "-c", code])
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\nTrue\n", "err\n")


def test_a_command_that_hangs_fails_with_the_stacks_of_its_processes_and_leaves_none(tmp_path):
    script, number = tmp_path / "launcher.py", tmp_path / "number"
    script.write_text(textwrap.dedent(LAUNCHER))
    process = start_command([sys.executable, script, number])
    while not number.exists():
        assert process.poll() is None
        time.sleep(0.05)
    with pytest.raises(pytest.fail.Exception, match=r"had not ended after 0\.1 s") as failure:
        result_of(process, timeout=0.1)
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
