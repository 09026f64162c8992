# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How many tokens a text with images has, told by the sizes of its images without looking at a pixel."""

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

from transformers import (
    Gemma3Processor,
    Idefics3Processor,
    LlavaOnevisionProcessor,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    SmolVLMProcessor,
)

from turingvit_hf.errors import InputError


Size = tuple[int, int]


def special_tokens_option(tokenizer: PreTrainedTokenizerBase, text: str) -> dict[str, bool]:
    """Return what a tokenizer has to be told about a written-out conversation: no second token for its start.

    As `apply_chat_template` does when a model is asked.
    """
    begin = tokenizer.bos_token
    return {"add_special_tokens": False} if begin is not None and text.startswith(str(begin)) else {}


def num_tokens_with_images(processor: ProcessorMixin, text: str, sizes: Sequence[Size]) -> int:
    """Return how many tokens the processor makes of a text and its images.

    Args:
        processor: that of the VLM.
        text: with one image token an image.
        sizes: (height, width) of each image in pixels.

    Raises:
        InputError: the processor has a setting under which it cannot be told.
    """
    parts: Any = processor  # attributes of its family's class
    expansions = _expansions(parts, sizes)
    if expansions is not None:
        pieces = text.split(parts.image_token)
        text = "".join(chain.from_iterable(zip_longest(pieces, expansions, fillvalue="")))
        return _num_text_tokens(parts.tokenizer, text)
    num_tokens = _num_text_tokens(parts.tokenizer, text)
    if sizes:
        counts = parts._get_num_multimodal_tokens(image_sizes=list(sizes))["num_image_tokens"]
        num_tokens += sum(counts) - len(sizes)
    return num_tokens


def _num_text_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    return len(tokenizer(text, **special_tokens_option(tokenizer, text))["input_ids"])


def _expansions(processor: Any, sizes: Sequence[Size]) -> list[str] | None:
    """What takes the place of each image token, in families that transformers 5.23 does not count right; else None."""
    if not sizes:
        return None
    if isinstance(processor, Gemma3Processor):
        # it leaves out what is written around an image
        if processor.image_processor.do_pan_and_scan:
            raise InputError(
                "do_pan_and_scan=True: the tokens of an image cannot be told from its size; set it to False"
            )
        inputs: dict[str, Any] = {"num_crops": [0] * len(sizes)}
    elif isinstance(processor, Idefics3Processor | SmolVLMProcessor):
        # the one counts line breaks that a tokenizer may put together, the other not at all
        grids = [processor.image_processor.get_number_of_image_patches(*size) for size in sizes]
        inputs = {"rows": [[rows for _, rows, _ in grids]], "cols": [[columns for _, _, columns in grids]]}
    elif isinstance(processor, LlavaOnevisionProcessor) and len(sizes) > 1:
        # it counts each of several images as if it were the only one
        inputs = {"batch_num_images": [len(sizes)]}
    else:
        return None
    return [processor.replace_image_token(inputs, index) for index in range(len(sizes))]
