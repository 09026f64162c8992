# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tower with fewer tokens: what they are, in every input form and for odd grids, and what it costs in parameters."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from tests.towers import make_image, make_model, pack, pad, tiny_config
from turingvit_hf import TuringViTConfig, TuringViTReducedConfig, TuringViTReducedModel
from turingvit_hf.modeling.modeling_reduced import merge_tokens


REDUCTIONS = ["mean_pool", "pixel_unshuffle"]


def reduced(token_reduction: str, merge_size: int = 2) -> TuringViTReducedModel:
    """A tiny tower whose tokens are merged."""
    config = TuringViTReducedConfig(
        tower_config=tiny_config(vision_use_head=False), token_reduction=token_reduction, merge_size=merge_size
    )
    return make_model(TuringViTReducedModel, config)


def merged_by_hand(tokens: torch.Tensor, token_reduction: str, merge_size: int) -> torch.Tensor:
    """(rows, columns, D) merged token by token, as the definition says."""
    rows, columns, _ = tokens.shape
    out = []
    for top in range(0, rows, merge_size):
        for left in range(0, columns, merge_size):
            inside = [(top + y, left + x) for y in range(merge_size) for x in range(merge_size)]
            if token_reduction == "mean_pool":
                out.append(torch.stack([tokens[y, x] for y, x in inside if y < rows and x < columns]).mean(0))
            else:
                out.append(torch.cat([tokens[min(y, rows - 1), min(x, columns - 1)] for y, x in inside]))
    return torch.stack(out)


@pytest.mark.parametrize("merge_size", [2, 3])
@pytest.mark.parametrize("grid", [(4, 6), (3, 5), (1, 1), (1, 4), (5, 2)], ids=str)
@pytest.mark.parametrize("token_reduction", REDUCTIONS)
def test_tokens_are_merged_as_defined(token_reduction, grid, merge_size):
    tokens = torch.randn(2, *grid, 7)
    merged = merge_tokens(tokens, merge_size, token_reduction)
    assert merged.shape[1:3] == tuple(-(-side // merge_size) for side in grid)
    for frame, expected in zip(merged, tokens, strict=True):
        torch.testing.assert_close(frame.flatten(0, 1), merged_by_hand(expected, token_reduction, merge_size))


@pytest.mark.parametrize("token_reduction", REDUCTIONS)
def test_every_form_gives_the_same_tokens(token_reduction):
    model = reduced(token_reduction)
    images = [make_image(2, 4), make_image(4, 2)]
    with torch.no_grad():
        alone = [model(image[None]).last_hidden_state[0] for image in images]
        packed = model(**pack(images)).last_hidden_state
        padded = model(**pad(images)).last_hidden_state
    assert packed.shape == (4, model.config.hidden_size)
    assert padded.shape == (1, 4, model.config.hidden_size)
    torch.testing.assert_close(packed, torch.cat(alone))
    torch.testing.assert_close(padded[0], torch.cat(alone))


@pytest.mark.parametrize("token_reduction", REDUCTIONS)
def test_odd_grids_and_clips_in_a_pack(token_reduction):
    model = reduced(token_reduction)
    images = [make_image(3, 5), make_image(2, 3, frames=3), make_image(1, 1)]
    packed = pack(images)
    with torch.no_grad():
        tokens = model.turingvit(**packed).last_hidden_state
        merged = model(**packed).last_hidden_state
    expected = [merged_by_hand(tokens[:15].reshape(3, 5, -1), token_reduction, 2)]
    expected += [merged_by_hand(frame.reshape(2, 3, -1), token_reduction, 2) for frame in tokens[15:33].split(6)]
    expected += [merged_by_hand(tokens[33:].reshape(1, 1, -1), token_reduction, 2)]
    torch.testing.assert_close(merged, torch.cat(expected))


@pytest.mark.parametrize("output_hidden_states", [True, -1, [1, 3]], ids=str)
def test_hidden_states_are_merged_too(output_hidden_states):
    model = reduced("mean_pool")
    image = make_image(4, 4)[None]
    with torch.no_grad():
        outputs = model(image, output_hidden_states=output_hidden_states)
        inner = model.turingvit(image, output_hidden_states=output_hidden_states)
    assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    for own, of_tower in zip(outputs.hidden_states, inner.hidden_states, strict=True):
        assert (own is None) == (of_tower is None)
        if own is not None:
            expected = merged_by_hand(of_tower[0].reshape(4, 4, -1), "mean_pool", 2)
            torch.testing.assert_close(own[0], expected)


def test_a_tuple_on_request():
    outputs = reduced("mean_pool")(make_image(2, 2)[None], return_dict=False)
    assert isinstance(outputs, tuple)
    assert outputs[0].shape == (1, 1, 32)


@pytest.mark.parametrize("token_reduction", REDUCTIONS)
def test_no_parameter_is_added(token_reduction):
    model = reduced(token_reduction)
    assert all(name.startswith("turingvit.") for name, _ in model.named_parameters())
    assert model.turingvit.head is None
    model(**pack([make_image(3, 5), make_image(2, 2)])).last_hidden_state.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("token_reduction", REDUCTIONS)
def test_comes_back(token_reduction, tmp_path):
    model = reduced(token_reduction)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is TuringViTReducedModel
    packed = pack([make_image(3, 5)])
    with torch.no_grad():
        assert torch.equal(loaded(**packed).last_hidden_state, model(**packed).last_hidden_state)


def test_what_a_vlm_reads_is_what_comes_out():
    tower = tiny_config()
    for token_reduction, width in (("mean_pool", 32), ("pixel_unshuffle", 128)):
        config = TuringViTReducedConfig(tower_config=tower, token_reduction=token_reduction)
        assert (config.hidden_size, config.patch_size, config.image_size) == (width, 8, 16)
        assert (config.num_hidden_layers, config.num_attention_heads, config.num_channels) == (3, 4, 3)
        assert (config.layer_norm_eps, config.initializer_range) == (1e-6, 0.02)
        again = AutoConfig.for_model(**config.to_dict())
        assert isinstance(again.tower_config, TuringViTConfig)
        assert again.to_dict() == config.to_dict()


def test_sizes_that_callers_would_count_wrongly_are_refused():
    model = reduced("mean_pool")
    with pytest.raises(ValueError, match=r"multiples of 8 pixels, 2 patches of 4, got \[\[12, 8\]\]"):
        model(torch.rand(1, 3, 12, 8), image_sizes=[(12, 8)])


def test_a_reduction_that_there_is_not():
    with pytest.raises(Exception, match="token_reduction='max', allowed are"):
        TuringViTReducedConfig(tower_config=tiny_config(), token_reduction="max")
    with pytest.raises(Exception, match="merge_size=1 must be at least 2"):
        TuringViTReducedConfig(tower_config=tiny_config(), merge_size=1)
