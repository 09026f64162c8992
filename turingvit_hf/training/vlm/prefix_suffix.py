# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Conversations as a PaliGemma takes them: images and a question, all of which sees all of it, and then an answer.

It has no chat template: its processor puts a start token behind the images and a line break behind the question, and
takes the answer as a `suffix`. What it calls `token_type_ids` tells one from the other, for the mask of the attention
and for the labels.
"""

from collections.abc import Sequence
from typing import Any

from transformers import PaliGemmaProcessor, ProcessorMixin

from turingvit_hf.errors import BadRowError
from turingvit_hf.training.vlm.answers import ChatRenderer, Span
from turingvit_hf.training.vlm.conversations import NO_IMAGE
from turingvit_hf.training.vlm.token_counts import Size


class PrefixSuffixRenderer:
    """Writes a question about images and its answer as a PaliGemma's processor does, and says where the answer is.

    Args:
        processor: that of the VLM.
    """

    def __init__(self, processor: PaliGemmaProcessor):
        parts: Any = processor
        self.processor = parts
        self.tokenizer = parts.tokenizer
        self.image_token: str = parts.image_token

    def render(self, messages: Sequence[dict[str, Any]]) -> tuple[str, list[Span]]:
        """Return the text as the model sees it, but for one image token an image, and where its answer is.

        Raises:
            BadRowError: the conversation is not one question with images and its answer, or a text holds the image
                token.
        """
        if [message["role"] for message in messages] != ["user", "assistant"]:
            raise BadRowError(
                "conversation is not one question and its answer, all that a PaliGemma takes", f"{len(messages)} turns"
            )
        question, answer = ("".join(part.get("text", "") for part in message["content"]) for message in messages)
        if self.image_token in question + answer:
            raise BadRowError("text holds the image token", self.image_token)
        num_images = sum(part["type"] == "image" for part in messages[0]["content"])
        if not num_images:
            raise BadRowError(NO_IMAGE)
        prefix = f"{self.image_token * num_images}{self.tokenizer.bos_token}{question.strip()}\n"
        text = f"{prefix}{answer.strip()}{self.tokenizer.eos_token}"
        return text, [(len(prefix), len(text))]

    def processor_texts(self, text: str, answers: Sequence[Span]) -> tuple[str, str]:
        """Return what the processor makes a rendered text of: images with the question, and the answer."""
        start, end = answers[0]
        question = text[:start].replace(str(self.tokenizer.bos_token), "", 1).removesuffix("\n")
        return question, text[start:end].removesuffix(str(self.tokenizer.eos_token))

    def num_tokens(self, text: str, answers: Sequence[Span], sizes: Sequence[Size]) -> int:
        """Return how many tokens the model sees, those of images of these (height, width) included."""
        start, _ = answers[0]
        # question and answer are tokenized apart
        num_tokens = sum(len(self.tokenizer(part)["input_ids"]) for part in (text[:start], text[start:]))
        return num_tokens + (self.processor.image_seq_length - 1) * len(sizes)


def make_renderer(processor: ProcessorMixin) -> ChatRenderer | PrefixSuffixRenderer:
    """Return what writes conversations out for a VLM: by its chat template, for a PaliGemma by its prefix and suffix.

    Raises:
        InputError: see `ChatRenderer`.
    """
    return PrefixSuffixRenderer(processor) if isinstance(processor, PaliGemmaProcessor) else ChatRenderer(processor)
