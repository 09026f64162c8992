# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tower in LLaVA-1.5, Pixtral, Mistral3, LLaVA-NeXT and LLaVA-OneVision: comes back, trains, generates, counts."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor, CLIPVisionConfig

from tests.integrations import tower_swap_cases as cases
from tests.integrations.tiny import PATCH, pictures, tiny_processor
from turingvit_hf import TuringViTLlavaProcessor, TuringViTModel, TuringViTReducedModel
from turingvit_hf.integrations.tower_swap import SwapResult, swap_vision_tower


TOWER = "model.vision_tower"
FAMILIES = {
    "llava": cases.make_llava,
    "pixtral": cases.make_pixtral,
    "mistral3": cases.make_mistral3,
    "llava_next": cases.make_llava_next,
    "llava_onevision": cases.make_llava_onevision,
}
REDUCTIONS = [None, "mean_pool", "pixel_unshuffle"]
SQUARES = ("llava_next", "llava_onevision")


def swapped(family: str, token_reduction: str | None = None, **options) -> SwapResult:
    """A random VLM of the family, in evaluation mode, with a tower in it."""
    torch.manual_seed(0)
    vlm, processor = FAMILIES[family]()
    options = {"image_processor": tiny_processor()} | options
    tower = options.pop("tower", None) or cases.make_tower()
    return swap_vision_tower(vlm.eval(), tower, processor=processor, token_reduction=token_reduction, **options)


@pytest.fixture(scope="module", params=[(f, r) for f in FAMILIES for r in REDUCTIONS], ids=lambda p: f"{p[0]}-{p[1]}")
def result(request) -> SwapResult:
    """Each family with each reduction; tests leave it as it is."""
    return swapped(*request.param)


@pytest.fixture(scope="module", params=FAMILIES)
def plain(request) -> SwapResult:
    """Each family without reduction."""
    return swapped(request.param)


@pytest.mark.parametrize("token_reduction", REDUCTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_but_tower_and_named_parameters_is_bit_identical(family, token_reduction):
    torch.manual_seed(0)
    vlm, processor = FAMILIES[family]()
    before, kind = cases.tensors_of(vlm), type(vlm)
    tower = cases.make_tower()
    tower(torch.rand(1, 3, 8, 8), output_hidden_states=True)  # with the hooks of output capture in it
    weights = cases.tensors_of(tower)
    settings_before = processor.to_dict()
    result = swap_vision_tower(
        vlm, tower, processor=processor, image_processor=tiny_processor(), token_reduction=token_reduction
    )
    assert result.model is vlm
    assert type(result.model) is kind
    cases.check_only_these_changed(before, result, TOWER)
    cases.check_tower_is(result, tower, TOWER)
    # what was given is as it was
    assert processor.to_dict() == settings_before
    assert tower.config.vision_use_head
    assert tower.config.image_size == 16
    after = cases.tensors_of(tower)
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tower_of_the_old_width_initializes_nothing_anew(family):
    tower = cases.make_tower(hidden_size=24, num_attention_heads=2)
    vlm, processor = FAMILIES[family]()
    before = cases.tensors_of(vlm)
    result = swap_vision_tower(vlm, tower, processor=processor, image_processor=tiny_processor())
    assert result.newly_initialized == []
    cases.check_only_these_changed(before, result, TOWER)


def test_nothing_stands_between_tower_and_projector(result):
    tower = result.model.get_submodule(TOWER)
    assert type(tower) in (TuringViTModel, TuringViTReducedModel)
    inner = getattr(tower, "turingvit", tower)
    assert inner.head is None
    assert {id(p) for p in tower.parameters()} == {id(p) for p in inner.parameters()}
    parts = {name.removeprefix("model.").split(".")[0] for name, _ in result.model.named_parameters()}
    assert parts <= {"vision_tower", "multi_modal_projector", "language_model", "lm_head", "image_newline"}
    # what the projector reads is what the tower gives
    seen = {}
    handles = [
        tower.register_forward_hook(lambda _, __, output: seen.update(given=output.last_hidden_state)),
        result.model.model.multi_modal_projector.register_forward_pre_hook(lambda _, args: seen.update(read=args[0])),
    ]
    with torch.no_grad():
        result.model(**cases.inputs_of(result, [[(16, 16)]]))
    for handle in handles:
        handle.remove()
    assert torch.equal(seen["read"].flatten(), seen["given"].flatten())


def test_comes_back_with_identical_logits(result, tmp_path):
    batches = [cases.inputs_of(result, images) for images in cases.BATCHES.values()]
    cases.check_comes_back(result, tmp_path / "vlm", batches)


def test_the_processor_comes_back(result, tmp_path):
    cases.check_processor_comes_back(
        result, tmp_path, lambda result: [cases.inputs_of(result, images) for images in cases.BATCHES.values()]
    )


@pytest.mark.parametrize("images", cases.BATCHES.values(), ids=cases.BATCHES)
def test_generates_as_it_predicts(result, images):
    cases.check_generates(result, cases.inputs_of(result, images))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("token_reduction", REDUCTIONS)
def test_a_backward_pass_reaches_every_parameter(family, token_reduction):
    result = swapped(family, token_reduction)
    cases.check_gradients(result, cases.inputs_of(result, cases.BATCHES["a mixed batch"]), lambda name: False)


def test_an_image_is_what_it_is_alone(plain):
    """The order of a batch, and what else is in it, change nothing."""
    with torch.no_grad():
        both = plain.model(**cases.inputs_of(plain, [[(13, 29)], [(13, 29)]])).logits
        alone = plain.model(**cases.inputs_of(plain, [[(13, 29)]])).logits
    torch.testing.assert_close(both[1], alone[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[0], alone[0], atol=1e-5, rtol=1e-4)


def counted(result: SwapResult, width: int, height: int) -> tuple[int, dict[str, torch.Tensor]]:
    """How many image tokens the processor emits for a picture, and the inputs of the model."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    text = f"w9 {result.processor.image_token} w10"
    inputs = result.processor(images=[image], text=[text], return_tensors="pt")
    return int((inputs["input_ids"] == cases.IMAGE).sum()), inputs


def check_count(result: SwapResult, width: int, height: int) -> None:
    """Fail unless the tokens in the text are as many as the features behind tower and projector."""
    num_tokens, inputs = counted(result, width, height)
    names = ("pixel_values", "image_sizes", "batch_num_images")
    with torch.no_grad():
        features = result.model.get_image_features(**{k: inputs[k] for k in names if k in inputs}).pooler_output
    assert num_tokens == sum(len(image) for image in features)
    assert num_tokens <= result.image_tokens


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(1, 110), height=st.integers(1, 110))
def test_as_many_image_tokens_as_features(plain, width, height):
    check_count(plain, width, height)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(1, 110), height=st.integers(1, 110))
def test_as_many_image_tokens_as_merged_features(result, width, height):
    check_count(result, width, height)


@settings(max_examples=200)
@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
@pytest.mark.parametrize("token_reduction", REDUCTIONS)
def test_tokens_of_any_size_without_a_pixel(token_reduction, width, height):
    processor = processor_for(token_reduction)
    (tokens,) = processor._get_num_multimodal_tokens([(height, width)])["num_image_tokens"]
    merge = 1 if token_reduction is None else 2
    grid = processor.image_processor.get_number_of_image_patches(height, width)
    assert tokens * merge**2 == grid
    assert 1 <= tokens <= processor.image_processor.max_patches // merge**2


PROCESSORS: dict[str | None, TuringViTLlavaProcessor] = {}


def processor_for(token_reduction: str | None) -> TuringViTLlavaProcessor:
    """The processor of a LLaVA, made once."""
    if token_reduction not in PROCESSORS:
        PROCESSORS[token_reduction] = swapped("llava", token_reduction).processor
    return PROCESSORS[token_reduction]


def test_tokens_are_told_as_they_are_counted():
    result = swapped("llava")
    sizes = [(29, 13), (9, 37), (64, 64)]
    told = result.processor._get_num_multimodal_tokens(sizes)["num_image_tokens"]
    assert told == [counted(result, width, height)[0] for height, width in sizes]


def test_a_video_in_llava_onevision():
    cases.needs_torchvision("processor for videos")
    result = swapped("llava_onevision")
    clip = np.stack([np.asarray(picture) for picture in pictures([(40, 24)] * 3)])
    processor = result.processor
    text = f"w9 {processor.video_token} w10"
    inputs = dict(processor(videos=[clip], text=[text], return_tensors="pt"))
    num_tokens = int((inputs["input_ids"] == cases.VIDEO).sum())
    assert num_tokens == 3 * 2 * 2 + 1
    cases.check_generates(result, inputs)
    # an image and a video in one text
    both = f"w9 {processor.image_token} {processor.video_token} w10"
    inputs = dict(processor(images=pictures([(20, 30)]), videos=[clip], text=[both], return_tensors="pt"))
    cases.check_generates(result, inputs)
    cases.check_gradients(result, inputs, lambda name: False)


@pytest.mark.parametrize("token_reduction", ["mean_pool", "pixel_unshuffle"])
def test_a_video_with_fewer_tokens(token_reduction):
    cases.needs_torchvision("processor for videos")
    result = swapped("llava_onevision", token_reduction, image_size=24)
    clip = np.stack([np.asarray(picture) for picture in pictures([(40, 24)] * 3)])
    inputs = dict(result.processor(videos=[clip], text=[f"{result.processor.video_token} w10"], return_tensors="pt"))
    # 24 pixels are three tokens to a side, and the video's own pooling makes two of them
    assert int((inputs["input_ids"] == cases.VIDEO).sum()) == 3 * 2 * 2 + 1
    cases.check_generates(result, inputs)


@pytest.mark.parametrize("token_reduction", REDUCTIONS)
@pytest.mark.parametrize("family", ["llava", "pixtral", "mistral3"])
def test_native_resolution_is_kept(family, token_reduction):
    result = swapped(family, token_reduction)
    _, inputs = counted(result, 48, 32)
    assert inputs["image_sizes"].tolist() == [[32, 48]]
    assert inputs["pixel_values"].shape[-2:] == (32, 48)


@pytest.mark.parametrize("family", ["llava", "pixtral", "mistral3"])
def test_images_have_no_more_tokens_than_were_asked_for(family):
    result = swapped(family, max_image_tokens=6)
    assert counted(result, 500, 300)[0] <= 6
    assert result.image_tokens == (6 if family == "llava" else 12)


@pytest.mark.parametrize("family", SQUARES)
@pytest.mark.parametrize(("token_reduction", "expected"), [(None, 16), ("mean_pool", 16)])
def test_squares_keep_their_side_where_tokens_fill_it(family, token_reduction, expected):
    assert swapped(family, token_reduction).model.config.vision_config.image_size == expected


@pytest.mark.parametrize("family", SQUARES)
def test_squares_of_another_side(family):
    config = swapped(family, image_size=24).model.config
    assert config.vision_config.image_size == 24
    assert [24, 48] in config.image_grid_pinpoints
    assert all(side % 24 == 0 for pinpoint in config.image_grid_pinpoints for side in pinpoint)


def test_pixels_are_prepared_as_the_tower_was_trained():
    own = tiny_processor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    for family in FAMILIES:
        result = swapped(family, image_processor=own)
        assert [*result.processor.image_processor.image_mean] == [0.1, 0.2, 0.3]
        assert [*result.processor.image_processor.image_std] == [0.4, 0.5, 0.6]
        pixels = counted(result, 16, 16)[1]["pixel_values"]
        black = torch.tensor([-0.25, -0.4, -0.5])
        assert torch.allclose(pixels.amin((-1, -2)).reshape(-1, 3)[0], black, atol=1e-6)


def test_gathered_names_are_those_of_the_new_tower(plain):
    """What FSDP wraps and device maps keep together is named after modules that are there."""
    names = {type(module).__name__ for module in plain.model.modules()}
    for model in (plain.model, plain.model.model):
        assert "TuringViTLayer" in model._no_split_modules
        assert set(model._no_split_modules) <= names


def test_precision_and_mode_follow_the_old_tower():
    vlm, processor = cases.make_llava()
    vlm = vlm.to(torch.bfloat16).eval()
    result = swap_vision_tower(vlm, cases.make_tower().train(), processor=processor, image_processor=tiny_processor())
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.bfloat16}
    assert not any(module.training for module in result.model.modules())
    inputs = cases.inputs_of(result, [[(13, 29)]])
    assert result.model(**inputs).logits.isfinite().all()


def test_tied_embeddings_stay_tied(tmp_path):
    vlm, processor = cases.make_mistral3(tie_word_embeddings=True)
    result = swap_vision_tower(vlm, cases.make_tower(), processor=processor, image_processor=tiny_processor())
    result.model.eval()
    assert result.model.lm_head.weight is result.model.model.language_model.embed_tokens.weight
    again = cases.check_comes_back(result, tmp_path / "vlm", [cases.inputs_of(result, [[(13, 29)]])])
    assert again.model.lm_head.weight is again.model.model.language_model.embed_tokens.weight


def test_a_frozen_projector_stays_frozen():
    vlm, processor = cases.make_llava()
    vlm.requires_grad_(False)
    result = swap_vision_tower(vlm, cases.make_tower(), processor=processor, image_processor=tiny_processor())
    projector = result.model.model.multi_modal_projector
    assert not any(parameter.requires_grad for parameter in projector.parameters())


def test_new_weights_start_small_and_differ(plain):
    parameters = dict(plain.model.named_parameters())
    for name in plain.newly_initialized:
        if parameters[name].dim() == 2:
            assert 0.01 < float(parameters[name].detach().std()) < 0.03, name


def test_a_second_swap_takes_the_first_ones_processor(tmp_path):
    first = swapped("llava", "mean_pool")
    first.save(tmp_path / "first")
    processor = AutoProcessor.from_pretrained(tmp_path / "first")
    second = swap_vision_tower(first.model, cases.make_tower(), processor=processor, image_processor=tiny_processor())
    assert second.newly_initialized == []
    assert type(second.model.model.vision_tower) is TuringViTModel
    cases.check_comes_back(second, tmp_path / "second", [cases.inputs_of(second, [[(13, 29)]])])


def test_options_of_a_call_do_not_disturb_the_count():
    result = swapped("llava")
    inputs = result.processor(
        images=pictures([(50, 40), (30, 90)]),
        text=["<image> <image> w9"],
        return_tensors="pt",
        images_kwargs={"max_patches": 20},
    )
    sizes = inputs["image_sizes"] // PATCH
    assert (sizes.prod(-1) <= 20).all()
    assert int((inputs["input_ids"] == cases.IMAGE).sum()) == int(sizes.prod(-1).sum())


def test_ordinary_llavas_keep_their_own_processor(tmp_path):
    """The registration of our processor changes nothing for a LLaVA that is not ours."""
    vlm, processor = cases.make_llava()
    assert type(vlm.config.vision_config) is CLIPVisionConfig
    vlm.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is type(processor)


def test_tokens_that_are_not_as_many_as_features_are_refused(plain):
    cases.check_a_lost_token_is_told(plain, cases.inputs_of(plain, [[(13, 29)]]))
