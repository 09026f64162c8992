# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The collator packs what the processor makes, in Trainer's order of keys, and refuses bad rows."""

import pytest
import torch
from PIL import Image
from transformers.trainer_pt_utils import find_batch_size

from turingvit_hf.training.collators import ImageTextCollator


def row(width, height, caption="one small red star at the top on a plain mint background"):
    return {"image": Image.new("RGB", (width, height), "teal"), "caption": caption}


def test_a_batch_packs_images_of_any_size(collate):
    batch = collate([row(48, 32), row(16, 64), row(5, 5, "a star")])
    assert batch["image_grid_thw"].tolist() == [[1, 2, 3], [1, 4, 1], [1, 1, 1]]
    assert batch["pixel_values"].shape == (11, 768)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"].sum(1)[2] < batch["attention_mask"].sum(1)[0]


def test_images_of_one_size_are_packed_too(collate):
    batch = collate([row(32, 32), row(32, 32)])
    assert batch["pixel_values"].shape == (8, 768)


def test_trainer_finds_the_number_of_images(collate):
    assert find_batch_size(collate([row(48, 32), row(16, 64), row(32, 32)])) == 3


def test_packing_is_the_images_one_by_one(collate):
    rows = [row(48, 32), row(16, 64)]
    alone = [collate([one]) for one in rows]
    torch.testing.assert_close(
        collate(rows)["pixel_values"], torch.cat([batch["pixel_values"] for batch in alone]), rtol=0, atol=0
    )


def test_long_captions_are_cut_where_the_text_encoder_ends(collate):
    assert collate([row(16, 16, "star " * 500)])["input_ids"].shape[1] == collate.tokenizer.model_max_length


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([row(16, 16), {"caption": "a star"}], r"row 1 of the batch has no image; its columns are \['caption'\]"),
        ([{"image": None, "caption": "a star"}], "row 0 of the batch has no image"),
        ([row(16, 16, " ")], "row 0 of the batch needs a caption that is not empty, not ' '"),
        ([row(16, 16, None)], "not None"),
        ([row(16, 16, ["a", "b"])], r"not \['a', 'b'\]"),
    ],
    ids=["no rows", "no image", "image is None", "blank caption", "caption is None", "several captions"],
)
def test_bad_rows_are_refused(collate, rows, message):
    with pytest.raises(ValueError, match=message):
        collate(rows)


def test_a_grid_that_does_not_describe_the_patches_is_refused(processor):
    class Broken:
        def preprocess(self, images, **options):
            batch = processor.image_processor.preprocess(images, **options)
            batch["pixel_values"] = batch["pixel_values"][:-1]
            return batch

    with pytest.raises(
        ValueError, match="image_grid_thw describes 1 images of 4 patches, there are 1 rows and 3 patches"
    ):
        ImageTextCollator(Broken(), processor.tokenizer)([row(32, 32)])
