# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A pack's random numbers follow from run, step and place, and leave the process's generators alone."""

import pytest
import torch

from tests.training.objective_cases import MAKE_PACK, assert_same_step, make_dual_encoder, make_masked_model, run_step
from turingvit_hf.training import pack_seeds
from turingvit_hf.training.objective import outputs_of
from turingvit_hf.training.objectives import ContrastiveObjective, MaskedDistillationObjective
from turingvit_hf.training.pack_seeds import seeded, with_seeds
from turingvit_hf.training.packs import model_inputs


def packs_of(kind, num_packs=3, **place):
    return with_seeds(
        [MAKE_PACK[kind](3, seed=number) for number in range(num_packs)], **{"seed": 0, "step": 0} | place
    )


def test_every_step_and_place_has_its_own_numbers(monkeypatch):
    def drawn(**place):
        values = []
        for pack in packs_of("image", **place):
            with seeded(pack):
                values.append(float(torch.rand(())))
        return values

    one_rank = drawn()
    assert drawn() == one_rank
    assert len({*one_rank, *drawn(step=1), *drawn(seed=1)}) == 9
    monkeypatch.setattr(pack_seeds, "rank", lambda: 1)
    assert drawn(num_packs=1) == one_rank[1:2]


def test_the_generators_of_the_process_are_left_alone():
    model, (pack, *_) = make_dual_encoder(), packs_of("image")
    before = torch.get_rng_state()
    one, other = (outputs_of(model, pack).image_embeds for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, other)
    assert "model_seed" not in model_inputs(pack)
    unseeded = {name: value for name, value in pack.items() if name != "model_seed"}
    assert not torch.equal(outputs_of(model, unseeded).image_embeds, one)


@pytest.mark.parametrize("kind", MAKE_PACK)
def test_a_step_depends_on_its_packs_alone(kind):
    model = make_masked_model() if kind == "mim" else make_dual_encoder()
    make_objective = MaskedDistillationObjective if kind == "mim" else ContrastiveObjective
    packs = packs_of(kind)
    one, other = (run_step(make_objective(), model, packs, seed=seed) for seed in (1, 2))
    assert_same_step(one, other)
    elsewhere = run_step(make_objective(), model, packs_of(kind, step=1), seed=1)
    assert all(not torch.equal(elsewhere["losses"][name], loss) for name, loss in one["losses"].items())
