# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The processor of a LLaVA around a TuringViT: as many image tokens as there are features, image by image."""

import math
from typing import Any

import numpy as np
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import MultiModalData, ProcessorMixin

from turingvit_hf.processing.pixels import flatten_images, resize_pixels


class TuringViTLlavaProcessor(ProcessorMixin):
    """Prepares texts and images of any sizes for LLaVA, Pixtral and Mistral3 with a TuringViT in them.

    LLaVA's own processor counts the tokens of an image by the padded batch, and so cannot take images of unlike sizes
    together; this one counts by each image's own size.

    `processor(images=[[a, b], [c]], text=["<image> <image> ...", "<image> ..."], padding=True, return_tensors="pt")`
    gives `input_ids`, `attention_mask`, `pixel_values` (B, C, Hmax, Wmax) and `image_sizes` (B, 2).

    Args:
        image_processor: A `TuringViTImageProcessor` with `return_image_sizes=True`, whose `merge_size` is how many
            patches to a side end in one token, 1 if nothing merges them.
        tokenizer: That of the language model; it has the image token.
        chat_template: A Jinja template, in place of the tokenizer's.
        image_token: What stands for an image in a text.
        image_break_token: What ends a row of image tokens, as in Pixtral; None: rows end with nothing.
        image_end_token: What ends the last row, where `image_break_token` is given.
        min_tokens: Fewest tokens of an image; a smaller one is enlarged to a square of at least so many. Mistral3
            cannot take a batch of a single token.
        context_length: Most tokens the language model takes; longer texts are refused before the model sees them.
            None refuses nothing.

    Raises:
        ValueError: The image processor gives no sizes, or the tokenizer does not know a token.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | dict | None = None,
        image_token: str = "<image>",
        image_break_token: str | None = None,
        image_end_token: str | None = None,
        min_tokens: int = 1,
        context_length: int | None = None,
        **kwargs: Any,
    ):
        # not by its class: with code from a checkpoint there may be two of that name
        if not getattr(image_processor, "return_image_sizes", False):
            raise ValueError("image_processor must be a TuringViTImageProcessor with return_image_sizes=True")
        if (image_break_token is None) != (image_end_token is None):
            raise ValueError(f"give both or none of {image_break_token=} and {image_end_token=}")
        names = [name for name in (image_token, image_break_token, image_end_token) if name is not None]
        self.image_token_ids = [_token_id(tokenizer, name) for name in names]
        self.image_token_id = self.image_token_ids[0]
        self.image_token = image_token
        self.image_break_token = image_break_token
        self.image_end_token = image_end_token
        self.min_tokens = min_tokens
        self.context_length = context_length
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @property
    def patch_size(self) -> int:
        """Side in pixels of what one image token stands for."""
        return self.image_processor.patch_size * self.image_processor.merge_size

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> BatchFeature:
        """Return the model's inputs, each image token in a text multiplied to the number of the image's features.

        Args:
            images: One image, a list, or a list of lists, one for each text, in the order of the texts.
            text: One text or several; each image token in them stands for an image.
            **kwargs: Options of the tokenizer and of the image processor.

        Raises:
            ValueError: There are more or fewer images than image tokens, or a text with its images is longer than
                `context_length`.
        """
        inputs = super().__call__(images=images, text=text, **kwargs)
        if self.context_length is not None and "input_ids" in inputs:
            self._check_length(inputs, self.context_length)
        return inputs

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """Return the image token as often as this image has features, with what ends its rows."""
        rows, columns = (int(side) // self.patch_size for side in image_inputs["image_sizes"][image_idx])
        if self.image_break_token is None or self.image_end_token is None:
            return self.image_token * (rows * columns)
        row = self.image_token * columns
        return (row + self.image_break_token) * (rows - 1) + row + self.image_end_token

    def _process_images(self, images: Any, **kwargs: Any):
        images = flatten_images(images)
        if self.min_tokens > 1 and kwargs.get("do_resize", self.image_processor.do_resize):
            images = [self._enlarged(image, kwargs) for image in images]
        return super()._process_images(images, **kwargs)

    def _enlarged(self, image: Any, options: dict) -> Any:
        """The image, or a square of `min_tokens` of it where it would have fewer."""
        pixels = self.image_processor.process_image(image, do_convert_rgb=self.image_processor.do_convert_rgb)
        _, height, width = pixels.shape
        rows, columns = self._grid(height, width, options)
        if rows * columns >= self.min_tokens:
            return image
        side = self._smallest_side
        return resize_pixels(pixels, (side * self.patch_size,) * 2, self.image_processor.resample)

    @property
    def _smallest_side(self) -> int:
        return math.isqrt(self.min_tokens - 1) + 1

    def _grid(self, height: int, width: int, options: dict) -> tuple[int, int]:
        """Rows and columns of tokens of an image of so many pixels, before one that is too small is enlarged."""
        names = self.image_processor._valid_kwargs_names
        options = {name: value for name, value in options.items() if name in names}
        rows, columns = self.image_processor.get_grid(height, width, options)
        merge_size = self.image_processor.merge_size
        return rows // merge_size, columns // merge_size

    def _get_num_multimodal_tokens(self, image_sizes: Any = None, **kwargs: Any) -> MultiModalData:
        """Return how many tokens images of these (height, width) take, without touching a pixel."""
        if image_sizes is None:
            return MultiModalData()
        options = self._merge_kwargs(**kwargs)["images_kwargs"]
        tokens = []
        for height, width in image_sizes:
            rows, columns = self._grid(height, width, options)
            if rows * columns < self.min_tokens:
                rows = columns = self._smallest_side
            # a row is ended by a break, the last one by the end of the image
            tokens.append(rows * (columns + (self.image_break_token is not None)))
        return MultiModalData(num_image_tokens=tokens, num_image_patches=[1] * len(tokens))

    def _check_length(self, inputs: BatchFeature, context_length: int) -> None:
        # padding is not text
        masks = inputs.get("attention_mask", [[1] * len(ids) for ids in inputs["input_ids"]])
        for index, (ids, mask) in enumerate(zip(inputs["input_ids"], masks, strict=True)):
            num_tokens = int(np.sum(np.asarray(mask)))
            if num_tokens > context_length:
                num_image_tokens = int(np.sum(np.asarray(ids) == self.image_token_id))
                raise ValueError(
                    f"text {index} has {num_tokens} tokens, {num_image_tokens} of them for images; the language model "
                    f"takes {context_length}. Give fewer or smaller images: the image processor's max_patches, "
                    f"now {self.image_processor.max_patches}, bounds each"
                )


def _token_id(tokenizer: Any, token: str) -> int:
    index = tokenizer.convert_tokens_to_ids(token)
    if index is None or index == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer does not know the token {token!r}")
    return index


__all__ = ["TuringViTLlavaProcessor"]
