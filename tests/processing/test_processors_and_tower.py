# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the processors emit is what the tower takes: one image gives one answer in every form, a clip its frames'."""

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoImageProcessor, AutoProcessor, LlavaProcessor, PreTrainedTokenizerFast

from turingvit_hf import TuringViTConfig, TuringViTImageProcessor, TuringViTModel
from turingvit_hf.processing.video_processing_turingvit import TuringViTVideoProcessor


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    config = TuringViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=2)
    return TuringViTModel(config).eval()


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (40, 60), (200, 17), (64, 64), (33, 90)]
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def pooled(tower, encoding):
    with torch.no_grad():
        return tower(**encoding).pooler_output


def test_one_image_gives_one_answer_in_every_form_and_order(tower, pictures):
    processor = TuringViTImageProcessor()
    alone = torch.cat([pooled(tower, processor(picture, return_tensors="pt")) for picture in pictures])
    for flags in ({}, {"do_pack": True}, {"do_pack": False}, {"return_image_sizes": True}):
        together = pooled(tower, processor(pictures, return_tensors="pt", **flags))
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        backwards = pooled(tower, processor(pictures[::-1], return_tensors="pt", **flags))
        torch.testing.assert_close(backwards.flip(0), alone, atol=1e-5, rtol=1e-5)


def test_a_clip_is_the_mean_of_its_frames(tower):
    clips = [np.random.default_rng(seed).integers(0, 256, (3 + seed, 40, 60, 3), dtype=np.uint8) for seed in range(2)]
    clip_embeddings = pooled(tower, TuringViTVideoProcessor()(clips, return_tensors="pt"))
    for clip, embedding in zip(clips, clip_embeddings, strict=True):
        frames = pooled(tower, TuringViTImageProcessor()(list(clip), return_tensors="pt"))
        torch.testing.assert_close(frames.mean(0), embedding, atol=1e-5, rtol=1e-5)


@pytest.fixture
def llava_processor():
    vocabulary = {word: index for index, word in enumerate(["<unk>", "<pad>", "<image>", "hello"])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", additional_special_tokens=["<image>"]
    )
    image_processor = TuringViTImageProcessor(do_pack=False, return_image_sizes=True)
    return LlavaProcessor(image_processor, tokenizer, patch_size=16, vision_feature_select_strategy="full")


def test_llava_processor_counts_the_tokens_the_tower_makes(llava_processor, tower, tmp_path):
    picture = Image.new("RGB", (60, 40))
    inputs = llava_processor(
        images=[[picture, picture], [picture]],
        text=["<image> <image> hello", "hello <image>"],
        padding=True,
        return_tensors="pt",
    )
    assert set(inputs) == set(llava_processor.model_input_names)
    assert inputs.image_sizes.tolist() == [[48, 64]] * 3
    assert (inputs.input_ids == llava_processor.image_token_id).sum(1).tolist() == [24, 12]
    hidden = tower(inputs.pixel_values, image_sizes=inputs.image_sizes).last_hidden_state
    assert hidden.shape == (1, 36, 32)

    Image.new("RGBA", (60, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    from_file = llava_processor(images=str(tmp_path / "clear.png"), text="<image>", return_tensors="pt")
    assert (from_file.pixel_values == 1).all()  # white: the path was not turned to RGB before we saw it


def test_llava_processor_keeps_the_flags(llava_processor, tmp_path):
    llava_processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded.image_processor, TuringViTImageProcessor)
    assert loaded.image_processor.return_image_sizes is True
    assert loaded.image_processor.to_dict() == llava_processor.image_processor.to_dict()
    assert "image_sizes" in loaded(images=Image.new("RGB", (60, 40)), text="<image>", return_tensors="pt")


def test_an_image_processor_out_of_a_vlm_is_saved_for_a_tower(llava_processor, tmp_path):
    llava_processor.save_pretrained(tmp_path / "vlm")
    AutoImageProcessor.from_pretrained(tmp_path / "vlm").save_pretrained(tmp_path / "tower")
    assert AutoImageProcessor.from_pretrained(tmp_path / "tower").return_image_sizes is False
    # both files in one folder: the VLM's counts
    llava_processor.image_processor.save_pretrained(tmp_path / "vlm")
    assert AutoProcessor.from_pretrained(tmp_path / "vlm").image_processor.return_image_sizes is True
