# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Random generators are put back, the CPU's and those of any device that torch has a module for."""

from types import SimpleNamespace

import pytest
import torch

from turingvit_hf.training.gradient_cache import RandomState, generators_kept


class FakeGenerator:
    """A device's random numbers, counted."""

    def __init__(self):
        self.drawn = 0

    def draw(self) -> int:
        self.drawn += 1
        return self.drawn

    def get_state(self, device: object) -> torch.Tensor:
        return torch.tensor(self.drawn)

    def set_state(self, state: torch.Tensor, device: object) -> None:
        self.drawn = int(state)


@pytest.fixture(params=["xpu", "mps", "npu"])
def fake(request, monkeypatch):
    """A device that is not here, and its generator."""
    generator = FakeGenerator()
    module = SimpleNamespace(get_rng_state=generator.get_state, set_rng_state=generator.set_state)
    monkeypatch.setattr(torch, request.param, module, raising=False)
    monkeypatch.setattr(torch, "get_device_module", lambda device: getattr(torch, str(device)))
    return SimpleNamespace(type=request.param), generator


def test_a_forward_on_any_device_draws_the_same_again(fake):
    device, generator = fake
    state = RandomState(device)
    first = generator.draw(), torch.rand(()).item()
    after = generator.draw(), torch.rand(()).item()
    with state.restored():
        assert (generator.draw(), torch.rand(()).item()) == first
        assert (generator.draw(), torch.rand(()).item()) == after
        for _ in range(3):
            generator.draw()
    assert generator.draw() == 3


def test_generators_are_put_back_after_an_error(fake):
    device, generator = fake

    def fail():
        with generators_kept(device):
            generator.draw()
            torch.rand(())
            raise RuntimeError("stop")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert generator.drawn == 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["cpu", "meta"])
def test_devices_without_generators_of_their_own(kind):
    state = RandomState(torch.device(kind))
    first = torch.rand(3)
    with state.restored():
        assert torch.equal(torch.rand(3), first)
    assert not torch.equal(torch.rand(3), first)
