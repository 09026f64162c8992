# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Collators: rows of a dataset in, keyword arguments of a model out. Bad rows are refused here, on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


class ImageTextCollator:
    """Packs the images of a batch at their own resolution and tokenizes their captions.

    The batch of two pictures of 32 x 48 and 64 x 16 pixels with patch size 16:

        {"input_ids": (2, tokens), "attention_mask": (2, tokens), "pixel_values": (10, 768), "image_grid_thw": [[1, 2,
        3], [1, 4, 1]]}

    `input_ids` comes first because Trainer takes the batch size from the first tensor, and packed pixels would give it
    the number of patches.

    Args:
        image_processor: a `TuringViTImageProcessor`.
        tokenizer: captions longer than its `model_max_length` are cut there.
    """

    def __init__(self, image_processor: TuringViTImageProcessor, tokenizer: PreTrainedTokenizerBase):
        self.image_processor = image_processor
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The batch of these rows, each with an `image` (anything the image processor takes) and a `caption`.

        Raises:
            ValueError: there is no row, a row lacks image or caption, or the processor's grid does not describe its
                patches.
        """
        if not rows:
            raise ValueError("a batch needs at least one row")
        for index, row in enumerate(rows):
            if row.get("image") is None:
                raise ValueError(f"row {index} of the batch has no image; its columns are {sorted(row)}")
            if not isinstance(row.get("caption"), str) or not row["caption"].strip():
                raise ValueError(
                    f"row {index} of the batch needs a caption that is not empty, not {row.get('caption')!r}"
                )
        texts = self.tokenizer([row["caption"] for row in rows], padding=True, truncation=True, return_tensors="pt")
        images = self.image_processor.preprocess([row["image"] for row in rows], do_pack=True, return_tensors="pt")
        pixel_values, image_grid_thw = images["pixel_values"], images["image_grid_thw"]
        num_patches = int(image_grid_thw.prod(-1).sum())
        if len(pixel_values) != num_patches or len(image_grid_thw) != len(rows):
            raise ValueError(
                f"image_grid_thw describes {len(image_grid_thw)} images of {num_patches} patches, "
                f"there are {len(rows)} rows and {len(pixel_values)} patches"
            )
        return {
            "input_ids": texts["input_ids"],
            "attention_mask": texts["attention_mask"],
            "pixel_values": pixel_values,
            "image_grid_thw": image_grid_thw,
        }
