# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The number of threads follows what is fastest, and is what it was when a block ends."""

import pytest
import torch
from transformers import TrainerControl, TrainerState

from turingvit_hf.training.demo import threads
from turingvit_hf.training.demo.threads import FastestThreads, fastest_num_threads, one_thread


@pytest.fixture(autouse=True)
def threads_as_before():
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def test_a_block_with_one_thread_gives_the_others_back():
    torch.set_num_threads(3)
    with one_thread() as num_threads:
        assert (num_threads, torch.get_num_threads()) == (3, 1)
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("most", "tried"), [(1, [1]), (2, [2, 1]), (12, [12, 6, 3, 1])])
def test_the_fastest_of_the_halves_is_chosen(monkeypatch, most, tried):
    seen = []
    monkeypatch.setattr(threads, "_time_probe", lambda n: seen.append(n) or abs(n - 3))
    assert fastest_num_threads(most) == min(tried, key=lambda n: abs(n - 3))
    assert seen == tried


def test_the_real_probe_leaves_the_number_alone():
    torch.set_num_threads(2)
    assert fastest_num_threads(2) in (1, 2)
    assert torch.get_num_threads() == 2


def test_training_looks_again_from_time_to_time(monkeypatch):
    now, fastest = [0.0], [2]
    monkeypatch.setattr(threads.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(threads, "fastest_num_threads", lambda most: fastest[0])
    callback = FastestThreads(2)
    for now[0], fastest[0], expected in ((0, 2, 2), (3, 1, 2), (6, 1, 1), (7, 2, 1), (30, 2, 2)):
        callback.on_step_begin(None, TrainerState(), TrainerControl())
        assert torch.get_num_threads() == expected
    callback.on_train_end(None, TrainerState(), TrainerControl())
    assert torch.get_num_threads() == 1
