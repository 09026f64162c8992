# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Conversations as a data set that leaves out and counts what cannot be used, and as batches of a VLM's processor."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import Idefics3Processor, InternVLProcessor, PaliGemmaProcessor, ProcessorMixin

from turingvit_hf.data.media import Media, decode_image, image_size
from turingvit_hf.errors import BadRowError, InputError
from turingvit_hf.training.vlm.answers import Span, token_labels
from turingvit_hf.training.vlm.conversations import NO_IMAGE, parse_conversation
from turingvit_hf.training.vlm.prefix_suffix import PrefixSuffixRenderer, make_renderer
from turingvit_hf.training.vlm.token_counts import special_tokens_option


IGNORE_INDEX = -100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChatSample:
    """A conversation written out.

    Attributes:
        text: what the chat template made of it, one image token an image.
        answers: where the answers start and end in it.
        images: its images, encoded or decoded.
        num_tokens: tokens of its text, those of images included.
    """

    text: str
    answers: list[Span]
    images: list[Media]
    num_tokens: int


class ConversationDataset(Dataset):
    """Conversations for a VLM, checked when the data set is made; images are decoded when they are asked for.

    A row that cannot be used is left out and counted by reason in `skipped`: it is no conversation, an image is
    missing or no image by its header, it is longer than `max_length`, or the chat template has no place for it. An
    image that turns out broken when it is decoded is counted too, and the next row takes the place of its row.

    Args:
        rows: dicts as `parse_conversation` reads them, from `read_rows` or a `datasets.Dataset`.
        processor: that of the VLM.
        image_folder: where relative paths of images start.
        max_length: most tokens of a conversation, those of images included; None: no limit.
        needs_images: leave out conversations without an image, from which a projector learns nothing.
        max_bad_share: the largest share of rows that may be left out, not counting those that only lack an image.

    Raises:
        InputError: the chat template cannot be trained with, or more than `max_bad_share` of the rows are unusable.
    """

    def __init__(
        self,
        rows: Iterable[Any],
        processor: ProcessorMixin,
        *,
        image_folder: str | Path | None = None,
        max_length: int | None = None,
        needs_images: bool = False,
        max_bad_share: float = 0.1,
    ):
        self.processor: Any = processor
        self.renderer = make_renderer(processor)
        self.image_folder = None if image_folder is None else Path(image_folder)
        self.max_length = max_length
        self.needs_images = needs_images
        self.skipped: Counter[str] = Counter()
        self.samples: list[ChatSample] = []
        for row in rows:
            try:
                self.samples.append(self._read(row))
            except BadRowError as error:
                self.skipped[error.reason] += 1
                logger.debug("row left out: %s", error)
        self._report(max_bad_share)

    def _report(self, max_bad_share: float) -> None:
        num_skipped = sum(self.skipped.values())
        num_rows = num_skipped + len(self.samples)
        num_bad = num_skipped - self.skipped[NO_IMAGE]
        for reason, count in self.skipped.most_common():
            logger.warning("%d of %d conversations left out: %s", count, num_rows, reason)
        if not self.samples or num_bad > max_bad_share * num_rows:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in self.skipped.most_common(3)) or "no rows"
            raise InputError(
                f"{num_skipped} of {num_rows} conversations cannot be used ({reasons}); at most a share of "
                f"{max_bad_share} may be left out"
            )

    def _read(self, row: Any) -> ChatSample:
        conversation = parse_conversation(row, self.image_folder)
        if self.needs_images and not conversation.images:
            raise BadRowError(NO_IMAGE)
        text, answers = self.renderer.render(conversation.messages)
        if text.count(self.renderer.image_token) != len(conversation.images):
            raise BadRowError("chat template left images out of the text")
        sizes = [image_size(media) for media in conversation.images]
        num_tokens = self.renderer.num_tokens(text, answers, sizes)
        if self.max_length is not None and num_tokens > self.max_length:
            raise BadRowError(f"conversation is longer than {self.max_length} tokens", f"{num_tokens}")
        return ChatSample(text, answers, conversation.images, num_tokens)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each conversation, those of images included."""
        return [sample.num_tokens for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> ChatSample:
        """Return a sample with its images as RGB pictures; the next one that can be decoded where it cannot.

        Raises:
            InputError: no image of any row can be decoded.
        """
        for step in range(len(self.samples)):
            sample = self.samples[(index + step) % len(self.samples)]
            try:
                images: list[Media] = [_picture(media) for media in sample.images]
            except BadRowError as error:
                self.skipped[error.reason] += 1
                logger.warning("conversation %d is replaced by the next: %s", index + step, error)
                continue
            return ChatSample(sample.text, sample.answers, images, sample.num_tokens)
        raise InputError("no conversation has images that can be decoded")


def _picture(media: Media) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.moveaxis(decode_image(media), 0, -1)))


class ConversationCollator:
    """Samples to a batch: what the VLM's processor makes of their texts and images, and `labels` (B, S) int64.

    Labels are the tokens of answers, and -100 elsewhere: questions, images, padding. A PaliGemma's processor tells
    them itself.

    Args:
        processor: that of the VLM.

    Raises:
        InputError: when called, where the processor does not say where images are in a text, or adds to it.
    """

    def __init__(self, processor: ProcessorMixin):
        self.processor: Any = processor
        # they would try to make tensors of everything, and where images are in a text is none
        self.has_tensors_of_images_alone = isinstance(processor, Idefics3Processor | InternVLProcessor)
        is_prefix_suffix = isinstance(processor, PaliGemmaProcessor)
        self.prefix_suffix = PrefixSuffixRenderer(processor) if is_prefix_suffix else None

    def __call__(self, samples: Sequence[ChatSample]) -> dict[str, torch.Tensor]:
        """Return the batch, padded on the right."""
        images = [list(sample.images) for sample in samples]
        common: dict[str, Any] = {
            "images": images if any(images) else None,
            "padding": True,
            "padding_side": "right",
            "return_tensors": "pt",
        }
        if self.prefix_suffix is not None:
            texts = [self.prefix_suffix.processor_texts(sample.text, sample.answers) for sample in samples]
            questions, answers = (list(part) for part in zip(*texts, strict=True))
            return dict(self.processor(text=questions, suffix=answers, **common))
        if self.has_tensors_of_images_alone:
            common["images_kwargs"] = {"return_tensors": common.pop("return_tensors")}
        batch = self.processor(
            text=[sample.text for sample in samples],
            return_offsets_mapping=True,
            return_text_replacement_offsets=True,
            **special_tokens_option(self.processor.tokenizer, samples[0].text),
            **common,
        )
        offsets = torch.as_tensor(batch.pop("offset_mapping")).tolist()
        replacements = batch.pop("text_replacement_offsets", None) or [[] for _ in samples]
        for sample, replaced in zip(samples, replacements, strict=True):
            if len(replaced) != len(sample.images):
                raise InputError(f"{type(self.processor).__name__} does not say where images are in a text")
        for sample, replaced, places in zip(samples, replacements, offsets, strict=True):
            growth = replaced[-1]["new_span"][1] - replaced[-1]["span"][1] if replaced else 0
            if max(end for _, end in places) > len(sample.text) + growth:
                # answers would be looked for in the wrong places
                raise InputError(f"{type(self.processor).__name__} puts words of its own into texts")
        tensors = {name: torch.as_tensor(value) for name, value in batch.items()}
        labels = [
            token_labels(ids, offsets=places, spans=sample.answers, replacements=replaced, ignore_index=IGNORE_INDEX)
            for ids, places, sample, replaced in zip(
                tensors["input_ids"].tolist(), offsets, samples, replacements, strict=True
            )
        ]
        return {**tensors, "labels": torch.tensor(labels)}
