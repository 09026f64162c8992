# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the tests of swapped towers share: tiny VLMs as they come, a tower, and the laws that every family keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralProcessor,
    PixtralVisionConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    SiglipVisionConfig,
)
from transformers.utils import is_torchvision_available

from tests.integrations.tiny import pictures, tiny_config, tiny_processor, tiny_text_config
from turingvit_hf import TuringViTLlavaProcessor, TuringViTModel
from turingvit_hf.integrations.tower_swap import SwapResult


IMAGE, VIDEO, BREAK, END = 4, 5, 6, 7
# what a text is made of beside images
WORDS = [f"w{index}" for index in range(8, 99)]
# the parts of each message behind its role, and what an answer starts with
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}w30"
)


def tiny_tokenizer(image_token: str = "<image>") -> PreTrainedTokenizerFast:
    """A vocabulary of 99 words, special tokens for images and videos among them."""
    special = ["<pad>", "<unk>", "<s>", "</s>", image_token, "<video>", "[IMG_BREAK]", "[IMG_END]"]
    words = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        padding_side="left",
        additional_special_tokens=special[4:],
    )


def text_config(**changes):
    """A language model with room for a few images."""
    config = tiny_text_config()
    config.max_position_embeddings = changes.get("max_position_embeddings", 2048)
    return config


def clip_config(image_size: int = 16) -> CLIPVisionConfig:
    """A tiny CLIP tower, 24 wide, with a class token and patches of 4 pixels."""
    return CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=4,
        projection_dim=16,
    )


def needs_torchvision(what: str):
    """Skips the test where torchvision is not installed, and with it something of transformers that is made of it."""
    if not is_torchvision_available():
        pytest.skip(f"transformers has no {what} without torchvision")


def family_processor(
    kind: type, image_processor: Any, tokenizer: Any, make_video_processor: Callable[[], Any], **options: Any
) -> Any:
    """A processor of a family that has videos; where torchvision is missing, without its half for them.

    transformers' processors for videos are made of torchvision, those for images are not. But a processor of both
    cannot be built, saved or loaded without torchvision, so that the class is relaxed here: what it does with images
    and texts is its own, and everything about the model can be tested.
    """
    if is_torchvision_available():
        return kind(image_processor, tokenizer, make_video_processor(), **options)

    class ImagesOnly(kind):
        def check_argument_for_proper_class(self, argument_name, argument):
            if argument_name != "video_processor" or argument is not None:
                return super().check_argument_for_proper_class(argument_name, argument)
            return None

        def save_pretrained(self, save_directory, **kwargs):
            for part in (self.image_processor, self.tokenizer):
                part.save_pretrained(save_directory)

    return ImagesOnly(image_processor, tokenizer, None, **options)


def make_llava(**text) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A LLaVA-1.5 with a CLIP tower."""
    config = LlavaConfig(vision_config=clip_config(), text_config=text_config(**text), image_token_index=IMAGE)
    processor = LlavaProcessor(
        tiny_processor(), tiny_tokenizer(), patch_size=4, vision_feature_select_strategy="default"
    )
    return LlavaForConditionalGeneration(config), processor


def make_pixtral() -> tuple[PreTrainedModel, ProcessorMixin]:
    """A Pixtral, which is a LLaVA with a tower of native resolution and another processor."""
    config = LlavaConfig(
        vision_config=pixtral_config(),
        text_config=text_config(),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return LlavaForConditionalGeneration(config), pixtral_processor(1)


def make_mistral3(*, tie_word_embeddings: bool = False) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A Mistral3, which merges two by two tokens."""
    config = Mistral3Config(
        vision_config=pixtral_config(),
        text_config=text_config(),
        image_token_index=IMAGE,
        tie_word_embeddings=tie_word_embeddings,
    )
    return Mistral3ForConditionalGeneration(config), pixtral_processor(2)


def pixtral_config() -> PixtralVisionConfig:
    """A tiny Pixtral tower, 24 wide."""
    return PixtralVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=12,
        image_size=64,
        patch_size=4,
    )


def pixtral_processor(spatial_merge_size: int) -> ProcessorMixin:
    """Pixtral's processor; which image processor it came with does not matter for a swap.

    transformers has none without torchvision; there the one that a swap leaves stands for it.
    """
    if not is_torchvision_available():
        return TuringViTLlavaProcessor(
            tiny_processor(return_image_sizes=True, merge_size=spatial_merge_size),
            tiny_tokenizer("[IMG]"),
            image_token="[IMG]",
            image_break_token="[IMG_BREAK]",
            image_end_token="[IMG_END]",
        )
    return PixtralProcessor(
        tiny_processor(return_image_sizes=True),
        tiny_tokenizer("[IMG]"),
        patch_size=4,
        spatial_merge_size=spatial_merge_size,
    )


def make_llava_next() -> tuple[PreTrainedModel, ProcessorMixin]:
    """A LLaVA-NeXT with squares of 16 pixels."""
    pinpoints = [[16, 32], [32, 16], [32, 32]]
    config = LlavaNextConfig(
        vision_config=clip_config(), text_config=text_config(), image_token_index=IMAGE, image_grid_pinpoints=pinpoints
    )
    image_processor = LlavaNextImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=pinpoints
    )
    processor = LlavaNextProcessor(
        image_processor,
        tiny_tokenizer(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return LlavaNextForConditionalGeneration(config), processor


def make_llava_onevision() -> tuple[PreTrainedModel, ProcessorMixin]:
    """A LLaVA-OneVision with squares of 16 pixels."""
    pinpoints = [[rows * 16, columns * 16] for rows in range(1, 4) for columns in range(1, 4)]
    vision = SiglipVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text_config(),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_4",
    )
    size = {"height": 16, "width": 16}
    processor = family_processor(
        LlavaOnevisionProcessor,
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints),
        tiny_tokenizer(),
        lambda: LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
    )
    return LlavaOnevisionForConditionalGeneration(config), processor


def make_tower(**changes) -> TuringViTModel:
    """A tower of 32 by default, with its pooling head."""
    torch.manual_seed(1)
    return TuringViTModel(tiny_config(**{"pos_embed_rescale": None, **changes})).eval()


def tensors_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Copies of every parameter and buffer, by name."""
    return {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def inputs_of(
    result: SwapResult, images: list[list[tuple[int, int]]], *, image_token: str | None = None
) -> dict[str, torch.Tensor]:
    """A batch of texts, each with pictures of these (width, height)."""
    token = image_token or result.processor.image_token
    texts = [f"w9 {f'{token} w10 ' * len(sizes)}w{11 + len(sizes)}" for sizes in images]
    pixels = [pictures(sizes) for sizes in images]
    flat = any(images)
    return dict(
        result.processor(images=pixels if flat else None, text=texts, padding=True, return_tensors="pt")
        if flat
        else result.processor(text=texts, padding=True, return_tensors="pt")
    )


# (width, height) of the pictures of each text in a batch: none, one, two of unlike sizes, and a mixed batch
BATCHES = {
    "no image": [[]],
    "one image": [[(13, 29)]],
    "two images": [[(13, 29), (37, 9)]],
    "a mixed batch": [[(16, 16), (40, 21)], [(7, 50)]],
}


def check_only_these_changed(before: dict[str, torch.Tensor], result: SwapResult, tower: str) -> None:
    """Fail unless everything outside of the tower and the named parameters is what it was, bit for bit."""
    after = tensors_of(result.model)
    inside = f"{tower}."
    kept = {name for name in after if not name.startswith(inside)} - set(result.newly_initialized)
    assert kept
    assert {name for name in before if not name.startswith(inside)} == kept | set(result.newly_initialized)
    for name in kept:
        assert torch.equal(before[name], after[name]), name
    for name in result.newly_initialized:
        assert before[name].shape != after[name].shape, name


def check_tower_is(result: SwapResult, tower: TuringViTModel, name: str) -> None:
    """Fail unless what is in the VLM is the tower without its head: its weights, and no parameter beside them."""
    inside = dict(result.model.get_submodule(name).named_parameters())
    inside = {key.removeprefix("turingvit."): parameter for key, parameter in inside.items()}
    expected = {key: value for key, value in tower.named_parameters() if not key.startswith("head.")}
    assert inside.keys() == expected.keys()
    for key, parameter in inside.items():
        assert torch.equal(parameter, expected[key]), key


def check_comes_back(result: SwapResult, folder: Path, batches: list[dict[str, torch.Tensor]]) -> SwapResult:
    """The saved VLM, loaded by Auto classes, after failing unless its logits are identical.

    Where torchvision is missing a processor for videos can be neither saved nor loaded, and the old one is given back.
    """
    has_processor = getattr(result.processor, "video_processor", result.processor) is not None
    if has_processor:
        result.save(folder)
    else:
        result.model.save_pretrained(folder)
    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert type(model) is type(result.model)
    assert not any(report.values()), report
    processor = AutoProcessor.from_pretrained(folder) if has_processor else result.processor
    assert type(processor) is type(result.processor)
    for inputs in batches:
        with torch.no_grad():
            assert torch.equal(model(**inputs).logits, result.model(**inputs).logits)
    return SwapResult(model, processor, result.newly_initialized, result.image_tokens)


def check_processor_comes_back(result: SwapResult, folder: Path, calls: Callable[[SwapResult], list[dict]]) -> None:
    """Fail unless the saved processor, loaded by its Auto class, gives the same; skip where it cannot be saved."""
    if getattr(result.processor, "video_processor", result.processor) is None:
        needs_torchvision("processor for images and videos that could be saved and loaded")
    result.processor.save_pretrained(folder)
    loaded = AutoProcessor.from_pretrained(folder)
    assert type(loaded) is type(result.processor)
    again = calls(SwapResult(result.model, loaded, result.newly_initialized, result.image_tokens))
    for second, first in zip(again, calls(result), strict=True):
        assert second.keys() == first.keys()
        assert all(torch.equal(torch.as_tensor(second[name]), torch.as_tensor(first[name])) for name in first)


def check_a_lost_token_is_told(result: SwapResult, inputs: dict[str, torch.Tensor]) -> None:
    """Fail unless the model refuses a text with one image token fewer than there are features, with words."""
    shape = inputs["input_ids"].shape
    place = int((inputs["input_ids"][0] == IMAGE).nonzero()[0])
    without = {
        name: torch.cat([value[:, :place], value[:, place + 1 :]], dim=1) if value.shape[:2] == shape else value
        for name, value in inputs.items()
    }
    with torch.no_grad(), pytest.raises(ValueError, match=r"features and image tokens do not match"):
        result.model(**without)


def check_gradients(result: SwapResult, inputs: dict[str, torch.Tensor], unused: Callable[[str], bool]) -> None:
    """Fail unless one backward pass reaches every parameter, those that `unused` names aside."""
    model = result.model.train()
    model.zero_grad()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in without if not unused(name)] == []
    model.eval()


def check_generates(result: SwapResult, inputs: dict[str, torch.Tensor]) -> None:
    """Fail unless greedy steps with a cache are the arg max of one forward without."""
    length = inputs["input_ids"].shape[1]
    generated = result.model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert generated.shape[1] == length + 4
    new = torch.ones_like(generated[:, length:])
    whole = inputs | {"input_ids": generated, "attention_mask": torch.cat([inputs["attention_mask"], new], dim=1)}
    # no image token may come out of a random model, or there would be more of them than features
    assert not (generated[:, length:] == IMAGE).any()
    with torch.no_grad():
        predicted = result.model(**whole).logits[:, length - 1 : -1].argmax(-1)
    assert torch.equal(generated[:, length:], predicted)
