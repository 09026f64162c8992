# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The configuration: strict, complete, and holding architecture only."""

import ast
import json
from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

import turingvit_hf
from tests.towers import LINEAR, SOFTMAX, tiny_config
from turingvit_hf import TuringViTConfig


# declared here and not in the base class
FIELDS = sorted(
    name for name in vars(TuringViTConfig)["__annotations__"] if name not in ("model_type", "attribute_map")
)


def test_the_presets_of_the_report():
    config = TuringViTConfig()
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (18, 1280, 20)
    assert (config.intermediate_size, config.patch_size, config.head_dim, config.rope_theta) == (5120, 16, 64, 100.0)
    assert config.layer_types == ([LINEAR] * 5 + [SOFTMAX]) * 3
    assert TuringViTConfig(num_hidden_layers=24).layer_types == ([LINEAR] * 5 + [SOFTMAX]) * 4


def test_real_numbers_may_be_written_as_whole_ones():
    config = TuringViTConfig(rope_theta=100, pos_embed_rescale=2)
    assert (config.rope_theta, config.pos_embed_rescale) == (100.0, 2.0)


def test_layer_types_follow_the_interval_or_are_given():
    config = TuringViTConfig(num_hidden_layers=6, full_attention_interval=3)
    assert config.layer_types == [LINEAR, LINEAR, SOFTMAX] * 2
    assert TuringViTConfig(num_hidden_layers=6, full_attention_interval=1).layer_types == [SOFTMAX] * 6
    # whoever gives them outright is free of the interval
    assert TuringViTConfig(num_hidden_layers=2, layer_types=[SOFTMAX, LINEAR]).layer_types == [SOFTMAX, LINEAR]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 7}, "num_hidden_layers=7 is not a positive multiple of full_attention_interval=6"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0 is not a positive multiple"),
        ({"full_attention_interval": 0}, "full_attention_interval=0"),
        ({"num_hidden_layers": 1, "layer_types": ["softmax"]}, "softmax"),
        (
            {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]},
            r"layer_types\[0\]='sliding_attention'.*'full_",
        ),
        ({"num_hidden_layers": 3, "layer_types": [LINEAR]}, r"num_hidden_layers.*3"),
        ({"hidden_size": 110}, "hidden_size=110 is not a multiple of num_attention_heads=20"),
        ({"num_attention_heads": 0}, "num_attention_heads=0 must be at least 1"),
        ({"hidden_size": 0}, "hidden_size=0 must be at least 1"),
        ({"num_hidden_layers": 0, "layer_types": []}, "num_hidden_layers=0 must be at least 1"),
        ({"hidden_size": 20 * 6}, "= 6 is not divisible by 4"),
        ({"tla_rope": "pre_activation"}, "tla_rope='pre_activation', allowed are 'post_activation' and 'none'"),
        ({"patch_size": 0}, "patch_size=0 must be at least 1"),
        ({"num_channels": 0}, "num_channels=0 must be at least 1"),
        ({"intermediate_size": -1}, "intermediate_size=-1 must be at least 1"),
        ({"image_size": 0}, "image_size=0 must be at least 1"),
        ({"teacher_hidden_size": 0}, "teacher_hidden_size=0 must be at least 1"),
        ({"rms_norm_eps": -1e-6}, "rms_norm_eps=-1e-06 must be positive"),
        ({"rope_theta": 0.0}, "rope_theta=0.0 must be positive"),
        ({"hidden_act": "swish2"}, r"hidden_act='swish2', allowed are \[.*'silu'"),
        ({"out_features": ["stage19"]}, "out_features must be a subset of stage_names"),
        ({"out_indices": [19]}, "out_indices must be valid indices for stage_names"),
        ({"pos_embed_rescale": 0.5}, "pos_embed_rescale=0.5 must be None or at least 1"),
    ],
    ids=str,
)
def test_impossible_architectures(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        TuringViTConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": "1280"},
        {"hidden_size": 1280.0},
        {"image_size": [512, 512]},
        {"patch_size": (16, 16)},
        {"rms_norm_eps": "1e-6"},
        {"tla_output_projection": "no"},
        {"vision_use_head": None},
        {"layer_types": LINEAR},
        {"num_hidden_layers": None},
    ],
    ids=str,
)
def test_types_are_strict(fields):
    with pytest.raises((ValueError, TypeError, StrictDataclassError), match=next(iter(fields))):
        TuringViTConfig(**fields)


def test_layer_norm_eps_is_another_name_of_rms_norm_eps():
    config = TuringViTConfig(layer_norm_eps=1e-3)
    assert (config.rms_norm_eps, config.layer_norm_eps) == (1e-3, 1e-3)
    config.layer_norm_eps = 1e-4
    assert config.rms_norm_eps == 1e-4
    assert config.to_dict()["rms_norm_eps"] == 1e-4
    assert "layer_norm_eps" not in config.to_dict()


def test_a_configuration_survives_a_dict_and_a_file(tmp_path):
    changes = {
        "tla_rope": "none",
        "tla_output_projection": True,
        "vision_use_head": False,
        "rope_theta": 50.0,
        "pos_embed_rescale": None,
        "num_channels": 1,
        "rms_norm_eps": 1e-5,
        "layer_types": [LINEAR, SOFTMAX, SOFTMAX],
    }
    config = tiny_config(**changes)
    config.save_pretrained(tmp_path)
    for copy in (
        TuringViTConfig.from_dict(config.to_dict()),
        TuringViTConfig.from_pretrained(tmp_path),
        AutoConfig.from_pretrained(tmp_path),
    ):
        assert type(copy) is TuringViTConfig
        assert {name: getattr(copy, name) for name in FIELDS} == {name: getattr(config, name) for name in FIELDS}
        assert {name: getattr(copy, name) for name in changes} == changes
        assert copy.model_type == "turingvit"


def test_the_file_holds_architecture_and_no_choice_of_the_run(tmp_path):
    config = tiny_config()
    config._attn_implementation = "eager"
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    of_the_base = {"model_type", "transformers_version", "stage_names", "out_features", "out_indices"}
    assert set(written) == {name for name in FIELDS if not name.startswith("_")} | of_the_base


def test_every_field_is_read_somewhere():
    # a field that nothing reads is a promise nobody keeps; of these, VLMs read the nominal image_size
    package = Path(turingvit_hf.__file__).parent
    read = {
        node.attr
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    base = set(PreTrainedConfig.__dataclass_fields__)
    assert set(FIELDS) - read - base - {"image_size", "_out_features", "_out_indices"} == set()


@pytest.mark.parametrize("name", ["image_size", "patch_size", "num_channels", "hidden_size", "num_hidden_layers"])
def test_what_vlms_read_are_plain_integers(name):
    assert type(getattr(TuringViTConfig(), name)) is int
