# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""An exported checkpoint loads, bit for bit, where the package is not installed; an export removes nobody's files."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from tests.integrations import remote_code
from tests.integrations.tiny import (
    PATCH,
    dense_inputs,
    mistral3_inputs,
    packed_inputs,
    pictures,
    tiny_config,
    tiny_llava,
    tiny_llava_processor,
    tiny_mistral3,
    tiny_processor,
)
from tests.integrations.tower_swap_cases import make_llava
from tests.processes import run_command
from turingvit_hf import TuringViTBackbone, TuringViTForImageClassification, TuringViTImageProcessor, TuringViTModel
from turingvit_hf.integrations.hub_export import export_for_hub
from turingvit_hf.integrations.tower_swap import swap_vision_tower


SCRIPT = Path(remote_code.__file__)
LABELS = {0: "circle", 1: "square", 2: "star"}


def tower(**changes) -> TuringViTModel:
    torch.manual_seed(0)
    return TuringViTModel(tiny_config(**changes)).eval()


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {
        "tower (v1)": TuringViTModel(tiny_config()).eval(),
        "classifier": TuringViTForImageClassification(tiny_config(id2label=LABELS)).eval(),
        "backbone": TuringViTBackbone(tiny_config(out_indices=[1, 3])).eval(),
        "llava": tiny_llava().eval(),
        "mistral3": tiny_mistral3().eval(),
    }


@pytest.fixture(scope="module")
def swapped():
    """A LLaVA whose tower was swapped, with fewer tokens, and its processor."""
    vlm, processor = make_llava()
    return swap_vision_tower(
        vlm.eval(), tower(), processor=processor, image_processor=tiny_processor(), token_reduction="mean_pool"
    )


@pytest.fixture(scope="module")
def exports(models, swapped, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    processors = {"tower (v1)": tiny_processor(), "classifier": tiny_processor(), "llava": tiny_llava_processor()}
    for name, model in models.items():
        export_for_hub(model, processors.get(name), folder / name, max_shard_size="20KB")
    export_for_hub(swapped.model, swapped.processor, folder / "swapped")
    return folder


@pytest.fixture(scope="module")
def inputs(exports) -> dict:
    sizes = torch.tensor([[2, 5], [3, 1]]) * PATCH
    padded = {"pixel_values": torch.rand(2, 3, 3 * PATCH, 5 * PATCH), "image_sizes": sizes}
    inputs = {
        "threads": torch.get_num_threads(),
        "forms": {"dense": dense_inputs(), "packed": packed_inputs(), "padded": padded},
        "pictures": pictures([(40, 20), (9, 31), (16, 16)]),
        "mistral3": mistral3_inputs(),
        "chat": {"images": pictures([(16, 12)]), "text": ["<image> w5 w17"]},
    }
    torch.save(inputs, exports / "inputs.pt")
    return inputs


def hub_cache(export: Path, folder: Path) -> Path:
    """A cache of hub downloads that holds the export as the repository someone/tower."""
    repository, commit = folder / "models--someone--tower", "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(export, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return folder


@pytest.fixture(scope="module")
def remote(exports, inputs, tmp_path_factory) -> dict:
    """What a process without the package got out of the exports."""
    environment = os.environ | {
        "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules")),
        "HF_HUB_CACHE": str(hub_cache(exports / "tower (v1)", tmp_path_factory.mktemp("hub"))),
        "HF_HUB_OFFLINE": "1",
    }
    result = run_command([sys.executable, "-P", SCRIPT, exports], env=environment)
    assert result.returncode == 0, result.stderr[-5000:]
    return torch.load(exports / "outputs.pt", weights_only=False)


def assert_equal(found, expected) -> None:
    """Bit for bit, through dicts, lists and tuples."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_equal(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_tower_and_processor_without_the_package(remote, models, inputs, place):
    found = remote[place]
    prefix = {"folder": "transformers_modules.tower (v1).", "hub": "transformers_modules.someone.tower."}[place]
    tower_class, processor_class = found["classes"]
    assert tower_class.startswith(prefix)
    assert tower_class.endswith(".modeling_turingvit.TuringViTModel")
    assert processor_class.startswith(prefix)
    assert processor_class.endswith(".image_processing_turingvit.TuringViTImageProcessor")
    assert_equal(found["tower"], remote_code.tower_outputs(models["tower (v1)"], inputs["forms"]))
    assert_equal(found["processed"], dict(tiny_processor()(inputs["pictures"], return_tensors="pt")))


def test_pipeline_and_compiler_without_the_package(remote, models, inputs):
    tower, processor = models["tower (v1)"], tiny_processor()
    with torch.no_grad():
        expected = [
            tower(**processor(picture, return_tensors="pt")).last_hidden_state for picture in inputs["pictures"]
        ]
    assert_equal(remote["pipeline"], expected)
    assert_equal(remote["compiled"], remote["folder"]["tower"]["packed"][0])


def test_classifier_and_backbone_without_the_package(remote, models, inputs):
    with torch.no_grad():
        assert_equal(remote["classifier"], models["classifier"](**inputs["forms"]["packed"]).logits)
        expected = models["backbone"](inputs["forms"]["dense"]["pixel_values"]).feature_maps
    assert_equal(remote["backbone"], expected)
    assert remote["labels"] == LABELS


def test_vlms_without_the_package(remote, models, inputs):
    vlm, tower, image_processor = remote["vlm classes"]
    assert vlm == "transformers.models.llava.modeling_llava.LlavaForConditionalGeneration"
    assert tower.startswith("transformers_modules.llava.")
    assert image_processor.startswith("transformers_modules.llava.")
    chat = tiny_llava_processor()(**inputs["chat"], return_tensors="pt")
    assert_equal(remote["chat"], dict(chat))
    with torch.no_grad():
        expected = models["llava"](**chat).logits
        for who in ("llava", "llava again", "llava beside package"):
            assert_equal(remote[who], expected)
        assert_equal(remote["mistral3"], models["mistral3"](**inputs["mistral3"]).logits)


def test_a_swapped_vlm_without_the_package(remote, swapped, inputs):
    vision_tower, processor = remote["swapped classes"]
    assert vision_tower.startswith("transformers_modules.swapped.")
    assert vision_tower.endswith(".TuringViTReducedModel")
    assert processor.startswith("transformers_modules.swapped.")
    text = ["<image> w9 <image> w10 <image>"]
    batch = swapped.processor(images=inputs["pictures"], text=text, return_tensors="pt")
    assert_equal(remote["swapped inputs"], dict(batch))
    with torch.no_grad():
        assert_equal(remote["swapped"], swapped.model(**batch).logits)


def test_the_card_runs(remote):
    assert remote["card"].shape == (320 * 240 // PATCH**2 + 160 * 480 // PATCH**2, 32)


def test_saved_again_without_the_package(remote):
    """transformers copies the code of a model that it loaded so."""
    assert_equal(remote["saved again"], remote["folder"]["tower"])
    assert_equal(remote["processed again"], remote["folder"]["processed"])


def test_package_and_copies_in_one_process(remote):
    """Operators are global to a process; each copy of the code keeps its own."""
    for who in ("package", "first copy", "second copy"):
        assert_equal(remote[who], remote["folder"]["tower"])


def test_exported_files(exports, models):
    config = json.loads((exports / "tower (v1)" / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoBackbone": "modeling_turingvit.TuringViTBackbone",
        "AutoConfig": "configuration_turingvit.TuringViTConfig",
        "AutoModel": "modeling_turingvit.TuringViTModel",
        "AutoModelForImageClassification": "modeling_turingvit.TuringViTForImageClassification",
    }
    processor = json.loads((exports / "tower (v1)" / "preprocessor_config.json").read_text())
    assert processor["auto_map"] == {"AutoImageProcessor": "image_processing_turingvit.TuringViTImageProcessor"}
    assert len([*(exports / "tower (v1)").glob("model-*.safetensors")]) > 3
    assert not (exports / "backbone" / "image_processing_turingvit.py").exists()
    for name, model in models.items():
        assert not hasattr(model.config, "auto_map"), "the model in hand stays as it was"
        assert {file.name for file in (exports / name).iterdir()} == {
            *json.loads((exports / name / "turingvit_export.json").read_text())["files"]
        }


def test_package_loads_an_exported_vlm_with_its_own_tower(exports, models, inputs):
    vlm = AutoModelForImageTextToText.from_pretrained(exports / "llava", trust_remote_code=False)
    processor = AutoProcessor.from_pretrained(exports / "llava", trust_remote_code=False)
    assert type(vlm.model.vision_tower) is TuringViTModel
    assert type(processor.image_processor) is TuringViTImageProcessor
    chat = processor(**inputs["chat"], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(vlm(**chat).logits, models["llava"](**chat).logits)


def test_previous_export_is_replaced_but_not_its_card(tmp_path):
    target = tmp_path / "export"
    export_for_hub(tower(), tiny_processor(), target, max_shard_size="20KB")
    (target / "README.md").write_text("my own words")
    export_for_hub(tower(vision_use_head=False), None, target)
    assert (target / "README.md").read_text() == "my own words"
    assert not (target / "preprocessor_config.json").exists()
    assert [file.name for file in target.glob("*.safetensors")] == ["model.safetensors"]
    assert TuringViTModel.from_pretrained(target).head is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["export"]


def test_empty_folder_is_used(tmp_path):
    export_for_hub(tower(), None, tmp_path)
    assert (tmp_path / "config.json").exists()


def test_foreign_files_are_left_alone(tmp_path):
    export_for_hub(tower(), None, tmp_path / "export")
    (tmp_path / "export" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"no export wrote.*notes\.txt"):
        export_for_hub(tower(), None, tmp_path / "export")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_text("mine")
    with pytest.raises(ValueError, match=r"no export wrote.*model\.safetensors"):
        export_for_hub(tower(), None, tmp_path / "other")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="it is a file"):
        export_for_hub(tower(), None, tmp_path / "file")
    with pytest.raises(ValueError, match="the folder above it does not exist"):
        export_for_hub(tower(), None, tmp_path / "no" / "export")
    assert (tmp_path / "export" / "notes.txt").read_text() == "mine"


def test_failed_export_leaves_the_previous_one(tmp_path, monkeypatch):
    target = tmp_path / "export"
    export_for_hub(tower(), tiny_processor(), target)
    before = {file.name: file.read_bytes() for file in target.iterdir()}

    def fail(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(TuringViTImageProcessor, "save_pretrained", fail)
        with pytest.raises(OSError, match="disk full"):
            export_for_hub(tower(rope_theta=50.0), tiny_processor(), target)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before

    rename = Path.rename

    def fail_to_arrive(source, destination):
        return fail() if source.name == "export" and source != target else rename(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail_to_arrive)
        with pytest.raises(OSError, match="disk full"):
            export_for_hub(tower(rope_theta=50.0), tiny_processor(), target)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["export"]


class OwnTower(TuringViTModel):
    """A tower whose code the package does not have."""


# PEFT asks models by the name that transformers 5 deprecates
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers")
def test_other_models_are_refused(tmp_path):
    vit = ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    adapted = get_peft_model(tower(), LoraConfig(r=2, target_modules=["q_proj"]))
    for model in (vit, adapted, OwnTower(tiny_config()), torch.nn.Linear(2, 2)):
        with pytest.raises(ValueError, match=f"cannot export a .*{type(model).__name__}: expected one of"):
            export_for_hub(model, None, tmp_path / "export")
    assert not [*tmp_path.iterdir()]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers")
def test_adapters_inside_a_model_are_refused(tmp_path):
    model = tower()
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="with adapters in it"):
        export_for_hub(model, None, tmp_path / "export")


class OwnLlava(LlavaForConditionalGeneration):
    """A VLM whose code neither transformers nor the package has."""


def test_own_vlms_are_refused(tmp_path):
    with pytest.raises(ValueError, match="its OwnLlava is not one of transformers' own"):
        export_for_hub(OwnLlava(tiny_llava().config), None, tmp_path / "export")


def test_vlm_that_forgets_its_tower_is_refused(tmp_path, monkeypatch):
    model, original = tiny_llava(), LlavaConfig.from_dict

    def forgets(values, **kwargs):
        return original(values | {"vision_config": {"model_type": "clip_vision_model"}}, **kwargs)

    monkeypatch.setattr(LlavaConfig, "from_dict", forgets)
    with pytest.raises(ValueError, match="comes back with CLIPVisionConfig for its tower"):
        export_for_hub(model, None, tmp_path / "export")


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (CLIPImageProcessor(), "TuringViTImageProcessor or None, got CLIPImageProcessor"),
        (TuringViTImageProcessor(patch_size=8), "patch_size is 8, the tower's is 4"),
    ],
    ids=["of another model", "other patches"],
)
def test_processor_that_does_not_fit_is_refused(tmp_path, processor, message):
    with pytest.raises(ValueError, match=message):
        export_for_hub(tower(), processor, tmp_path / "export")


def test_sizes_for_a_vlm_do_not_travel_with_a_tower(tmp_path):
    export_for_hub(tower(), tiny_processor(return_image_sizes=True), tmp_path / "export")
    assert TuringViTImageProcessor.from_pretrained(tmp_path / "export").return_image_sizes is False


def test_vlm_takes_no_bare_image_processor(tmp_path):
    with pytest.raises(ValueError, match="exported with its processor"):
        export_for_hub(tiny_llava(), tiny_processor(), tmp_path / "export")
