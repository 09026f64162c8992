# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A conversation with a VLM about pictures: in Python with `PictureChat`, in a terminal with `turingvit chat`."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    ProcessorMixin,
    TextStreamer,
)

from turingvit_hf.processing.pixels import open_image


class PictureChat:
    """A conversation about pictures that every answer adds to.

    The pictures stand in the first question. Each answer reads the whole conversation again, pictures included.

    Args:
        model: A VLM of transformers.
        processor: Its processor, with a chat template.
        images: The pictures, in the order in which the model sees them.
        max_new_tokens: Most tokens of an answer.

    Raises:
        ValueError: The processor has no chat template, there is no picture, or `max_new_tokens` is less than 1.
    """

    def __init__(
        self,
        model: Any,
        processor: ProcessorMixin,
        images: Sequence[Image.Image],
        *,
        max_new_tokens: int = 256,
    ):
        check_chat_template(processor)
        if not images:
            raise ValueError("expected at least one picture, got none")
        if max_new_tokens < 1:
            raise ValueError(f"{max_new_tokens=}, but an answer has at least 1 token")
        self.model = model.eval()
        self.processor = processor
        self.images = list(images)
        self.max_new_tokens = max_new_tokens
        self.messages: list[dict[str, Any]] = []

    def ask(self, question: str, *, write: Callable[[str], object] | None = None) -> str:
        """Return the answer to a question, and keep both for the next.

        Args:
            question: What the user says.
            write: Called with each piece of the answer as soon as it is known.

        Raises:
            ValueError: The chat template has no place for pictures, or the conversation is longer than the language
                model's context. The conversation is then as it was before the question.
        """
        # an image beside a picture itself: templates look for the type, the processor for the picture
        pictures = [] if self.messages else [{"type": "image", "image": image} for image in self.images]
        turn = {"role": "user", "content": [*pictures, {"type": "text", "text": question}]}
        messages = [*self.messages, turn]
        inputs = self._inputs(messages)
        num_tokens = inputs["input_ids"].shape[1]
        streamer = None if write is None else PieceStreamer(self.processor.tokenizer, write)
        with torch.inference_mode():
            generated = self.model.generate(**inputs, max_new_tokens=self._room(num_tokens), streamer=streamer)
        answer = self.processor.tokenizer.decode(generated[0, num_tokens:], skip_special_tokens=True)
        self.messages = [*messages, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
        return answer

    def _inputs(self, messages: list[dict[str, Any]]) -> BatchFeature:
        """The model's inputs for a conversation that waits for an answer."""
        try:
            # annotated as text in transformers, which it is only where it is not tokenized
            inputs: Any = self.processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        except (TemplateError, TypeError) as error:
            raise ValueError(
                f"the chat template cannot write these messages; one for a VLM takes a list of pictures and texts as "
                f"the content of a message. It says: {error}"
            ) from error
        return inputs.to(self.model.device, dtype=self.model.dtype)

    def _room(self, num_tokens: int) -> int:
        """Tokens that are left for an answer behind a conversation of so many."""
        context_length = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context_length is None:
            return self.max_new_tokens
        if num_tokens >= context_length:
            raise ValueError(
                f"the conversation has {num_tokens} tokens with its {len(self.images)} pictures, and the language "
                f"model takes {context_length} with its answer: ask a shorter question, or give fewer or smaller "
                "pictures"
            )
        return min(self.max_new_tokens, context_length - num_tokens)


class PieceStreamer(TextStreamer):
    """A streamer for `generate` that hands on the words of an answer, without prompt and special tokens.

    Args:
        tokenizer: That of the language model.
        write: Called with each piece of text.
    """

    def __init__(self, tokenizer: Any, write: Callable[[str], object]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Hand on a piece; nothing marks the end."""
        if text:
            self.write(text)


def check_chat_template(processor: ProcessorMixin) -> None:
    """Return if the processor can write messages.

    Raises:
        ValueError: It has no chat template.
    """
    if not getattr(processor, "chat_template", None):
        raise ValueError(
            "the processor has no chat template, and so nothing says what a question to this model looks like: "
            "set processor.chat_template to a Jinja template and save the processor with the model"
        )


def load_chat(
    path: str | os.PathLike, images: Sequence[str | os.PathLike], *, max_new_tokens: int = 256
) -> PictureChat:
    """The conversation with a saved VLM about picture files, on the accelerator where there is one.

    What the files alone can tell is refused before any weight is read.

    Args:
        path: Folder or hub id of the VLM with its processor.
        images: Paths, http(s) URLs or `data:image/` URIs.
        max_new_tokens: Most tokens of an answer.

    Raises:
        ValueError: A picture cannot be read, or there is none; the checkpoint is no VLM or has no chat template.
        OSError: There is no such checkpoint, or it has no processor.
    """
    pictures = [open_image(image) for image in images]
    config = AutoConfig.from_pretrained(path)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ValueError(
            f"{path} is a {config.model_type!r}, which does not answer with text about images: chat needs a VLM, such "
            "as `turingvit swap` makes"
        )
    processor = AutoProcessor.from_pretrained(path)
    check_chat_template(processor)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model = AutoModelForImageTextToText.from_pretrained(path, dtype="auto").to(device)
    return PictureChat(model, processor, pictures, max_new_tokens=max_new_tokens)


def converse(chat: PictureChat, *, read: Callable[[], str], write: Callable[[str], object]) -> None:
    """Ask what is read and write the answers, until an empty line or the end of the input.

    A question that is refused is answered with the reason, and the conversation goes on as if it had not been asked.

    Args:
        chat: The conversation.
        read: Gives the next question; an `EOFError` ends the conversation.
        write: Called with each piece of text.
    """
    while True:
        try:
            question = read().strip()
        except EOFError:
            return
        if not question:
            return
        try:
            chat.ask(question, write=write)
        except ValueError as error:
            write(f"not asked: {error}")
        write("\n")


__all__ = ["PictureChat", "PieceStreamer", "converse", "load_chat"]
