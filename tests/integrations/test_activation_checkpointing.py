# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Activation checkpointing saves memory and changes nothing else, in every input form and at every interval."""

import pytest
import torch

from tests.integrations.tiny import PATCH, dense_inputs, packed_inputs, tiny_config
from turingvit_hf import TuringViTForImageClassification


def padded_inputs() -> dict[str, torch.Tensor]:
    sizes = torch.tensor([[2, 5], [3, 3]]) * PATCH
    return {"pixel_values": torch.rand(2, 3, 3 * PATCH, 5 * PATCH), "image_sizes": sizes}


FORMS = {"dense": dense_inputs, "packed": packed_inputs, "padded": padded_inputs}
SETTINGS = {
    "not reentrant": {},
    "reentrant": {"activation_checkpointing_kwargs": {"use_reentrant": True}},
    "every second layer": {"every_n_layers": 2},
}


def loss_and_gradients(model, inputs):
    model.zero_grad()
    torch.manual_seed(1)  # training draws a rescaling of the coordinates in each forward
    num_images = len(inputs.get("image_grid_thw", inputs["pixel_values"]))
    loss = model(**inputs, labels=torch.arange(num_images)).loss
    loss.backward()
    return loss, {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_gradients_stay(form, settings):
    torch.manual_seed(0)
    model = TuringViTForImageClassification(tiny_config(num_labels=3)).train()
    inputs = FORMS[form]()
    loss, gradients = loss_and_gradients(model, inputs)
    model.activation_checkpointing_enable(**SETTINGS[settings])
    assert model.is_activation_checkpointing
    checkpointed_loss, checkpointed_gradients = loss_and_gradients(model, inputs)
    assert torch.equal(loss, checkpointed_loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(checkpointed_gradients[name], gradient, msg=name)


def test_hidden_states_are_captured_all_the_same():
    model = TuringViTForImageClassification(tiny_config(pos_embed_rescale=None)).train()
    inputs = packed_inputs()
    expected = model(**inputs, output_hidden_states=True).hidden_states
    model.activation_checkpointing_enable()
    found = model(**inputs, output_hidden_states=True).hidden_states
    assert len(found) == len(expected) == 4
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_layers_run_again_in_the_backward_pass():
    model = TuringViTForImageClassification(tiny_config()).train()
    model.activation_checkpointing_enable()
    runs = []
    for index, layer in enumerate(model.turingvit.layers):
        layer.mlp.register_forward_pre_hook(lambda *_, index=index: runs.append(index))
    loss = model(**packed_inputs()).logits.sum()
    assert runs == [0, 1, 2]
    loss.backward()
    assert sorted(runs) == [0, 0, 1, 1, 2, 2]
