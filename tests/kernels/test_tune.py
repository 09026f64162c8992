# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The tuner of launches: in Triton's interpreter, with a clock that knows which launch should win."""

import json
import os
import re
import sys

import pytest

from tests.processes import run_command
from turingvit_hf.kernels import tune
from turingvit_hf.kernels.linear_attention.launch_table import ALLOWED


# A process interprets kernels or compiles them, so each script runs in one of its own.
PRELUDE = """
import json, logging
import torch
from turingvit_hf.kernels import tune
from turingvit_hf.kernels.linear_attention import launch_table, triton_backend, triton_kernels
from turingvit_hf.kernels.linear_attention.launch_table import Launch

CPU = torch.device("cpu")
FAST, SLOW, WRONG = Launch(32, 4, 1), Launch(16, 2, 2), Launch(64, 8, 1)

def clock(call):
    launch = tuple(call.keywords[name] for name in ("BT", "num_warps", "num_stages"))
    return {FAST: 1.0, SLOW: 9.0, WRONG: 0.1}.get(launch, 5.0)
"""

TUNE = """
class Faulty:
    # computes with the launch that looks fastest what the others do not
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        def run(*arguments, **constants):
            self.kernel[grid](*arguments, **constants)
            if constants["BT"] == WRONG.tokens:
                arguments[5][..., 0] *= 1.5
        return run

triton_kernels.forward_state = faulty = Faulty(triton_kernels.forward_state)
logging.basicConfig(level=logging.INFO, format="%(message)s")
candidates = (SLOW, FAST, WRONG)
table = tune.tuned_table(
    [torch.float16], [32], CPU, timer=clock, candidates=candidates, lengths=(1, 40), width=64
)
assert triton_kernels.forward_state is faulty
print(json.dumps(table))
"""

USE = """
launch = launch_table.launch("forward_state", "sm_80", 16, 32)
other = launch_table.launch("forward_state", "sm_80", 16, 64)
with tune.stand_ins() as stands:
    tune.self_test.Problem(CPU, torch.float16, 32, lengths=(5,)).errors(triton_backend.linear_attention)
used = stands["forward_state"].last.keywords["BT"]
print(json.dumps({"launch": launch, "other": other, "used": used, "table": launch_table.SIXTEEN_BIT["sm_80"][64][0]}))
"""


def interpret(script: str, **environment: str) -> tuple[dict, str]:
    """The JSON that a script prints last in Triton's interpreter, and what it logs."""
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-c", PRELUDE + script]
    result = run_command(command, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


@pytest.fixture(scope="module")
def tuned():
    return interpret(TUNE)


def test_the_fastest_right_launch_is_chosen(tuned):
    table, _ = tuned
    launches = dict(table["launches"]["sm_80"]["16"]["32"])
    fast, wrong = (
        dict(zip(("tokens", "num_warps", "num_stages"), launch, strict=True)) for launch in ((32, 4, 1), (64, 8, 1))
    )
    # the clock likes WRONG best everywhere; only forward_state computes something else with it
    assert launches.pop("forward_state") == fast
    assert set(launches) == {"forward_squares", "forward_output", "backward_query", "backward_key_value"}
    assert all(launch == wrong for launch in launches.values())
    times = table["about"]["milliseconds"]["16 bits, heads of 32"]
    assert times["forward_state"] == {"table": 5.0, "chosen": 1.0}


def test_each_candidate_is_logged_with_its_time_or_what_is_wrong(tuned):
    _, log = tuned
    assert "forward_state (16, 2, 2): 9000.0 us" in log
    assert re.search(r"forward_state \(64, 8, 1\): the .* is off by \d", log)
    assert "backward_query (64, 8, 1): 100.0 us" in log


def test_the_kernels_take_the_launches_of_the_file(tuned, tmp_path):
    file = tmp_path / "launches.json"
    file.write_text(json.dumps(tuned[0]))
    found, _ = interpret(USE, TURINGVIT_LAUNCH_TABLE=str(file))
    assert found["launch"] == [32, 4, 1]
    assert found["used"] == 32
    # what the file does not name stays that of the table
    assert found["other"] == found["table"]


def test_a_launch_that_spills_or_does_not_fit_is_refused():
    pytest.importorskip("triton", reason="Triton is not installed")
    from triton.runtime.errors import OutOfResources

    class Problem:
        dtype = tune.torch.float16

        def __init__(self, result):
            self.result = result

        def errors(self, run):
            if isinstance(self.result, Exception):
                raise self.result
            return {"the output": self.result}

    stand = tune.StandIn(None)
    stand.last = lambda: None
    too_large = OutOfResources(200_000, 101_376, "shared memory")
    assert "out of resource: shared memory" in tune.measure(stand, [Problem(too_large)], lambda call: 1.0)
    assert tune.measure(stand, [Problem(float("nan"))], lambda call: 1.0).startswith("the output is off by nan")
    assert tune.measure(stand, [Problem(1e-4), Problem(1e-4)], lambda call: 1.0) == 2.0
    stand.spills = 12
    assert tune.measure(stand, [Problem(1e-4)], lambda call: 1.0) == "12 registers spill in torch.float16"


def test_nothing_is_worth_trying_that_a_file_may_not_say():
    assert all(value in ALLOWED[field] for launch in tune.CANDIDATES for field, value in launch._asdict().items())


def test_without_a_gpu_the_tuner_says_so(tmp_path, capsys):
    if tune.torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as exit_code:
        tune.main(["--out", str(tmp_path / "launches.json")])
    assert exit_code.value.code == 2
    assert "torch sees none here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
