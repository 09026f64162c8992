# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Two processes with unequal numbers of images are one process with all of them."""

import os
import subprocess
import sys

import pytest
import torch

from tests.processes import PATIENCE, ROOT, end
from tests.training.objective_cases import assert_same_step, concatenate, run_step
from tests.training.rank_cases import ROWS, SIZES, WRAPPERS, make_setting, packs_of
from turingvit_hf.training.distributed import (
    barrier,
    gather_objects,
    gather_with_grad,
    mean_over_ranks,
    rank,
    sum_over_ranks,
    world_size,
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """The results of two processes, by rank."""
    folder = tmp_path_factory.mktemp("ranks")
    # ranks find each other through a file, and talk on this machine only
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.rank_cases"]
    runs = [
        subprocess.Popen(
            [*command, str(number), "2", str(folder)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    try:
        outputs = [run.communicate(timeout=PATIENCE)[0] for run in runs]
    finally:
        end([run.pid for run in runs])
    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)
    return [torch.load(folder / f"rank{number}.pt", weights_only=False) for number in range(2)]


@pytest.mark.parametrize("split", SIZES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kinds", ["mim", "image+video"])
def test_two_ranks_are_one_with_the_whole_batch(ranks, kinds, wrapper, split):
    model, objective = make_setting(kinds)
    for step, kind in enumerate(kinds.split("+") * 2):
        packs = [packs_of(kind, SIZES[split][number], 20 * step + 10 * number) for number in range(2)]
        exact = run_step(objective, model, [concatenate(packs[0] + packs[1])])
        for results in ranks:
            assert_same_step(results[split][kind, wrapper, step], exact)
    for results in ranks:
        torch.testing.assert_close(results[split][kinds, wrapper], objective.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("case", range(len(ROWS)), ids=[str(rows) for rows in ROWS])
def test_rows_of_all_ranks_are_gathered_and_gradients_summed(ranks, case):
    results = [result["gather"][case] for result in ranks]
    whole = torch.cat([result["mine"] for result in results])
    assert len(whole) == sum(ROWS[case])
    for number, result in enumerate(results):
        assert torch.equal(result["gathered"], whole)
        assert result["first"] == sum(ROWS[case][:number])
        # rank r's loss is (r + 1) · sum of squares
        assert torch.equal(result["gradient"], 2 * (1 + 2) * result["mine"])


def test_sums_means_and_objects(ranks):
    for number, result in enumerate(ranks):
        small = result["small"]
        assert (small["rank"], small["world_size"]) == (number, 2)
        assert (small["sum"], small["mean"], small["untouched"]) == (3, 0.5, number)
        assert small["objects"] == [{"rank": 0, "rows": []}, {"rank": 1, "rows": [None]}]


def test_without_a_group_there_is_one_rank():
    barrier()
    rows = torch.ones(3, 2, requires_grad=True)
    gathered, first = gather_with_grad(rows)
    assert (rank(), world_size(), first, gather_objects("x")) == (0, 1, 0, ["x"])
    assert gathered is rows
    value = torch.tensor(2.0, requires_grad=True)
    assert sum_over_ranks(value) == mean_over_ranks(value) == 2
    assert not sum_over_ranks(value).requires_grad
