# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Hidden states and attention weights in all three input forms, and what else callers of transformers rely on."""

import numpy as np
import pytest
import torch

from tests.helpers import TOWER_TOLERANCE, assert_close
from tests.towers import TowerTwin, make_image, make_model, pack, pad
from turingvit_hf import TuringViTForImageClassification


IMAGES = [make_image(3, 5), make_image(3, 5) + 1]
FORMS = {
    "packed": (pack(IMAGES), lambda exact: np.concatenate(exact)),
    "batch": ({"pixel_values": torch.stack(IMAGES)}, np.stack),
    "padded": (pad(IMAGES), lambda exact: np.concatenate(exact)[None]),
}


@pytest.fixture(scope="module")
def tower():
    return make_model()


@pytest.fixture(scope="module")
def twins(tower):
    return [TowerTwin(tower.config, tower.state_dict()).image(image) for image in IMAGES]


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


@torch.no_grad()
def test_hidden_states_are_all_layers_inputs_and_the_normed_end(tower, twins, form):
    inputs, arrange = form
    outputs = tower(**inputs, output_hidden_states=True)
    assert len(outputs.hidden_states) == 4
    for layer, hidden_states in enumerate(outputs.hidden_states):
        exact = arrange([twin.hidden_states[layer] for twin in twins])
        assert hidden_states.shape == exact.shape
        assert_close(hidden_states, exact, TOWER_TOLERANCE)
    assert outputs.hidden_states[-1] is outputs.last_hidden_state


@torch.no_grad()
@pytest.mark.parametrize(
    ("asked", "layers"), [(1, {1}), (3, {3}), (-1, {3}), (-2, {2}), ([1, -1], {1, 3}), ([0], {0})]
)
def test_chosen_hidden_states(tower, form, asked, layers):
    inputs, _ = form
    everything = tower(**inputs, output_hidden_states=True).hidden_states
    chosen = tower(**inputs, output_hidden_states=asked).hidden_states
    for index in [asked] if isinstance(asked, int) else asked:
        assert torch.equal(chosen[index], everything[index])
    assert {layer for layer, x in enumerate(chosen) if x is not None} == layers


@torch.no_grad()
def test_a_form_of_the_output_that_nobody_asked_for_is_not_there(tower, form):
    outputs = tower(**form[0])
    assert outputs.hidden_states is None
    assert outputs.attentions is None
    assert [*outputs] == ["last_hidden_state", "pooler_output"]
    as_tuple = tower(**form[0], return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], outputs.last_hidden_state)


@torch.no_grad()
def test_attention_weights_of_a_batch(twins):
    tower = make_model()
    tower.set_attn_implementation("eager")
    (weights,) = tower(**FORMS["batch"][0], output_attentions=True).attentions  # one softmax layer of three
    assert weights.shape == (2, 4, 15, 15)
    assert_close(weights, np.stack([twin.attentions[0][0] for twin in twins]), TOWER_TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("form", ["packed", "padded"])
def test_attention_weights_of_a_pack_are_one_tensor_for_each_frame(form):
    tower = make_model()
    tower.set_attn_implementation("eager")
    images = [make_image(3, 5), make_image(1, 1), make_image(2, 3)]
    if form == "packed":
        images.append(make_image(2, 4, frames=2))
    twin = TowerTwin(tower.config, tower.state_dict())
    exact = [weights[0] for image in images for weights in twin.image(image).attentions]
    (frames,) = tower(**(pack if form == "packed" else pad)(images), output_attentions=True).attentions
    assert [tuple(weights.shape) for weights in frames] == [(1, *weights.shape) for weights in exact]
    for weights, twin_weights in zip(frames, exact, strict=True):
        assert_close(weights[0], twin_weights, TOWER_TOLERANCE)


def test_the_input_embedding_is_that_of_patches():
    for model in (make_model(), make_model(TuringViTForImageClassification)):
        assert model.get_input_embeddings() is model.base_model.patch_embed


@torch.no_grad()
def test_pixels_are_cast_to_the_dtype_of_the_model():
    tower = make_model().to(torch.bfloat16)
    outputs = tower(**pack(IMAGES))
    assert outputs.last_hidden_state.dtype == outputs.pooler_output.dtype == torch.bfloat16
    assert_close(outputs.last_hidden_state, make_model()(**pack(IMAGES)).last_hidden_state, 0.1)


@torch.no_grad()
def test_keywords_of_trainer_and_pipelines_are_taken(tower):
    # Trainer sets config.use_cache, which becomes a keyword of forward
    assert tower(**pack(IMAGES), use_cache=False).pooler_output.shape == (2, 32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_trains(dtype):
    tower = make_model()
    exact = tower(**pack(IMAGES)).pooler_output
    with torch.autocast("cpu", dtype):
        outputs = tower(**pack(IMAGES))
        batch = tower(torch.stack(IMAGES))
    outputs.pooler_output.float().square().mean().backward()
    assert all(weight.grad.isfinite().all() and weight.grad.dtype == torch.float32 for weight in tower.parameters())
    assert_close(outputs.pooler_output, exact, 0.1)
    assert_close(batch.pooler_output, exact, 0.1)


def test_activation_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        tower = make_model().train()
        if checkpointing:
            tower.activation_checkpointing_enable()
        torch.manual_seed(0)
        tower(**pack(IMAGES)).pooler_output.square().sum().backward()
        gradients.append([weight.grad for weight in tower.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
