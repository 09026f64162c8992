# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tower in InternVL, Gemma 3, PaliGemma, Idefics3 and SmolVLM: comes back, trains, generates, counts."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.smolvlm import processing_smolvlm

from tests.integrations import square_vlms as vlms
from tests.integrations import tower_swap_cases as cases
from tests.integrations.tiny import PATCH, tiny_processor
from turingvit_hf import TuringViTModel, TuringViTReducedModel
from turingvit_hf.integrations.hub_export import export_for_hub
from turingvit_hf.integrations.tower_swap import SwapResult, swap_vision_tower


# PaliGemmaProcessor makes an array of a tensor in a way that NumPy 2 warns of
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

REDUCTIONS = [None, "mean_pool", "pixel_unshuffle"]
TOWERS = dict.fromkeys(vlms.FAMILIES, "model.vision_tower") | dict.fromkeys(
    ("idefics3", "smolvlm"), "model.vision_model"
)
PROJECTORS = dict.fromkeys(vlms.FAMILIES, "model.multi_modal_projector") | dict.fromkeys(
    ("idefics3", "smolvlm"), "model.connector"
)
# image and video in one text; the others have no video
VIDEO_FAMILIES = ["internvl", "smolvlm"]


@pytest.fixture(autouse=True, scope="module")
def _number_words():
    """SmolVLM's processor writes the number of frames as a word, by a package that is not needed for anything here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processing_smolvlm, "num2words", str)
        yield


def swapped(family: str, token_reduction: str | None = None, **options) -> SwapResult:
    """A random VLM of the family, in evaluation mode, with a tower in it."""
    torch.manual_seed(0)
    vlm, processor = vlms.FAMILIES[family]()
    options = {"image_processor": tiny_processor()} | options
    tower = options.pop("tower", None) or cases.make_tower()
    return swap_vision_tower(vlm.eval(), tower, processor=processor, token_reduction=token_reduction, **options)


def family_of(result: SwapResult) -> str:
    """The `model_type`."""
    return result.model.config.model_type


@pytest.fixture(
    scope="module", params=[(f, r) for f in vlms.FAMILIES for r in REDUCTIONS], ids=lambda p: f"{p[0]}-{p[1]}"
)
def result(request) -> SwapResult:
    """Each family with each reduction; tests leave it as it is."""
    return swapped(*request.param)


@pytest.fixture(scope="module", params=vlms.FAMILIES)
def plain(request) -> SwapResult:
    """Each family without reduction."""
    return swapped(request.param)


def inputs_of(result: SwapResult, images: list[list[tuple[int, int]]]) -> dict[str, torch.Tensor]:
    """A batch of texts, each with pictures of these (width, height)."""
    if family_of(result) == "paligemma" and not any(images):
        # its processor wants an image, its model does not
        return dict(result.processor.tokenizer(["w9 w11"], return_tensors="pt", return_token_type_ids=True))
    inputs = cases.inputs_of(result, images)
    # a PaliGemma has one from its processor, for what is predicted after the prompt
    inputs.pop("labels", None)
    return inputs


def video_inputs(result: SwapResult) -> dict[str, torch.Tensor]:
    """A text with a video of three frames, and for InternVL a picture before it."""
    clip = np.random.default_rng(1).integers(0, 256, (3, 24, 40, 3), dtype=np.uint8)
    metadata = {"total_num_frames": 3, "fps": 1.0, "duration": 3.0, "frames_indices": [0, 1, 2]}
    call = {"videos": [clip], "video_metadata": [metadata], "do_sample_frames": False, "return_tensors": "pt"}
    if family_of(result) == "smolvlm":
        return dict(result.processor(text=[f"w9 {result.processor.video_token} w11"], **call))
    text = f"w9 {result.processor.image_token} w10 {result.processor.video_token} w11"
    return dict(result.processor(text=[text], images=[Image.new("RGB", (13, 40), "red")], **call))


@pytest.mark.parametrize("width", [32, 24])
@pytest.mark.parametrize("token_reduction", REDUCTIONS)
@pytest.mark.parametrize("family", vlms.FAMILIES)
def test_everything_but_tower_and_named_parameters_is_bit_identical(family, token_reduction, width):
    torch.manual_seed(0)
    vlm, processor = vlms.FAMILIES[family]()
    before, kind = cases.tensors_of(vlm), type(vlm)
    before = {name: tensor for name, tensor in before.items() if not name.startswith(TOWERS[family])}
    tower = cases.make_tower(hidden_size=width, num_attention_heads=width // 8)
    settings_before, config_before = processor.to_dict(), tower.config.to_dict()
    result = swap_vision_tower(
        vlm, tower, processor=processor, image_processor=tiny_processor(), token_reduction=token_reduction
    )
    assert result.model is vlm
    assert type(vlm) is kind
    cases.check_only_these_changed(before, result, TOWERS[family])
    cases.check_tower_is(result, tower, TOWERS[family])
    assert processor.to_dict() == settings_before
    assert tower.config.to_dict() == config_before
    assert all(name.startswith(PROJECTORS[family]) for name in result.newly_initialized)
    if width == 24 and token_reduction != "pixel_unshuffle":
        assert result.newly_initialized == []


def test_nothing_stands_between_tower_and_projector(result):
    family = family_of(result)
    tower = result.model.get_submodule(TOWERS[family])
    assert type(tower) in (TuringViTModel, TuringViTReducedModel)
    inner = getattr(tower, "turingvit", tower)
    assert inner.head is None
    assert {id(p) for p in tower.parameters()} == {id(p) for p in inner.parameters()}
    parts = {".".join(name.split(".")[:2]) for name, _ in result.model.named_parameters()}
    languages = {"model.language_model", "model.text_model", "lm_head.weight"}
    assert parts <= {TOWERS[family], PROJECTORS[family]} | languages
    seen = {}
    handles = [
        tower.register_forward_hook(lambda _, __, output: seen.update(given=output.last_hidden_state)),
        result.model.get_submodule(PROJECTORS[family]).register_forward_pre_hook(
            lambda _, args: seen.update(read=args[0])
        ),
    ]
    with torch.no_grad():
        result.model(**inputs_of(result, [[(16, 16)]]))
    for handle in handles:
        handle.remove()
    # InternVL brings the tokens of a block side by side, the others read them as they are
    given, read = seen["given"].flatten(), seen["read"].flatten()
    assert torch.equal(given.sort().values, read.sort().values)
    assert family == "internvl" or torch.equal(given, read)


def test_comes_back_with_identical_logits(result, tmp_path):
    batches = [inputs_of(result, images) for images in cases.BATCHES.values()]
    loaded = cases.check_comes_back(result, tmp_path / "vlm", batches)
    tower = loaded.model.get_submodule(TOWERS[family_of(result)])
    assert type(tower) is type(result.model.get_submodule(TOWERS[family_of(result)]))
    assert tower.config is loaded.model.config.vision_config


def test_the_processor_comes_back(result, tmp_path):
    cases.check_processor_comes_back(
        result, tmp_path, lambda result: [inputs_of(result, images) for images in cases.BATCHES.values()]
    )


def check_generates(result: SwapResult, inputs: dict[str, torch.Tensor]) -> None:
    """Fail unless greedy steps with a cache are the arg max of one forward without."""
    length = inputs["input_ids"].shape[1]
    # a random model might say an image token, for which there is no feature
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    generated = result.model.generate(**inputs, **options, suppress_tokens=[vlms.IMAGE])
    new = torch.ones_like(generated[:, length:])
    assert new.shape[1] == 4
    whole = inputs | {"input_ids": generated, "attention_mask": torch.cat([inputs["attention_mask"], new], dim=1)}
    if "token_type_ids" in inputs:
        # what a PaliGemma says is not part of the prompt, and a Gemma 3 says no image
        kind = new if family_of(result) == "paligemma" else 0 * new
        whole["token_type_ids"] = torch.cat([inputs["token_type_ids"], kind], dim=1)
    with torch.no_grad():
        logits = result.model(**whole).logits[:, length - 1 : -1]
    logits[..., vlms.IMAGE] = float("-inf")
    assert torch.equal(generated[:, length:], logits.argmax(-1))


@pytest.mark.parametrize("images", cases.BATCHES.values(), ids=cases.BATCHES)
def test_generates_as_it_predicts(plain, images):
    check_generates(plain, inputs_of(plain, images))


@pytest.mark.parametrize("token_reduction", REDUCTIONS)
@pytest.mark.parametrize("family", VIDEO_FAMILIES)
def test_a_video(family, token_reduction, tmp_path):
    cases.needs_torchvision("processor for videos")
    result = swapped(family, token_reduction)
    inputs = video_inputs(result)
    check_generates(result, inputs)
    cases.check_comes_back(result, tmp_path / "vlm", [inputs])
    cases.check_gradients(result, inputs, lambda name: False)


@pytest.mark.parametrize("token_reduction", REDUCTIONS)
@pytest.mark.parametrize("family", vlms.FAMILIES)
def test_a_backward_pass_reaches_every_parameter(family, token_reduction):
    result = swapped(family, token_reduction)
    cases.check_gradients(result, inputs_of(result, cases.BATCHES["a mixed batch"]), lambda name: False)


def check_count(result: SwapResult, width: int, height: int) -> None:
    """Fail unless the tokens in the text are as many as the features behind tower and projector."""
    picture = Image.new("RGB", (width, height), "red")
    inputs = result.processor(images=[[picture]], text=[f"w9 {result.processor.image_token} w10"], return_tensors="pt")
    number = int((inputs["input_ids"] == vlms.IMAGE).sum())
    names = {"pixel_values", "pixel_attention_mask"} & inputs.keys()
    with torch.no_grad():
        features = result.model.get_image_features(**{name: inputs[name] for name in names}).pooler_output
    assert number == sum(image.shape[0] for image in features)
    # what the processor writes around an image is counted; the two words and the start of the text are not
    assert inputs["input_ids"].shape[1] <= result.image_tokens + 3


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(4, 110), height=st.integers(4, 110))
def test_as_many_image_tokens_as_features(plain, width, height):
    check_count(plain, width, height)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(4, 110), height=st.integers(4, 110))
def test_as_many_image_tokens_as_merged_features(result, width, height):
    check_count(result, width, height)


@pytest.mark.parametrize("family", vlms.FAMILIES)
@pytest.mark.parametrize(("image_size", "expected"), [(None, 16), (24, 24), (32, 32)])
def test_the_side_of_the_squares(family, image_size, expected):
    result = swapped(family, image_size=image_size)
    config = result.model.config
    assert config.vision_config.image_size == expected
    check_count(result, 60, 33)
    per_side = expected // PATCH
    assert {
        "internvl": lambda: config.image_seq_length == (per_side // 2) ** 2,
        "gemma3": lambda: result.processor.image_seq_length == 4,
        "paligemma": lambda: config.text_config.num_image_tokens == per_side**2,
        "idefics3": lambda: result.model.model.image_seq_len == (per_side // 2) ** 2,
        "smolvlm": lambda: result.model.model.image_seq_len == (per_side // 2) ** 2,
    }[family]()


@pytest.mark.parametrize("family", vlms.FAMILIES)
def test_pixels_are_prepared_as_the_tower_was_trained(family):
    own = tiny_processor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    result = swapped(family, image_processor=own)
    picture = Image.new("RGB", (16, 16))
    inputs = result.processor(images=[[picture]], text=[result.processor.image_token], return_tensors="pt")
    black = torch.tensor([-0.25, -0.4, -0.5])
    assert torch.allclose(inputs["pixel_values"].amin((-1, -2)).reshape(-1, 3)[0], black, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"image_size": 10}, "no positive multiple"), ({"max_image_tokens": 9}, "choose it by image_size")],
)
@pytest.mark.parametrize("family", vlms.FAMILIES)
def test_what_does_not_fit_is_refused(family, options, message):
    with pytest.raises(ValueError, match=message):
        swapped(family, **options)


@pytest.mark.parametrize("family", [family for family in vlms.FAMILIES if family != "gemma3"])
def test_squares_too_large_for_the_language_model_are_refused(family):
    """Not Gemma 3's, which have the same number of tokens whatever their side."""
    with pytest.raises(ValueError, match="the language model has 2048 positions"):
        swapped(family, image_size=512)


def test_pan_and_scan_of_gemma3():
    result = swapped("gemma3")
    options = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 8}
    inputs = result.processor(
        images=[[Image.new("RGB", (60, 20), "red")]],
        text=[f"{result.processor.image_token} w10"],
        images_kwargs=options,
        return_tensors="pt",
    )
    assert len(inputs["pixel_values"]) == 4
    assert int((inputs["input_ids"] == vlms.IMAGE).sum()) == 4 * 4
    check_generates(result, dict(inputs))


@pytest.mark.parametrize("family", vlms.FAMILIES)
def test_the_processor_of_another_vlm_is_refused(family):
    vlm, _ = vlms.FAMILIES[family]()
    _, other = vlms.FAMILIES["gemma3" if family != "gemma3" else "internvl"]()
    with pytest.raises(ValueError, match="goes with"):
        swap_vision_tower(vlm, cases.make_tower(), processor=other, image_processor=tiny_processor())


@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
def test_black_squares_may_not_look_like_padding(family):
    with pytest.raises(ValueError, match="takes for padding"):
        swapped(family, image_processor=tiny_processor(image_mean=[0.0, 0.0, 0.0]))


def test_gathered_names_are_those_of_the_new_tower(plain):
    names = {type(module).__name__ for module in plain.model.modules()}
    for model in (plain.model, plain.model.model):
        assert "TuringViTLayer" in model._no_split_modules
        assert "SiglipEncoderLayer" not in model._no_split_modules
    assert "TuringViTLayer" in names


@pytest.mark.parametrize("family", vlms.FAMILIES)
def test_a_second_tower_takes_the_place_of_the_first(family):
    first = swapped(family, "mean_pool")
    second = swap_vision_tower(
        first.model, cases.make_tower(), processor=first.processor, image_processor=tiny_processor()
    )
    assert second.newly_initialized == []
    check_count(second, 40, 21)


@pytest.mark.parametrize("family", ["internvl", "idefics3", "smolvlm"])
def test_what_only_the_package_can_load_is_not_exported_with_code(family, tmp_path):
    result = swapped(family)
    with pytest.raises(ValueError, match="Save it with save_pretrained"):
        export_for_hub(result.model, result.processor, tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("family", vlms.FAMILIES)
def test_native_models_are_what_they_were(family, tmp_path):
    vlm, _ = vlms.FAMILIES[family]()
    vlm.save_pretrained(tmp_path)
    loaded, report = type(vlm).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    tower = TOWERS[family]
    assert type(loaded.get_submodule(tower)) is type(vlm.get_submodule(tower))
    assert type(loaded.config.vision_config) is type(vlm.config.vision_config)


def test_tokens_that_are_not_as_many_as_features_are_refused(plain):
    cases.check_a_lost_token_is_told(plain, inputs_of(plain, [[(13, 29)]]))
