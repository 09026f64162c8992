# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pixels of a pack wait on the host for its turn; everything else is where the model is."""

import pytest
import torch
from transformers import TrainingArguments

from tests.training.objective_cases import MAKE_PACK, make_dual_encoder
from turingvit_hf.training import packs as packs_module
from turingvit_hf.training.objective import Objective
from turingvit_hf.training.objectives import ContrastiveObjective
from turingvit_hf.training.packs import PIXELS, arrived, device_of, model_inputs
from turingvit_hf.training.trainer import TuringViTTrainer


def test_pixels_come_to_where_the_grid_is():
    pack = {
        "image_grid_thw": torch.ones(1, 3, dtype=torch.int64, device="meta"),
        "input_ids": torch.ones(1, 2, device="meta"),
        **{name: torch.rand(4, 3) for name in PIXELS},
        "kind": "image",
    }
    assert device_of(pack) == torch.device("meta")
    whole = arrived(pack)
    assert {name: value.device.type for name, value in whole.items() if name != "kind"} == dict.fromkeys(
        ("image_grid_thw", "input_ids", *PIXELS), "meta"
    )
    assert pack["pixel_values"].device.type == "cpu"
    assert model_inputs(whole).keys() == {"image_grid_thw", "input_ids", "pixel_values"}


def test_pixels_without_a_grid_stay_where_they_are():
    pack = {"pixel_values": torch.rand(1, 3, 4, 4)}
    assert arrived(pack)["pixel_values"] is pack["pixel_values"]


class TwoPacks:
    """Steps of two packs."""

    def __init__(self, packs):
        self.packs = packs

    def __len__(self):
        return 1

    def __iter__(self):
        yield {"packs": self.packs}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def counts(self):
        return {"rows": 0, "skipped": {}}


class Plain(Objective):
    """One of somebody else's, which hands a pack to the model as it is."""

    def __call__(self, model, pack):
        return {"own": model(**model_inputs(pack)).image_embeds.square().mean()}


@pytest.mark.parametrize("objective", [ContrastiveObjective, Plain])
def test_a_step_brings_the_pixels_of_a_pack_when_it_is_its_turn(objective, tmp_path, monkeypatch):
    model = make_dual_encoder()
    arguments = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "max_steps": 1, "disable_tqdm": True}
    packs = [MAKE_PACK["image"](3, seed=number) for number in range(2)]
    waiting = [pack["pixel_values"] for pack in packs]
    trainer = TuringViTTrainer(
        objective=objective(),
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), **arguments),
        step_loader=TwoPacks(packs),
    )
    events, prepare, bring = [], trainer._prepare_input, packs_module.brought

    def prepared(value):
        assert not any(value is pixels for pixels in waiting)
        return prepare(value)

    def brought(pixels, device):
        events.append(next(number for number, host in enumerate(waiting) if host is pixels))
        return bring(pixels, device)

    monkeypatch.setattr(trainer, "_prepare_input", prepared)
    monkeypatch.setattr(packs_module, "brought", brought)
    model.register_forward_pre_hook(lambda *_: events.append("forward"))
    trainer.train()
    turns = [0, "forward", 1, "forward"]
    assert events == (2 * turns if objective is ContrastiveObjective else turns)
