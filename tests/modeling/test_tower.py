# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The whole tower against a float64 twin that reads its state dict by the public names, and those names themselves."""

import numpy as np
import pytest
import torch

from tests.helpers import TOLERANCE, TOWER_TOLERANCE, assert_close
from tests.towers import LINEAR, SOFTMAX, TowerTwin, make_image, make_model, pack, tiny_config
from turingvit_hf import TuringViTConfig, TuringViTModel
from turingvit_hf.kernels.linear_attention import BACKENDS, use_linear_attention_backend


VARIANTS = {
    "default": {},
    "output projection": {"tla_output_projection": True},
    "no rope in linear attention": {"tla_rope": "none"},
    "no head": {"vision_use_head": False},
    "one channel, other constants": {"num_channels": 1, "rope_theta": 30.0, "rms_norm_eps": 1e-2, "patch_size": 2},
    "only linear": {"layer_types": [LINEAR] * 2},
    "only softmax": {"layer_types": [SOFTMAX] * 2},
    "six layers": {"layer_types": [LINEAR] * 5 + [SOFTMAX]},
    "one head of 32": {"num_attention_heads": 1},
}


@pytest.fixture(scope="module", params=VARIANTS)
def tower(request):
    return make_model(config=tiny_config(**VARIANTS[request.param]))


def make_images(config):
    options = {"patch_size": config.patch_size, "channels": config.num_channels}
    sizes = [(3, 5), (1, 1), (7, 2), (1, 9)]
    return [make_image(*size, **options) for size in sizes] + [make_image(2, 3, frames=3, **options)]


def test_the_tower_is_what_the_formulas_say(tower):
    images = make_images(tower.config)
    with torch.no_grad():
        outputs = tower(**pack(images, tower.config.patch_size))
    twins = [TowerTwin(tower.config, tower.state_dict()).image(image) for image in images]
    exact = np.concatenate([twin.hidden_states[-1] for twin in twins])
    assert_close(outputs.last_hidden_state, exact, TOWER_TOLERANCE)
    if tower.config.vision_use_head:
        assert_close(outputs.pooler_output, np.array([twin.pooled for twin in twins]), TOWER_TOLERANCE)
    else:
        assert outputs.pooler_output is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_9216_tokens_in_16_bits(dtype):
    config, image = tiny_config(layer_types=[LINEAR] * 2), make_image(96, 96)
    tower = make_model(config=config).to(dtype)
    with torch.no_grad():
        outputs = tower(**pack([image]))
    twin = TowerTwin(config, tower.state_dict()).image(image.to(dtype).float())
    # embedding, twice attention and MLP, final norm: six steps, each rounding as the table says
    assert_close(outputs.last_hidden_state, twin.hidden_states[-1], 6 * TOLERANCE[dtype])
    assert_close(outputs.pooler_output[0], twin.pooled, 6 * TOLERANCE[dtype])


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_every_backend_gives_the_tower_of_the_formulas(backend):
    tower, image = make_model(), make_image(6, 7)
    with torch.no_grad(), use_linear_attention_backend(backend):
        outputs = tower(**pack([image]))
    assert_close(outputs.pooler_output[0], TowerTwin(tower.config, tower.state_dict()).image(image).pooled, 1e-5)


def test_a_tower_can_have_a_backend_of_its_own(monkeypatch, tmp_path):
    ran = []
    for name, run in [*BACKENDS.items()]:
        monkeypatch.setitem(BACKENDS, name, lambda *args, name=name, run=run: ran.append(name) or run(*args))
    mine, other, inputs = make_model(), make_model(), pack([make_image(2, 3)])
    mine.set_linear_attention_backend("reference")
    mine(**inputs)
    other(**inputs)
    assert ran == ["reference", "reference", "torch", "torch"]
    with pytest.raises(ValueError, match=r"no linear-attention backend 'cudnn'; this installation has"):
        mine.set_linear_attention_backend("cudnn")
    mine.save_pretrained(tmp_path)
    ran.clear()
    TuringViTModel.from_pretrained(tmp_path)(**inputs)
    mine.set_linear_attention_backend(None)
    mine(**inputs)
    assert ran == ["torch"] * 4


def test_gradients_of_pixels_and_weights_agree_with_finite_differences():
    tower, inputs = make_model(config=tiny_config(layer_types=[LINEAR, SOFTMAX])).double(), pack([make_image(2, 3)])
    weights = [weight for weight in tower.parameters() if weight.requires_grad]

    def pooled(pixel_values, *weights):
        return tower(pixel_values, image_grid_thw=inputs["image_grid_thw"]).pooler_output

    pixels = inputs["pixel_values"].double().requires_grad_()
    assert torch.autograd.gradcheck(pooled, (pixels, *weights), fast_mode=True)


def test_gradients_of_a_pack_are_the_sum_of_those_of_its_images():
    tower, images = make_model(), [make_image(3, 5), make_image(1, 1), make_image(2, 3, frames=2)]

    def gradients(*packs):
        tower.zero_grad()
        for images in packs:
            outputs = tower(**pack(images))
            (outputs.pooler_output.square().sum() + outputs.last_hidden_state.square().sum()).backward()
        return {name: weight.grad.clone() for name, weight in tower.named_parameters()}

    packed, alone = gradients(images), gradients(*([image] for image in images))
    for name in packed:
        assert_close(packed[name], alone[name], TOWER_TOLERANCE)


LAYER = ["attention_norm", *(f"attention.{kind}_proj" for kind in "qkv"), "mlp_norm"]
LAYER += [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
HEAD = ["query", *(f"{kind}_proj.weight" for kind in "kvo"), "mlp_norm.weight"]
HEAD += [f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")]


@pytest.mark.parametrize("head", [True, False], ids=["head", "no head"])
@pytest.mark.parametrize("projection", [True, False], ids=["o_proj", "no o_proj"])
def test_the_names_of_the_state_dict_are_a_contract(projection, head):
    tower = make_model(config=tiny_config(tla_output_projection=projection, vision_use_head=head))
    linear = [*LAYER, "attention.output_gate", "attention.output_norm"] + ["attention.o_proj"] * projection
    layers = {0: linear, 1: [*LAYER, "attention.o_proj"], 2: linear}
    expected = {f"layers.{i}.{name}.weight" for i, names in layers.items() for name in names}
    expected |= {"patch_embed.weight", "patch_embed.bias", "final_norm.weight"}
    expected |= {f"head.{name}" for name in HEAD} if head else set()
    assert set(tower.state_dict()) == expected
    assert {name for name, _ in tower.named_parameters()} == expected


def test_the_only_bias_is_that_of_the_patches():
    tower = make_model()
    assert [name for name in tower.state_dict() if name.endswith("bias")] == ["patch_embed.bias"]
    assert tower.patch_embed.weight.shape == (32, 3 * 4 * 4)


@pytest.mark.parametrize(("num_layers", "report"), [(18, 472e6), (24, 629e6)])
def test_parameters_without_the_head_are_those_of_the_report(num_layers, report):
    with torch.device("meta"):
        tower = TuringViTModel(TuringViTConfig(num_hidden_layers=num_layers))
    head = sum(weight.numel() for weight in tower.head.parameters())
    assert head == 24_578_560  # 3 · 1280² + 3 · 1280 · 5120 + 2 · 1280
    total = sum(weight.numel() for weight in tower.parameters())
    assert abs(total - head - report) <= 0.01 * report
    assert total - head == {18: 472_910_080, 24: 630_218_240}[num_layers]


def test_a_checkpoint_with_a_head_loads_without_it_and_the_other_way_round(tmp_path):
    whole, image = make_model(), pack([make_image(2, 3)])
    whole.save_pretrained(tmp_path / "whole")
    bare, report = TuringViTModel.from_pretrained(tmp_path / "whole", vision_use_head=False, output_loading_info=True)
    assert {name.split(".")[0] for name in report["unexpected_keys"]} <= {"head"}
    assert not report["missing_keys"]
    assert bare.head is None
    assert torch.equal(bare(**image).last_hidden_state, whole(**image).last_hidden_state)
    bare.save_pretrained(tmp_path / "bare")
    again, report = TuringViTModel.from_pretrained(tmp_path / "bare", vision_use_head=True, output_loading_info=True)
    assert set(report["missing_keys"]) == {f"head.{name}" for name in HEAD}
    assert torch.equal(again(**image).last_hidden_state, whole(**image).last_hidden_state)
    assert all(weight.isfinite().all() for weight in again.parameters())
