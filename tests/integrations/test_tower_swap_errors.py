# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a swap refuses, with its reason and before anything is changed; and what a failed save leaves behind."""

import copy
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from transformers import (
    BertConfig,
    BertModel,
    BlipConfig,
    BlipForConditionalGeneration,
    Gemma3nConfig,
    LlavaForConditionalGeneration,
    LlavaNextVideoConfig,
    Qwen2VLConfig,
    VipLlavaConfig,
)

from tests.integrations import tower_swap_cases as cases
from tests.integrations.tiny import pictures, tiny_config, tiny_processor
from turingvit_hf import TuringViTDualEncoderConfig, TuringViTDualEncoderModel, TuringViTForImageClassification
from turingvit_hf.integrations import tower_swap
from turingvit_hf.integrations.tower_swap import (
    REPORT,
    TowerAdapter,
    known_families,
    register_adapter,
    swap_saved_vlm,
    swap_vision_tower,
)
from turingvit_hf.integrations.vlm_families import registry


def refused(match: str, vlm=None, tower=None, *, processor=None, **options) -> None:
    """Fail unless the swap is refused with this text, and the VLM is as it was."""
    made, own = cases.make_llava()
    vlm, processor = vlm or made, own if processor is None else processor
    before, config = cases.tensors_of(vlm), copy.deepcopy(vlm.config)
    options = {"image_processor": tiny_processor()} | options
    with pytest.raises(ValueError, match=match):
        swap_vision_tower(vlm, tower or cases.make_tower(), processor=processor, **options)
    after = cases.tensors_of(vlm)
    assert before.keys() == after.keys()
    assert all(tensor.is_meta or torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert vlm.config.to_dict() == config.to_dict()


def test_an_unknown_family_is_told_what_there_is_and_how_to_add_one():
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = small | {"image_size": 16, "patch_size": 4}
    vlm = BlipForConditionalGeneration(
        BlipConfig(text_config=small | {"vocab_size": 30, "encoder_hidden_size": 16}, vision_config=vision)
    )
    refused(r"no adapter for model_type 'blip'.*'llava'.*register_adapter.*docs/vlm.md", vlm)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (VipLlavaConfig, "drops the first token"),
        (Qwen2VLConfig, "its merger normalizes"),
        (LlavaNextVideoConfig, "frames of a video"),
        (Gemma3nConfig, "convolutional network"),
    ],
)
def test_relatives_of_known_families_are_told_why_they_have_no_adapter(config, reason):
    with pytest.raises(ValueError, match=f"no adapter for .*{config.model_type}.*{reason}.*register_adapter"):
        registry.adapter_for(config())


def test_a_vlm_that_is_no_model():
    with pytest.raises(ValueError, match="must be a PreTrainedModel of transformers, got a SimpleNamespace"):
        swap_vision_tower(SimpleNamespace(), cases.make_tower(), processor=cases.make_llava()[1])


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: BertModel(BertConfig(num_hidden_layers=1, hidden_size=16, num_attention_heads=2)), "BertModel"),
        (lambda: TuringViTForImageClassification(tiny_config()), "TuringViTForImageClassification"),
        (lambda: torch.nn.Linear(2, 2), "Linear"),
    ],
    ids=["text encoder", "classifier", "layer"],
)
def test_a_tower_of_a_wrong_type(make, name, tmp_path):
    refused(rf"must be a TuringViTModel itself or a path, got a {name}", tower=make())


def test_a_path_to_something_else(tmp_path):
    BertModel(BertConfig(num_hidden_layers=1, hidden_size=16, num_attention_heads=2)).save_pretrained(tmp_path / "b")
    refused("holds a 'bert', a tower is a 'turingvit'$", tower=tmp_path / "b")
    text = BertConfig(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=16, vocab_size=30)
    dual = TuringViTDualEncoderConfig(vision_config=tiny_config(), text_config=text, projection_dim=8)
    TuringViTDualEncoderModel(dual).save_pretrained(tmp_path / "stage")
    refused("a training stage has it in its folder vision_tower", tower=tmp_path / "stage")


def test_a_quantized_vlm():
    vlm, _ = cases.make_llava()
    vlm.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    refused("LlavaConfig.* is quantized: take one in bfloat16 or float32", vlm)


def test_a_vlm_without_values():
    with torch.device("meta"):
        vlm, _ = cases.make_llava()
    refused(r"parameters of this LlavaForConditionalGeneration are on the meta device, model\.", vlm)


def test_a_tower_without_values():
    with torch.device("meta"):
        tower = cases.make_tower()
    refused("the tower is on the meta device", tower=tower)


def test_a_vlm_on_several_devices():
    vlm, _ = cases.make_llava()
    vlm.hf_device_map = {"model.vision_tower": 0, "model.language_model": 1}
    refused(r"spread over \['0', '1'\]", vlm)


def test_a_vlm_with_adapters():
    vlm, _ = cases.make_llava()
    vlm.add_adapter(LoraConfig(target_modules=["q_proj"], r=2))
    refused("has adapters in it: merge or unload", vlm)


def test_tokens_and_features_that_would_differ():
    refused("cuts patches of 8 pixels, the tower takes 4: images would have more or fewer tokens than features",
            image_processor=tiny_processor().__class__(patch_size=8))  # fmt: skip


def test_an_image_processor_of_another_kind():
    _, processor = cases.make_llava_next()
    refused("must be a TuringViTImageProcessor, got a LlavaNext", image_processor=processor.image_processor)


def test_a_processor_with_another_image_token():
    vlm, _ = cases.make_llava()
    vlm.config.image_token_index = 17
    refused("the processor's image token has the id 4, the VLM's is 17", vlm)


@pytest.mark.parametrize("processor", [tiny_processor(), cases.tiny_tokenizer()], ids=["images only", "text only"])
def test_half_a_processor(processor):
    refused("processor must be the VLM's own, with its tokenizer", processor=processor)


def test_the_processor_of_another_family():
    _, processor = cases.make_llava_next()
    refused("a LlavaConfig goes with LlavaProcessor or .*, got a LlavaNextProcessor", processor=processor)


def test_an_unknown_reduction():
    refused("token_reduction='attention', allowed are None and", token_reduction="attention")


def test_options_without_a_meaning_in_the_family():
    refused("keeps each image's own resolution; bound it by max_image_tokens", image_size=32)
    vlm, processor = cases.make_llava_next()
    refused("cuts images into squares; choose their side by image_size", vlm, processor=processor, max_image_tokens=9)


def test_squares_that_tokens_do_not_fill():
    vlm, processor = cases.make_llava_next()
    refused("image_size=18 is no positive multiple of 4 pixels", vlm, processor=processor, image_size=18)
    refused(
        "image_size=20 is no positive multiple of 8 pixels",
        vlm,
        processor=processor,
        image_size=20,
        token_reduction="mean_pool",
    )


def test_pinpoints_that_are_no_squares():
    vlm, processor = cases.make_llava_next()
    vlm.config.image_grid_pinpoints = [[16, 24]]
    refused(r"image_grid_pinpoints has \[16, 24\], no multiples of the squares' side 16", vlm, processor=processor)


def test_more_image_tokens_than_the_image_processor_gives():
    refused("max_image_tokens=10000 must be from 1 to 9216", max_image_tokens=10_000)
    vlm, processor = cases.make_mistral3()
    refused("max_image_tokens=3 must be from 4 to 2304", vlm, processor=processor, max_image_tokens=3)


def test_a_fixed_size_that_merged_tokens_do_not_fill():
    fixed = tiny_processor(resolution="fixed", size={"height": 12, "width": 8})
    refused("12 x 8 pixels does not divide", image_processor=fixed, token_reduction="mean_pool")


def test_an_image_too_large_for_the_context():
    vlm, processor = cases.make_llava(max_position_embeddings=64)
    refused(
        "one image takes up to 100 tokens, the language model has 64 positions", vlm, processor=processor,
        max_image_tokens=100,
    )  # fmt: skip
    vlm, processor = cases.make_llava_next()
    vlm.config.text_config.max_position_embeddings = 64
    refused("one image takes up to 88 tokens, the language model has 64", vlm, processor=processor)
    fixed = tiny_processor(resolution="fixed", size={"height": 64, "width": 64})
    vlm, processor = cases.make_llava(max_position_embeddings=64)
    refused("one image takes up to 256 tokens", vlm, processor=processor, image_processor=fixed)


def test_by_default_an_image_leaves_half_of_the_context():
    vlm, processor = cases.make_llava(max_position_embeddings=64)
    result = swap_vision_tower(vlm, cases.make_tower(), processor=processor, image_processor=tiny_processor())
    assert result.image_tokens == 32
    ids = result.processor(images=pictures([(500, 500)]), text="<image> w9", return_tensors="pt")["input_ids"]
    assert ids.shape[1] <= 33
    with pytest.raises(ValueError, match=r"text 1 has 77 tokens, 75 of them for images; .* takes 64.*max_patches"):
        result.processor(
            images=pictures([(500, 500)] * 4), text=["<image> w9", "<image> <image> <image> w9 w9"], padding=True
        )


def test_more_images_than_tokens():
    vlm, processor = cases.make_llava()
    result = swap_vision_tower(vlm, cases.make_tower(), processor=processor, image_processor=tiny_processor())
    with pytest.raises(ValueError, match="number of <image> tokens"):
        result.processor(images=pictures([(8, 8), (8, 8)]), text="<image> w9")


def test_a_family_that_cannot_keep_a_tower_is_refused(monkeypatch):
    """A configuration that would come back with another tower is found out before anything is lost."""
    vlm, _ = cases.make_llava()
    original = type(vlm.config).from_dict

    def forgets(values, **kwargs):
        return original(values | {"vision_config": cases.clip_config().to_dict()}, **kwargs)

    monkeypatch.setattr(type(vlm.config), "from_dict", forgets)
    refused("comes back with CLIPVisionConfig in place of TuringViTConfig", vlm)


@pytest.fixture
def saved(tmp_path):
    """Folders of a LLaVA and of a tower."""
    vlm, processor = cases.make_llava()
    vlm.save_pretrained(tmp_path / "vlm")
    processor.save_pretrained(tmp_path / "vlm")
    cases.make_tower().save_pretrained(tmp_path / "tower")
    tiny_processor(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / "tower")
    return tmp_path


def test_from_folders_to_a_folder(saved):
    result = swap_saved_vlm(saved / "vlm", saved / "tower", saved / "out")
    assert {path.name for path in saved.iterdir()} == {"vlm", "tower", "out"}
    assert REPORT in {path.name for path in (saved / "out").iterdir()}
    assert [*result.processor.image_processor.image_mean] == [0.1, 0.2, 0.3]
    before = LlavaForConditionalGeneration.from_pretrained(saved / "vlm").state_dict()
    after = LlavaForConditionalGeneration.from_pretrained(saved / "out").state_dict()
    language = [name for name in before if "language_model" in name or "lm_head" in name]
    assert len(language) > 10
    assert all(torch.equal(before[name], after[name]) for name in language)


def test_a_folder_that_is_taken(saved):
    (saved / "out").mkdir()
    (saved / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="out is not empty: choose another folder"):
        swap_saved_vlm(saved / "vlm", saved / "tower", saved / "out")
    with pytest.raises(ValueError, match=r"notes\.txt is a file"):
        swap_saved_vlm(saved / "vlm", saved / "tower", saved / "out" / "notes.txt")
    with pytest.raises(ValueError, match=r"cannot make .*notes\.txt is a file"):
        swap_saved_vlm(saved / "vlm", saved / "tower", saved / "out" / "notes.txt" / "deeper")
    assert [path.name for path in (saved / "out").iterdir()] == ["notes.txt"]


def test_a_quantized_folder_is_refused_by_its_configuration(saved, monkeypatch):
    vlm, _ = cases.make_llava()
    vlm.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    vlm.config.save_pretrained(saved / "quantized")
    monkeypatch.setattr(tower_swap.AutoModelForImageTextToText, "from_pretrained", None)
    with pytest.raises(ValueError, match="is quantized"):
        swap_saved_vlm(saved / "quantized", saved / "tower", saved / "out")
    with pytest.raises(ValueError, match="a tower is a 'turingvit'"):
        swap_saved_vlm(saved / "vlm", saved / "vlm", saved / "out")


@pytest.mark.parametrize("part", ["model", "processor"])
def test_a_failed_save_leaves_nothing(part, tmp_path, monkeypatch):
    vlm, processor = cases.make_llava()
    result = swap_vision_tower(vlm, cases.make_tower(), processor=processor, image_processor=tiny_processor())

    def fails(folder, **kwargs):
        (folder / "half").write_text("written")
        raise OSError("no space left on device")

    monkeypatch.setattr(getattr(result, part), "save_pretrained", fails)
    with pytest.raises(OSError, match="no space left"):
        result.save(tmp_path / "out")
    assert [*tmp_path.iterdir()] == []
    monkeypatch.undo()
    result.save(tmp_path / "out")
    assert (tmp_path / "out" / "config.json").exists()


def test_a_tower_folder_without_an_image_processor_says_so(tmp_path, caplog, monkeypatch):
    cases.make_tower().save_pretrained(tmp_path)
    vlm, processor = cases.make_llava()
    said = []
    monkeypatch.setattr(tower_swap.logger, "warning", said.append)
    result = swap_vision_tower(vlm, tmp_path, processor=processor)
    assert "has no image processor" in said[0]
    assert result.processor.image_processor.patch_size == 4


def test_another_family_is_one_small_class(monkeypatch):
    monkeypatch.setattr(registry, "_ADAPTERS", dict(registry._ADAPTERS))

    class MyAdapter(type(registry.adapter_for(cases.make_llava()[0].config))):
        model_types = ("llava", "my_llava")

    register_adapter(MyAdapter())
    assert "my_llava" in known_families()
    vlm, processor = cases.make_llava()
    result = swap_vision_tower(vlm, cases.make_tower(), processor=processor, image_processor=tiny_processor())
    assert result.newly_initialized == ["model.multi_modal_projector.linear_1.weight"]
    with pytest.raises(ValueError, match="TowerAdapter names no model_types"):
        register_adapter(TowerAdapter())
