# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The processor of a dual encoder: its image processor and its tokenizer, saved and loaded as one."""

from typing import Any

from transformers.processing_utils import ProcessorMixin


class TuringViTProcessor(ProcessorMixin):
    """Prepares images and texts for `TuringViTDualEncoderModel`.

    `processor(images=[...], text=[...], padding=True, return_tensors="pt")` gives the keyword arguments of its
    forward: images as `TuringViTImageProcessor` makes them (packed where their sizes differ), texts as token ids.

    Args:
        image_processor: a `TuringViTImageProcessor`.
        tokenizer: any transformers tokenizer.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any):
        super().__init__(image_processor, tokenizer)


__all__ = ["TuringViTProcessor"]
