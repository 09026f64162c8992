# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tower in Qwen2.5-VL, Qwen3-VL and its MoE: comes back, trains, generates, counts; images, videos, positions."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2_5_VLVisionConfig,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.vision_utils import get_vision_position_ids

from tests.integrations import tower_swap_cases as cases
from tests.integrations.tiny import PATCH, pictures, tiny_processor
from turingvit_hf import TuringViTQwenVisionModel
from turingvit_hf.integrations.tower_swap import SwapResult, swap_vision_tower
from turingvit_hf.modeling.modeling_qwen_vision import block_order


TOWER = "model.visual.turingvit"
OLD_PATCH = 2
UNIT = 2 * PATCH
TEXT = {
    "vocab_size": 99,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
IDS = {"image_token_id": 4, "video_token_id": 5, "vision_start_token_id": 6, "vision_end_token_id": 7}
VISION = {"hidden_size": 24, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 16, "patch_size": OLD_PATCH}
SIZE = {"shortest_edge": 4 * (2 * OLD_PATCH) ** 2, "longest_edge": 30 * (2 * OLD_PATCH) ** 2}


def tokenizer() -> PreTrainedTokenizerFast:
    """99 words, Qwen's special tokens among them; times in a text, such as "<0.5 seconds>", are unknown to it."""
    vision = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    words = {word: index for index, word in enumerate(["<pad>", "<unk>", "<s>", "</s>", *vision, *cases.WORDS])}
    words_of = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    words_of.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words_of,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        padding_side="left",
        additional_special_tokens=vision,
    )


def make_qwen2_5():
    """A Qwen2.5-VL with patches of 2 pixels and 2 frames."""
    config = Qwen2_5_VLConfig(
        vision_config=Qwen2_5_VLVisionConfig(depth=2, window_size=8, fullatt_block_indexes=[1], **VISION).to_dict(),
        text_config=TEXT | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}},
        **IDS,
    )
    patches = {"patch_size": OLD_PATCH, "size": SIZE}
    processor = cases.family_processor(
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor(**patches),
        tokenizer(),
        lambda: Qwen2VLVideoProcessor(cap_pixels_per_frame=True, **patches),
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def make_qwen3():
    """A Qwen3-VL that reads features after the first and the third of its four layers."""
    vision = VISION | {"depth": 4, "deepstack_visual_indexes": [0, 2], "num_position_embeddings": 16}
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        vision_config=vision,
        text_config=TEXT | {"head_dim": 8, "rope_parameters": rope},
        tie_word_embeddings=False,
        **IDS,
    )
    size = {"shortest_edge": 8 * (2 * OLD_PATCH) ** 2, "longest_edge": 240 * (2 * OLD_PATCH) ** 2}
    processor = cases.family_processor(
        Qwen3VLProcessor,
        Qwen2VLImageProcessor(patch_size=OLD_PATCH, size=SIZE),
        tokenizer(),
        lambda: Qwen3VLVideoProcessor(patch_size=OLD_PATCH, size=size, cap_pixels_per_frame=False),
    )
    return Qwen3VLForConditionalGeneration(config), processor


def make_qwen3_moe():
    """A Qwen3-VL-MoE with four experts, two of them for a token, in each layer."""
    _, processor = make_qwen3()
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "decoder_sparse_step": 1}
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    config = Qwen3VLMoeConfig(
        vision_config=VISION | {"depth": 4, "deepstack_visual_indexes": [0, 2], "num_position_embeddings": 16},
        text_config=TEXT | experts | {"head_dim": 8, "rope_parameters": rope},
        tie_word_embeddings=False,
        **IDS,
    )
    return Qwen3VLMoeForConditionalGeneration(config), processor


FAMILIES = {"qwen2_5_vl": make_qwen2_5, "qwen3_vl": make_qwen3, "qwen3_vl_moe": make_qwen3_moe}


def swapped(family: str, **options) -> SwapResult:
    """A random VLM of the family, in evaluation mode, with a tower in it."""
    torch.manual_seed(0)
    vlm, processor = FAMILIES[family]()
    options = {"image_processor": tiny_processor()} | options
    return swap_vision_tower(vlm.eval(), cases.make_tower(), processor=processor, **options)


@pytest.fixture(scope="module", params=FAMILIES)
def result(request) -> SwapResult:
    """Each family; tests leave it as it is."""
    return swapped(request.param)


def clip(num_frames: int, height: int, width: int) -> np.ndarray:
    """Noise, (F, H, W, 3)."""
    return np.random.default_rng(1).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def video_inputs(result: SwapResult, *, num_frames: int = 3) -> dict[str, torch.Tensor]:
    """A text with a picture and a video, every frame of which is taken."""
    cases.needs_torchvision("processor for videos")
    # Qwen3-VL's processor writes start and end around each frame itself
    texts = [f"w9 {result.processor.image_token} w10 {result.processor.video_token} w11"]
    return dict(
        result.processor(
            images=pictures([(13, 29)]),
            text=texts,
            videos=[clip(num_frames, 24, 40)],
            video_metadata=[{"total_num_frames": num_frames, "fps": 2.0, "frames_indices": [*range(num_frames)]}],
            do_sample_frames=False,
            return_tensors="pt",
        )
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", [32, 24])
def test_everything_but_tower_and_named_parameters_is_bit_identical(family, width):
    torch.manual_seed(0)
    vlm, processor = FAMILIES[family]()
    before = {
        name: tensor
        for name, tensor in cases.tensors_of(vlm).items()
        if not name.startswith("model.visual.") or "merger" in name
    }
    tower = cases.make_tower(hidden_size=width, num_attention_heads=width // 8)
    settings_before, kind = processor.to_dict(), type(vlm)
    result = swap_vision_tower(vlm, tower, processor=processor, image_processor=tiny_processor())
    assert type(result.model) is kind
    assert type(vlm.model.visual) is TuringViTQwenVisionModel
    cases.check_only_these_changed(before, result, TOWER)
    cases.check_tower_is(result, tower, TOWER)
    assert processor.to_dict() == settings_before
    if width == 24:
        assert result.newly_initialized == []
    else:
        assert all(name.startswith("model.visual.") for name in result.newly_initialized)
        kept = {name for name in before if "merger" in name} - set(result.newly_initialized)
        # what is as wide as the language model
        assert all(before[name].shape == (16,) for name in kept)


def test_nothing_stands_between_tower_and_merger(result):
    visual = result.model.model.visual
    parts = {name.split(".")[0] for name, _ in visual.named_parameters()}
    assert parts <= {"turingvit", "merger", "deepstack_merger_list"}
    assert visual.turingvit.head is None
    seen = {}
    handles = [
        visual.turingvit.register_forward_hook(lambda _, __, output: seen.update(given=output.last_hidden_state)),
        visual.merger.register_forward_pre_hook(lambda _, args: seen.update(read=args[0])),
    ]
    inputs = cases.inputs_of(result, [[(16, 40)]])
    with torch.no_grad():
        result.model(**inputs)
    for handle in handles:
        handle.remove()
    assert torch.equal(seen["read"], seen["given"][block_order(inputs["image_grid_thw"], 2)])


@pytest.mark.parametrize("merge_size", [1, 2, 3])
def test_blocks_are_in_the_order_of_qwen(merge_size):
    """As transformers tells the row and the column of each patch, image by image and frame by frame."""
    grid = torch.tensor([[1, 6, 12], [3, 12, 6], [1, 6, 6]])
    rows, columns = get_vision_position_ids(grid, merge_size).unbind(-1)
    widths = grid[:, 2].repeat_interleave(grid.prod(-1))
    frames = torch.cat([torch.arange(f).repeat_interleave(h * w) * h * w for f, h, w in grid.tolist()])
    starts = (grid.prod(-1).cumsum(0) - grid.prod(-1)).repeat_interleave(grid.prod(-1))
    assert torch.equal(block_order(grid, merge_size), starts + frames + rows * widths + columns)


def test_pixels_reach_the_tower_as_the_image_has_them(result):
    """What the tower sees of a picture is what its own processor gives of the picture in that size."""
    picture = pictures([(5 * UNIT, 3 * UNIT)])
    inputs = result.processor(text=[result.processor.image_token], images=picture, return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 10]]
    expected = tiny_processor(do_pack=True)(picture, return_tensors="pt")
    seen = {}
    handle = result.model.model.visual.turingvit.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(pixels=args[0], grid=kwargs["image_grid_thw"]), with_kwargs=True
    )
    with torch.no_grad():
        result.model(**inputs)
    handle.remove()
    assert torch.equal(seen["grid"], expected["image_grid_thw"])
    torch.testing.assert_close(seen["pixels"], expected["pixel_values"], atol=1e-6, rtol=0)


def test_comes_back_with_identical_logits(result, tmp_path):
    batches = [cases.inputs_of(result, images) for images in cases.BATCHES.values()]
    loaded = cases.check_comes_back(result, tmp_path / "vlm", batches)
    visual = loaded.model.model.visual
    assert visual.config is loaded.model.config.vision_config
    assert visual.turingvit.config is visual.config.tower_config


def test_the_processor_comes_back(result, tmp_path):
    cases.check_processor_comes_back(
        result,
        tmp_path,
        lambda result: [
            *(cases.inputs_of(result, images) for images in cases.BATCHES.values()),
            video_inputs(result),
        ],
    )


def test_comes_back_with_identical_logits_of_a_video(result, tmp_path):
    cases.check_comes_back(result, tmp_path / "vlm", [video_inputs(result)])


@pytest.mark.parametrize("images", [*cases.BATCHES, "video"])
def test_generates_as_it_predicts(result, images):
    inputs = video_inputs(result) if images == "video" else cases.inputs_of(result, cases.BATCHES[images])
    # a random model might say an image token, for which there is no feature
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    generated = result.model.generate(**inputs, **options, suppress_tokens=[4, 5])
    length = inputs["input_ids"].shape[1]
    new = torch.ones_like(generated[:, length:])
    assert new.shape[1] == 4
    whole = inputs | {
        "input_ids": generated,
        "attention_mask": torch.cat([inputs["attention_mask"], new], dim=1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], 0 * new], dim=1),
    }
    with torch.no_grad():
        logits = result.model(**whole).logits[:, length - 1 : -1]
    logits[..., [4, 5]] = float("-inf")
    assert torch.equal(generated[:, length:], logits.argmax(-1))


@pytest.mark.parametrize("images", ["a mixed batch", "video"])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_backward_pass_reaches_every_parameter(family, checkpointed, images):
    result = swapped(family)
    inputs = video_inputs(result) if images == "video" else cases.inputs_of(result, cases.BATCHES[images])
    if checkpointed:
        result.model.activation_checkpointing_enable()
    cases.check_gradients(result, inputs, lambda name: False)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(4, 200), height=st.integers(4, 200))
def test_an_image_has_as_many_tokens_as_features(result, width, height):
    token = result.processor.image_token
    picture = Image.new("RGB", (width, height))
    inputs = result.processor(images=[picture], text=[f"w9 {token} w10"], return_tensors="pt")
    number = int((inputs["input_ids"] == 4).sum())
    with torch.no_grad():
        features = result.model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    assert features.pooler_output[0].shape == (number, 16)
    assert number <= result.image_tokens
    counted = result.processor._get_num_multimodal_tokens(image_sizes=[(height, width)])
    assert counted["num_image_tokens"] == [number]


def test_positions_agree_with_the_grid(result):
    """Rows and columns of the tokens that the language model sees are those of the blocks in the picture."""
    inputs = cases.inputs_of(result, [[(5 * UNIT, 3 * UNIT)]])
    positions, _ = result.model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], inputs["image_grid_thw"]
    )
    image = positions[:, 0, inputs["input_ids"][0] == 4]
    time, rows, columns = image - image[:, :1]
    assert time.tolist() == [0] * 15
    assert rows.tolist() == [row for row in range(3) for _ in range(5)]
    assert columns.tolist() == [*range(5)] * 3


def test_a_video_keeps_its_tokens_and_its_time(result):
    """Half the frames, one where Qwen has two: as many tokens and as far apart in time as with its own tower."""
    cases.needs_torchvision("processor for videos")
    make = {"Qwen2_5_VLProcessor": make_qwen2_5, "Qwen3VLProcessor": make_qwen3}[type(result.processor).__name__]
    _, old = make()
    call = {
        "text": [f"w9 {result.processor.video_token} w11"],
        "videos": [clip(16, 40, 40)],
        "video_metadata": [{"total_num_frames": 16, "fps": 4.0}],
        "do_sample_frames": True,
        "return_tensors": "pt",
    }
    before, after = old(**call, fps=2), result.processor(**call, fps=1)
    assert before["video_grid_thw"].tolist() == [[4, *before["video_grid_thw"][0, 1:].tolist()]]
    assert after["video_grid_thw"][0, 0] == 4
    assert after.get("second_per_grid_ts") == before.get("second_per_grid_ts")
    if "second_per_grid_ts" not in before:
        assert result.processor.video_processor.fps == old.video_processor.fps / 2
    with torch.no_grad():
        features = result.model.model.get_video_features(after["pixel_values_videos"], after["video_grid_thw"])
    assert len(features.pooler_output[0]) == int((after["input_ids"] == 5).sum())


def test_frames_of_a_video_are_encoded_one_by_one(result):
    inputs = video_inputs(result)
    grid, pixels = inputs["video_grid_thw"], inputs["pixel_values_videos"]
    frame = grid.clone()
    frame[:, 0] = 1
    with torch.no_grad():
        together = result.model.model.get_video_features(pixels, grid).pooler_output[0]
        alone = [
            result.model.model.get_image_features(part, frame).pooler_output[0] for part in pixels.chunk(grid[0, 0])
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_qwen3_reads_as_deep_in_the_tower_as_in_its_own():
    result = swapped("qwen3_vl")
    visual = result.model.model.visual
    # after 1 and 3 of 4 layers, after 1 and 2 of 3
    assert list(visual.config.deepstack_visual_indexes) == [0, 1]
    inputs = cases.inputs_of(result, [[(16, 24)]])
    with torch.no_grad():
        outputs = visual(inputs["pixel_values"], inputs["image_grid_thw"], output_hidden_states=True)
        expected = visual.deepstack_merger_list[1](outputs.hidden_states[2])
    assert torch.equal(outputs.deepstack_features[1], expected)
    vlm, processor = make_qwen3()
    tower = cases.make_tower(num_hidden_layers=1, layer_types=["full_attention"])
    with pytest.raises(ValueError, match="no 2 different layers"):
        swap_vision_tower(vlm, tower, processor=processor, image_processor=tiny_processor())


def test_a_second_tower_takes_the_place_of_the_first():
    result = swapped("qwen3_vl")
    merger = result.model.model.visual.merger.linear_fc1.weight
    again = swap_vision_tower(
        result.model, cases.make_tower(), processor=result.processor, image_processor=tiny_processor()
    )
    assert again.newly_initialized == []
    assert again.model.model.visual.merger.linear_fc1.weight is merger
    assert again.processor.to_dict() == result.processor.to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_reduction": "mean_pool"}, "one token of 2 x 2 patches already"),
        ({"image_size": 16}, "keeps each image's own resolution"),
        ({"max_image_tokens": 100_000}, "must be from 1 to 2304"),
        ({"max_image_tokens": 0}, "must be from 1 to 2304"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_has_no_meaning_is_refused(family, options, message):
    vlm, processor = FAMILIES[family]()
    before = cases.tensors_of(vlm)
    with pytest.raises(ValueError, match=message):
        swap_vision_tower(vlm, cases.make_tower(), processor=processor, image_processor=tiny_processor(), **options)
    after = cases.tensors_of(vlm)
    assert before.keys() == after.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_native_models_are_what_they_were(family, tmp_path):
    torch.manual_seed(0)
    vlm, _ = FAMILIES[family]()
    vlm.save_pretrained(tmp_path)
    loaded, report = type(vlm).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert type(loaded.model.visual) is type(vlm.model.visual)
    assert type(loaded.config.vision_config) is type(vlm.config.vision_config)


def test_tokens_that_are_not_as_many_as_features_are_refused(result):
    cases.check_a_lost_token_is_told(result, cases.inputs_of(result, [[(13, 29)]]))
