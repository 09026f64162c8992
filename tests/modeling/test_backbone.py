# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The backbone: feature maps of chosen layers, at any input size, from the weights of a tower."""

import pytest
import torch
from transformers import AutoBackbone

from tests.helpers import TOWER_TOLERANCE, assert_close
from tests.towers import TowerTwin, make_image, make_model, pack, tiny_config
from turingvit_hf import TuringViTBackbone, TuringViTModel


def make_backbone(**changes):
    return make_model(TuringViTBackbone, tiny_config(**changes))


@torch.no_grad()
@pytest.mark.parametrize("layernorm", [True, False], ids=["norm", "no norm"])
def test_feature_maps_are_the_hidden_states_of_the_chosen_layers(layernorm):
    backbone = make_backbone(out_features=["stem", "stage2", "stage3"], apply_layernorm=layernorm)
    image = make_image(3, 5)
    twin = TowerTwin(backbone.config, backbone.turingvit.state_dict())
    exact = twin.image(image).hidden_states
    maps = backbone(image[None]).feature_maps
    assert backbone.channels == [32, 32, 32]
    assert [tuple(feature_map.shape) for feature_map in maps] == [(1, 32, 3, 5)] * 3
    for feature_map, layer in zip(maps, (0, 2, 3), strict=True):
        normed = twin.norm("final_norm", exact[layer]) if layernorm and layer < 3 else exact[layer]
        assert_close(feature_map[0].flatten(1).T, normed, TOWER_TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(30, 21), (4, 4), (1, 1), (12, 20), (13, 8)])
def test_any_input_size(height, width):
    backbone = make_backbone(out_indices=[1, 3])
    pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    rows, columns = -(-height // 4), -(-width // 4)
    padded = torch.zeros(2, 3, 4 * rows, 4 * columns)
    padded[:, :, :height, :width] = pixels
    maps = backbone(pixels).feature_maps
    for feature_map, exact in zip(maps, backbone(padded).feature_maps, strict=True):
        assert feature_map.shape == (2, 32, rows, columns)
        assert torch.equal(feature_map, exact)


@torch.no_grad()
def test_tokens_instead_of_maps():
    image = make_image(3, 5)
    tokens = make_backbone(out_indices=[1], reshape_hidden_states=False)(image[None]).feature_maps[0]
    feature_map = make_backbone(out_indices=[1])(image[None]).feature_maps[0]
    assert tokens.shape == (1, 15, 32)
    assert torch.equal(tokens, feature_map.flatten(2).transpose(1, 2))


@torch.no_grad()
def test_hidden_states_and_attentions_come_when_asked_for():
    backbone = make_backbone(out_indices=[3])
    backbone.set_attn_implementation("eager")
    outputs = backbone(make_image(3, 5)[None], output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == 4
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(1, 4, 15, 15)]
    outputs = backbone(make_image(3, 5)[None])
    assert outputs.hidden_states is None
    assert outputs.attentions is None
    as_tuple = backbone(make_image(3, 5)[None], return_dict=False)
    assert torch.equal(as_tuple[0][0], outputs.feature_maps[0])


def test_auto_backbone_makes_it_from_a_configuration():
    backbone = AutoBackbone.from_config(tiny_config(out_features=["stage1"]))
    assert type(backbone) is TuringViTBackbone
    assert backbone.turingvit.head is None
    assert backbone.out_features == ["stage1"]


@torch.no_grad()
@pytest.mark.parametrize("head", [True, False], ids=["tower with head", "tower without head"])
def test_weights_come_from_a_tower(tmp_path, head):
    tower = make_model(config=tiny_config(vision_use_head=head))
    tower.save_pretrained(tmp_path)
    backbone, report = TuringViTBackbone.from_pretrained(tmp_path, out_indices=[3], output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    image = make_image(3, 5)
    exact = tower(**pack([image])).last_hidden_state
    assert_close(backbone(image[None]).feature_maps[0][0].flatten(1).T, exact, TOWER_TOLERANCE)


@torch.no_grad()
def test_a_backbone_gives_its_weights_back_to_a_tower(tmp_path):
    backbone = make_backbone()
    backbone.save_pretrained(tmp_path)
    tower = TuringViTModel.from_pretrained(tmp_path, vision_use_head=False)
    inputs = pack([make_image(3, 5)])
    assert torch.equal(tower(**inputs).last_hidden_state, backbone.turingvit(**inputs).last_hidden_state)


def test_gradients_reach_every_weight_and_the_pixels():
    backbone = make_backbone(out_features=["stem", "stage3"])
    pixels = make_image(3, 5)[None].requires_grad_()
    sum(feature_map.square().sum() for feature_map in backbone(pixels).feature_maps).backward()
    assert pixels.grad.abs().sum() > 0
    assert all(weight.grad is not None for weight in backbone.parameters())


def test_bad_input():
    backbone = make_backbone()
    with pytest.raises(ValueError, match=r"a backbone takes images \(B, C, H, W\), got \(15, 48\)"):
        backbone(pack([make_image(3, 5)])["pixel_values"])
    with pytest.raises(ValueError, match="pixel_values has 1 channels, this tower takes 3"):
        backbone(make_image(3, 5, channels=1)[None])
