# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Time budgets: the clock, the end of training, the learning rate over time, and what a person sees of it."""

import io
import logging

import pytest
import torch
from transformers import TrainerControl, TrainerState

from turingvit_hf.training.demo import progress, timebox
from turingvit_hf.training.demo.progress import TimeBudgetProgress
from turingvit_hf.training.demo.timebox import TimeBudget, TimeBudgetCallback, time_based_schedule


class Clock:
    """A clock that moves only when told."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timebox, "time", clock)
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_budget_counts_from_when_it_was_made(clock):
    budget = TimeBudget(40)
    clock.now += 10
    assert (budget.elapsed(), budget.left(), budget.fraction()) == (10, 30, 0.25)
    clock.now += 100
    assert (budget.elapsed(), budget.left(), budget.fraction()) == (110, 0, 1)


def test_training_ends_after_the_budget_but_not_before_two_steps(clock):
    callback = TimeBudgetCallback(TimeBudget(10))
    for now, step, stops in ((105, 5, False), (110, 1, False), (110, 2, True), (130, 9, True)):
        clock.now, control = now, TrainerControl()
        callback.on_step_end(None, TrainerState(global_step=step), control)
        assert control.should_training_stop is control.should_log is stops


def test_the_rate_rises_then_falls_to_nothing_at_the_end_of_the_budget(clock):
    budget = TimeBudget(100)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = time_based_schedule(optimizer, budget, warmup=0.1)
    rates = []
    for now in range(100, 202):
        clock.now = float(now)
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    peak = rates.index(max(rates))
    assert 0 < rates[0] <= 0.2
    assert 8 <= peak <= 10
    assert rates[peak] > 1.9
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == 0


def test_without_a_terminal_a_line_is_written_now_and_then(clock, caplog, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    shown = TimeBudgetProgress(TimeBudget(100))
    shown.on_train_begin(None, TrainerState(), TrainerControl())
    shown.on_log(None, TrainerState(), TrainerControl(), logs={"loss": 1.25})
    with caplog.at_level(logging.INFO, "turingvit_hf"):
        for step in range(40):
            clock.now += 1
            shown.on_step_end(None, TrainerState(global_step=step + 1), TrainerControl())
    assert caplog.messages == ["  step 15, loss 1.250, 85 s left", "  step 30, loss 1.250, 70 s left"]
    shown.close()


def test_on_a_terminal_a_bar_shows_step_and_loss(clock, caplog, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    shown = TimeBudgetProgress(TimeBudget(100))
    shown.on_train_begin(None, TrainerState(), TrainerControl())
    shown.on_log(None, TrainerState(), TrainerControl(), logs={"loss": 1.25})
    clock.now += 50
    shown.on_step_end(None, TrainerState(global_step=7), TrainerControl())
    shown.close()
    shown.close()
    assert "step 7, loss 1.250" in terminal.getvalue()
    assert not caplog.messages
