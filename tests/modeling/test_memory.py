# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Memory grows with the number of tokens and not with its square.

What is counted is what torch takes from its allocator, inside operators as well, not what the process happens to hold.
"""

import pytest
import torch

from tests.helpers import record_allocations
from tests.towers import LINEAR, SOFTMAX, make_model, tiny_config


def make_inputs(*grid):
    grid = torch.tensor(grid)
    return {"pixel_values": torch.ones(int(grid.prod(-1).sum()), 48), "image_grid_thw": grid}


def forward(tower, inputs):
    with torch.no_grad():
        tower(**inputs)


def train(tower, inputs):
    outputs = tower(**inputs)
    (outputs.last_hidden_state.sum() + outputs.pooler_output.sum()).backward()


@pytest.mark.parametrize("step", [forward, train])
def test_linear_attention_is_linear_from_4096_to_16384_tokens(step):
    tower = make_model(config=tiny_config(layer_types=[LINEAR] * 2))
    small, large = (
        record_allocations(lambda side=side: step(tower, make_inputs((1, side, side)))) for side in (64, 128)
    )
    for measure in ("largest", "total", "peak"):
        assert getattr(large, measure) <= 4.1 * getattr(small, measure), (measure, small, large)


@pytest.mark.parametrize("step", [forward, train])
def test_softmax_attention_over_one_image_holds_no_square_of_its_tokens(step):
    tower = make_model(config=tiny_config(layer_types=[SOFTMAX]))
    small, large = (
        record_allocations(lambda side=side: step(tower, make_inputs((1, side, side)))) for side in (32, 64)
    )
    assert large.largest < 4096**2  # bytes: a quarter of a float32 square, without heads
    for measure in ("largest", "total", "peak"):
        assert getattr(large, measure) <= 4.1 * getattr(small, measure), (measure, small, large)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_pack_holds_no_square_of_all_its_tokens(implementation):
    # eager writes the weights of one image at a time, never a mask or weights of the whole pack
    tower = make_model(config=tiny_config(layer_types=[LINEAR, SOFTMAX]))
    tower.set_attn_implementation(implementation)
    few, many = (
        record_allocations(lambda count=count: train(tower, make_inputs(*[(1, 8, 8)] * count))) for count in (16, 64)
    )
    for measure in ("largest", "total", "peak"):
        assert getattr(many, measure) <= 4.1 * getattr(few, measure), (measure, few, many)


def test_the_record_sees_a_square_inside_an_operator():
    # the measure itself can fail: attention weights written out are found
    tower = make_model(config=tiny_config(layer_types=[SOFTMAX]))
    tower.set_attn_implementation("eager")
    record = record_allocations(lambda: forward(tower, make_inputs((1, 32, 32))))
    assert record.largest >= 4 * 4 * 1024**2
