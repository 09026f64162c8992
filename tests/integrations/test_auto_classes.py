# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a checkpoint holds comes back through the Auto classes: every bit, in any shard, dtype or placement."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
)

from tests.integrations.tiny import dense_inputs, packed_inputs, pictures, tiny_config, tiny_processor
from turingvit_hf import TuringViTBackbone, TuringViTForImageClassification, TuringViTImageProcessor, TuringViTModel


@pytest.fixture
def tower() -> TuringViTModel:
    torch.manual_seed(0)
    return TuringViTModel(tiny_config()).eval()


def assert_same_outputs(a: torch.nn.Module, b: torch.nn.Module) -> None:
    for inputs in (dense_inputs(), packed_inputs()):
        with torch.no_grad():
            first, second = a(**inputs), b(**inputs)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_tower_comes_back_from_shards(tower, tmp_path):
    tower.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len([*tmp_path.glob("model-*.safetensors")]) > 3
    reloaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(reloaded) is TuringViTModel
    assert not any(report.values())
    assert_same_outputs(tower, reloaded)


def test_classifier_comes_back_with_its_labels(tmp_path):
    labels = {0: "circle", 1: "square", 2: "star"}
    classifier = TuringViTForImageClassification(tiny_config(id2label=labels)).eval()
    classifier.save_pretrained(tmp_path)
    reloaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert type(reloaded) is TuringViTForImageClassification
    assert reloaded.config.id2label == labels
    assert_same_outputs(classifier, reloaded)


def test_tower_of_a_classifier_is_a_tower(tmp_path):
    classifier = TuringViTForImageClassification(tiny_config(num_labels=5)).eval()
    classifier.save_pretrained(tmp_path)
    tower, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert_same_outputs(classifier.turingvit, tower)


def test_classifier_on_a_saved_tower_says_what_is_new(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    classifier, report = AutoModelForImageClassification.from_pretrained(
        tmp_path, num_labels=5, output_loading_info=True
    )
    assert report["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert_same_outputs(tower, classifier.turingvit)


def test_backbone_reads_a_towers_checkpoint(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    # AutoBackbone.from_pretrained asks the hub for a repository of that name, whatever the model
    backbone = TuringViTBackbone.from_pretrained(tmp_path, out_indices=[1, 3])
    assert type(AutoBackbone.from_config(backbone.config)) is TuringViTBackbone
    images = dense_inputs()["pixel_values"]
    with torch.no_grad():
        first, last = backbone(images).feature_maps
        expected = tower(images).last_hidden_state
    assert first.shape == last.shape == (2, 32, 3, 4)
    assert torch.equal(last.flatten(2).transpose(1, 2), expected)


def test_processor_comes_back(tmp_path):
    processor = tiny_processor(resolution="bounded", min_side=16, max_side=32)
    processor.save_pretrained(tmp_path)
    reloaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(reloaded) is TuringViTImageProcessor
    assert reloaded.to_dict() == processor.to_dict()
    images = pictures([(40, 20), (9, 31)])
    first, second = processor(images, return_tensors="pt"), reloaded(images, return_tensors="pt")
    assert first.keys() == second.keys() == {"image_grid_thw", "pixel_values"}
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_ordinary_checkpoint_holds_no_code(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    for name in ("config.json", "preprocessor_config.json"):
        assert "auto_map" not in json.loads((tmp_path / name).read_text())


def test_loads_in_another_dtype(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    reloaded = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in reloaded.parameters()} == {torch.bfloat16}
    assert_same_outputs(tower.bfloat16(), reloaded)
    for inputs in (dense_inputs(), packed_inputs()):
        assert reloaded(**inputs).last_hidden_state.dtype == torch.bfloat16
    reloaded.save_pretrained(tmp_path / "narrow")
    assert AutoConfig.from_pretrained(tmp_path / "narrow").dtype == torch.bfloat16
    assert AutoModel.from_pretrained(tmp_path / "narrow").dtype == torch.bfloat16


def test_head_that_is_not_wanted_is_dropped_by_name(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    headless, report = AutoModel.from_pretrained(tmp_path, vision_use_head=False, output_loading_info=True)
    assert report["unexpected_keys"] == {name for name in tower.state_dict() if name.startswith("head.")}
    assert not report["missing_keys"]
    with torch.no_grad():
        outputs = headless(**packed_inputs_of(0))
        expected = tower(**packed_inputs_of(0))
    assert outputs.pooler_output is None
    assert torch.equal(outputs.last_hidden_state, expected.last_hidden_state)


def test_head_that_is_missing_is_made_by_name(tmp_path):
    tower = TuringViTModel(tiny_config(vision_use_head=False)).eval()
    tower.save_pretrained(tmp_path)
    with_head, report = AutoModel.from_pretrained(tmp_path, vision_use_head=True, output_loading_info=True)
    assert report["missing_keys"] == {name for name in with_head.state_dict() if name.startswith("head.")}
    assert not report["unexpected_keys"]
    with torch.no_grad():
        outputs = with_head(**packed_inputs_of(0))
        expected = tower(**packed_inputs_of(0))
    assert outputs.pooler_output.isfinite().all()
    assert outputs.pooler_output.any()
    assert torch.equal(outputs.last_hidden_state, expected.last_hidden_state)


def packed_inputs_of(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return packed_inputs()


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}], ids=str)
def test_loads_with_a_device_map(tower, tmp_path, device_map):
    tower.save_pretrained(tmp_path)
    assert_same_outputs(tower, AutoModel.from_pretrained(tmp_path, device_map=device_map))


def test_layers_may_stay_on_disk(tower, tmp_path):
    tower.save_pretrained(tmp_path / "checkpoint")
    placement = dict.fromkeys(("patch_embed", "rope", "layers.0", "layers.2", "final_norm"), "cpu")
    placement |= {"layers.1": "disk", "head": "disk"}
    reloaded = AutoModel.from_pretrained(
        tmp_path / "checkpoint", device_map=placement, offload_folder=tmp_path / "offload"
    )
    assert reloaded.hf_device_map == placement
    offloaded = {name.split(".")[0] for name, p in reloaded.named_parameters() if p.is_meta}
    assert offloaded == {"layers", "head"}
    assert_same_outputs(tower, reloaded)


def test_no_layer_is_split_between_devices(tower):
    from accelerate import infer_auto_device_map

    placement = infer_auto_device_map(
        tower, max_memory={"cpu": 60_000, "disk": 10**9}, no_split_module_classes=tower._no_split_modules
    )
    assert len(set(placement.values())) == 2
    assert not [name for name in placement if name.startswith("layers.") and name.count(".") > 1]


def test_saving_and_loading_keeps_the_configuration(tmp_path):
    config = tiny_config(
        tla_rope="none", tla_output_projection=True, rope_theta=50.0, vision_use_head=False, pos_embed_rescale=None
    )
    model = TuringViTModel(config)
    model.save_pretrained(tmp_path)
    saved = json.loads(Path(tmp_path, "config.json").read_text())
    assert not {"backend", "_attn_implementation", "auto_map"} & saved.keys()
    reloaded = AutoConfig.from_pretrained(tmp_path)
    before, after = config.to_dict(), reloaded.to_dict()
    for changed_by_saving in ("dtype", "architectures", "_name_or_path"):
        before.pop(changed_by_saving, None), after.pop(changed_by_saving, None)
    assert before == after
