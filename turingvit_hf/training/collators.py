# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Collators: rows or samples in, keyword arguments of a model out. Bad rows are refused here, on the CPU."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from turingvit_hf.data.draws import seed_of
from turingvit_hf.processing.batching import pack
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.data.samples import Sample
from turingvit_hf.training.masking import block_mask


IGNORED = -100  # fills up rows of superclass_ids


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

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
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
        texts = tokenize(self.tokenizer, [row["caption"] for row in rows])
        images = self.image_processor.preprocess([row["image"] for row in rows], do_pack=True, return_tensors="pt")
        pixel_values, image_grid_thw = images["pixel_values"], images["image_grid_thw"]
        num_patches = int(image_grid_thw.prod(-1).sum())
        if len(pixel_values) != num_patches or len(image_grid_thw) != len(rows):
            raise ValueError(
                f"image_grid_thw describes {len(image_grid_thw)} images of {num_patches} patches, "
                f"there are {len(rows)} rows and {len(pixel_values)} patches"
            )
        return {**texts, "pixel_values": pixel_values, "image_grid_thw": image_grid_thw}


class ImageTextPackCollator:
    """Packs images or clips with their captions, and with the classes that SuperClass makes of these.

    Gives `image_grid_thw` (N, 3) int64, `pixel_values` (T, C·p·p) float32, `input_ids` and `attention_mask` (N, L)
    int64 and, for images where there is a `vocabulary`, `superclass_ids` (N, Lc) int64: the ids of the caption's
    subwords, special tokens left out, filled up with -100.

    Args:
        image_processor: gives patch size, mean and standard deviation.
        tokenizer: the text encoder's.
        max_tokens: longer captions are cut there and counted.
        lowercase: whether captions are lower-cased.
        vocabulary: the tokenizer whose subwords are the classes; None leaves them out.

    Raises:
        ValueError: the tokenizer has no token for filling up.
    """

    needs_captions = True
    needs_crops = False

    def __init__(
        self,
        image_processor: TuringViTImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int,
        lowercase: bool = False,
        vocabulary: PreTrainedTokenizerBase | None = None,
    ):
        if tokenizer.pad_token is None:
            raise ValueError(f"the tokenizer {tokenizer.name_or_path!r} has no pad_token, so texts cannot be batched")
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.lowercase = lowercase
        self.vocabulary = vocabulary

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The pack of these samples, all of one kind; `notes` counts captions that were cut."""
        captions = [sample.caption.lower() if self.lowercase else sample.caption for sample in samples]
        texts = tokenize(self.tokenizer, captions, max_tokens=self.max_tokens)
        made: dict[str, Any] = pack_samples(samples, self.image_processor) | texts
        if self.vocabulary is not None and samples[0].kind == "image":
            made["superclass_ids"] = superclass_ids(self.vocabulary, captions)
        if num_cut := self._count_cut(captions, texts["attention_mask"]):
            made["notes"] = {f"caption is cut at {self.max_tokens} tokens": num_cut}
        return made

    def _count_cut(self, captions: Sequence[str], attention_mask: Tensor) -> int:
        lengths = attention_mask.sum(1)
        full = [text for text, length in zip(captions, lengths, strict=True) if length >= self.max_tokens]
        if not full:
            return 0
        return sum(len(ids) > self.max_tokens for ids in self.tokenizer(full, verbose=False)["input_ids"])


class MaskedImagePackCollator:
    """Packs images for masked feature distillation: a mask for each, and what its teacher sees.

    Gives `image_grid_thw` (N, 3) int64, `pixel_values` (T, C·p·p) float32, `bool_masked_pos` (T,) bool with exactly
    round(mask_ratio · patches) masked patches an image, `teacher_pixel_values` as `preprocess` makes them, and
    `sample_keys`, a list of N names that are the same in every run.

    Args:
        image_processor: gives patch size, mean and standard deviation.
        mask_ratio: share of patches that are masked.
        preprocess: turns crops, each (3, h, w) uint8 and not resized, into the teacher's pixels; None for a teacher
            that reads the student's.
    """

    needs_captions = False

    def __init__(
        self,
        image_processor: TuringViTImageProcessor,
        *,
        mask_ratio: float,
        preprocess: Callable[[list[np.ndarray]], Tensor] | None = None,
    ):
        self.image_processor = image_processor
        self.mask_ratio = mask_ratio
        self.preprocess = preprocess
        self.needs_crops = preprocess is not None

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The pack of these images."""
        made: dict[str, Any] = pack_samples(samples, self.image_processor)
        masks = [
            block_mask(rows, columns, round(self.mask_ratio * rows * columns), seed=seed_of(sample.draw_key, "mask"))
            for sample, (_, rows, columns) in zip(samples, made["image_grid_thw"].tolist(), strict=True)
        ]
        made["bool_masked_pos"] = torch.cat(masks)
        if self.preprocess is not None:
            crops = [sample.frames[0] if sample.crop is None else sample.crop for sample in samples]
            made["teacher_pixel_values"] = self.preprocess(crops)
        made["sample_keys"] = [sample.key for sample in samples]
        return made


def pack_samples(samples: Sequence[Sample], image_processor: TuringViTImageProcessor) -> dict[str, Tensor]:
    """`image_grid_thw` (N, 3) int64, a row (frames, rows, columns) a sample, and `pixel_values` (T, C·p·p) float32."""
    names = ("patch_size", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    arrays = pack([[*sample.frames] for sample in samples], {name: getattr(image_processor, name) for name in names})
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def tokenize(
    tokenizer: PreTrainedTokenizerBase, captions: Sequence[str], *, max_tokens: int | None = None
) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, both (M, L) int64, L being that of the longest caption.

    Args:
        tokenizer: with a padding token.
        captions: M texts.
        max_tokens: where longer ones are cut; None: the tokenizer's `model_max_length`.
    """
    texts = tokenizer(
        [*captions],
        padding=True,
        truncation=True,
        max_length=max_tokens,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return {"input_ids": texts["input_ids"], "attention_mask": texts["attention_mask"]}


def superclass_ids(vocabulary: PreTrainedTokenizerBase, captions: Sequence[str]) -> Tensor:
    """(M, Lc) int64: the ids of each caption's subwords, none of them special, filled up with -100."""
    special = set(vocabulary.all_special_ids)
    encoded = vocabulary([*captions], add_special_tokens=False, verbose=False)["input_ids"]
    rows = [[token for token in ids if token not in special] for ids in encoded]
    filled = torch.full((len(rows), max(1, *map(len, rows))), IGNORED, dtype=torch.int64)
    for row, ids in zip(filled, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return filled
