# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""An unmodified LLaVA of transformers on a TuringViT: trains, generates, comes back, and takes any resolution."""

import pytest
import torch
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration

from tests.integrations.tiny import IMAGE_TOKEN, PATCH, VOCABULARY, tiny_config, tiny_llava
from turingvit_hf import TuringViTModel, TuringViTReducedConfig


@pytest.fixture
def llava() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    return tiny_llava(pos_embed_rescale=None).eval()


def text_after(num_image_tokens: int) -> torch.Tensor:
    """A text (1, n) that begins with its image."""
    return torch.cat((torch.full((num_image_tokens,), IMAGE_TOKEN), torch.randint(4, VOCABULARY, (6,))))[None]


def same_size_batch() -> dict[str, torch.Tensor]:
    """Two texts, each with an image of 2 times 3 patches."""
    input_ids = torch.cat([text_after(6), text_after(6)])
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "pixel_values": torch.rand(2, 3, 2 * PATCH, 3 * PATCH),
    }


def two_sizes() -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """One text with two images of unlike sizes, padded with noise; and each image alone, in its own size."""
    sizes = [(2 * PATCH, 5 * PATCH), (3 * PATCH, PATCH)]
    frame = torch.rand(2, 3, 3 * PATCH, 5 * PATCH)
    input_ids = torch.cat([text_after(10), text_after(3)], dim=1)
    both = {"input_ids": input_ids, "pixel_values": frame, "image_sizes": torch.tensor(sizes)}
    alone = [
        {"pixel_values": image[None, :, :height, :width]} for image, (height, width) in zip(frame, sizes, strict=True)
    ]
    return both, alone


def loss_and_gradients(model, inputs):
    model.zero_grad()
    loss = model(**inputs, labels=inputs["input_ids"]).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}


def test_nothing_stands_between_tower_and_projector(llava):
    assert type(llava.model.vision_tower) is TuringViTModel
    parts = {name.removeprefix("model.").split(".")[0] for name, _ in llava.named_parameters()}
    assert parts == {"vision_tower", "multi_modal_projector", "language_model", "lm_head"}
    assert not [name for name, _ in llava.model.vision_tower.named_parameters() if name.startswith("head.")]
    projector = {name: tuple(p.shape) for name, p in llava.model.multi_modal_projector.named_parameters()}
    assert projector == {
        "linear_1.weight": (16, 32),
        "linear_1.bias": (16,),
        "linear_2.weight": (16, 16),
        "linear_2.bias": (16,),
    }


def test_the_language_model_sees_the_towers_last_tokens(llava):
    inputs = same_size_batch()
    with torch.no_grad():
        features = llava.get_image_features(inputs["pixel_values"]).pooler_output
        tokens = llava.model.vision_tower(inputs["pixel_values"]).last_hidden_state
        expected = llava.model.multi_modal_projector(tokens)
    assert torch.equal(torch.cat([*features]), expected.flatten(0, 1))


@pytest.mark.parametrize("inputs_of", [same_size_batch, lambda: two_sizes()[0]], ids=["one size", "two sizes"])
def test_every_parameter_gets_a_gradient(llava, inputs_of):
    _, gradients = loss_and_gradients(llava.train(), inputs_of())
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []


def test_images_of_two_sizes_are_what_they_are_alone(llava):
    both, alone = two_sizes()
    with torch.no_grad():
        features = llava.get_image_features(both["pixel_values"], image_sizes=both["image_sizes"]).pooler_output
        expected = [llava.get_image_features(**image).pooler_output[0] for image in alone]
    assert [len(x) for x in features] == [10, 3]
    for found, own in zip(features, expected, strict=True):
        torch.testing.assert_close(found, own)


def test_image_sizes_as_a_list(llava):
    both, _ = two_sizes()
    with torch.no_grad():
        expected = llava(**both).logits
        assert torch.equal(llava(**both | {"image_sizes": both["image_sizes"].tolist()}).logits, expected)


def test_what_fills_the_frame_is_not_seen(llava):
    both, _ = two_sizes()
    with torch.no_grad():
        expected = llava(**both).logits
        both["pixel_values"][0, :, 2 * PATCH :] = 7.0
        both["pixel_values"][1, :, :, PATCH:] = -7.0
        assert torch.equal(llava(**both).logits, expected)


@pytest.mark.parametrize("inputs_of", [same_size_batch, lambda: two_sizes()[0]], ids=["one size", "two sizes"])
def test_generates_as_it_predicts(llava, inputs_of):
    inputs = inputs_of()
    length = inputs["input_ids"].shape[1]
    generated = llava.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert generated.shape == (len(inputs["input_ids"]), length + 4)
    # greedy steps with a cache are the arg max of one forward without
    whole = inputs | {"input_ids": generated, "attention_mask": torch.ones_like(generated)}
    with torch.no_grad():
        predicted = llava(**whole).logits[:, length - 1 : -1].argmax(-1)
    assert torch.equal(generated[:, length:], predicted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_comes_back(llava, tmp_path, dtype):
    for parameter in llava.parameters():
        # `to` on the model would round the rotary frequencies of its language model too, which no checkpoint holds
        parameter.data = parameter.data.to(dtype)
    llava.save_pretrained(tmp_path, max_shard_size="30KB")
    reloaded, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert type(reloaded) is LlavaForConditionalGeneration
    assert type(reloaded.model.vision_tower) is TuringViTModel
    assert not any(report.values())
    assert reloaded.dtype == dtype
    for inputs in (same_size_batch(), two_sizes()[0]):
        with torch.no_grad():
            assert torch.equal(reloaded(**inputs).logits, llava(**inputs).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("inputs_of", [same_size_batch, lambda: two_sizes()[0]], ids=["one size", "two sizes"])
def test_activation_checkpointing_changes_nothing(llava, inputs_of, dtype):
    inputs = inputs_of()
    llava.to(dtype).train()
    loss, gradients = loss_and_gradients(llava, inputs)
    assert loss.isfinite()
    llava.activation_checkpointing_enable()
    checkpointed_loss, checkpointed = loss_and_gradients(llava, inputs)
    assert torch.equal(loss, checkpointed_loss)
    for name, gradient in gradients.items():
        assert torch.equal(checkpointed[name], gradient), name


@pytest.mark.parametrize("token_reduction", ["mean_pool", "pixel_unshuffle"])
def test_fewer_tokens_are_a_configuration(token_reduction, tmp_path):
    """An unmodified LLaVA on a tower that merges its tokens: built, trained, saved, in two sizes."""
    vision = TuringViTReducedConfig(
        tower_config=tiny_config(vision_use_head=False, pos_embed_rescale=None), token_reduction=token_reduction
    )
    config = tiny_llava().config
    config.vision_config = vision
    model = LlavaForConditionalGeneration(config).eval()
    assert model.model.multi_modal_projector.linear_1.in_features == vision.hidden_size
    input_ids = torch.cat([text_after(2), text_after(6)], dim=1)
    inputs = {
        "input_ids": input_ids,
        "pixel_values": torch.rand(2, 3, 6 * PATCH, 4 * PATCH),
        "image_sizes": torch.tensor([[2 * PATCH, 4 * PATCH], [6 * PATCH, 4 * PATCH]]),
    }
    loss, gradients = loss_and_gradients(model, inputs)
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())
    model.activation_checkpointing_enable()
    checkpointed_loss, checkpointed = loss_and_gradients(model.train(), inputs)
    assert torch.equal(loss, checkpointed_loss)
    assert all(torch.equal(gradient, checkpointed[name]) for name, gradient in gradients.items())
    model.eval().save_pretrained(tmp_path)
    reloaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(reloaded(**inputs).logits, model(**inputs).logits)


def test_more_features_than_image_tokens_are_refused(llava):
    both, _ = two_sizes()
    with pytest.raises(ValueError, match="Image features and image tokens do not match"):
        llava(**both | {"input_ids": both["input_ids"][:, 1:]})


def test_each_part_has_its_own_attention(llava, tmp_path):
    llava.save_pretrained(tmp_path)
    inputs = same_size_batch()
    with torch.no_grad():
        expected = llava(**inputs).logits
    mixed = AutoModelForImageTextToText.from_pretrained(
        tmp_path, attn_implementation={"vision_config": "eager", "text_config": "sdpa"}
    )
    assert mixed.model.vision_tower.config._attn_implementation == "eager"
    assert mixed.model.language_model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        torch.testing.assert_close(mixed(**inputs).logits, expected)
