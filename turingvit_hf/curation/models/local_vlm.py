# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A vision-language model of transformers that answers questions in this process."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from turingvit_hf.curation.models.answers import Answer, Question
from turingvit_hf.curation.models.loading import load, move, pick_device
from turingvit_hf.curation.models.pictures import shrink
from turingvit_hf.errors import InputError


class LocalVLM:
    """Any model that `AutoModelForImageTextToText` loads, answering in batches with the likeliest token at each step.

    Answers to a question do not depend on a seed. In float32 they hardly depend on what else is in the batch; in
    smaller dtypes two tokens that are nearly as likely may change places, and a batch size of 1 rules that out.

    Loaded when the first question comes.

    Args:
        model: hub id or folder.
        name: how reports call it; empty: `model`.
        revision: of a hub model.
        dtype: of the weights.
        device: None takes an accelerator where there is one.
        batch_size: questions at a time.
        max_tokens: of an answer.
        max_pixels: images are made this small; None leaves them to the model's processor.
    """

    prompt_price = 0.0
    completion_price = 0.0

    def __init__(
        self,
        model: str,
        *,
        name: str = "",
        revision: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 8,
        max_tokens: int = 128,
        max_pixels: int | None = None,
    ):
        if batch_size < 1 or max_tokens < 1:
            raise InputError(f"batch_size and max_tokens must be 1 or more, not {batch_size} and {max_tokens}")
        self.model = model
        self.name = name or model
        self.revision = revision
        self.parameters: dict[str, Any] = {"do_sample": False, "max_tokens": max_tokens, "max_pixels": max_pixels}
        self._dtype = dtype
        self._device = device
        self._batch_size = batch_size
        self._network: Any = None
        self._processor: Any = None

    def answer(self, questions: Sequence[Question], done: Callable[[int, Answer], None]) -> None:
        """Answer every question, batch after batch, those without images apart.

        Raises:
            InputError: the model cannot be loaded, or its processor has no chat template.
        """
        self._load()
        # a processor takes a batch in which all have images or none has
        for has_images in (True, False):
            wanted = [index for index, question in enumerate(questions) if bool(question.images) is has_images]
            for start in range(0, len(wanted), self._batch_size):
                indices = wanted[start : start + self._batch_size]
                for index, answer in zip(indices, self._generate([questions[i] for i in indices]), strict=True):
                    done(index, answer)

    def _load(self) -> None:
        if self._network is not None:
            return
        self._device = pick_device(self._device)
        self._processor = load(AutoProcessor, self.model, self.revision)
        if getattr(self._processor, "chat_template", None) is None:
            raise InputError(f"the processor of {self.model!r} has no chat template, so it cannot be asked questions")
        # texts of unlike lengths end together, where the answer begins
        self._processor.tokenizer.padding_side = "left"
        network = load(AutoModelForImageTextToText, self.model, self.revision, dtype=self._dtype)
        self._network = network.to(self._device).eval()

    @torch.inference_mode()
    def _generate(self, questions: Sequence[Question]) -> list[Answer]:
        started = time.monotonic()
        max_tokens = self.parameters["max_tokens"]
        inputs = self._inputs(questions)
        prompt_length = inputs["input_ids"].shape[1]
        generated = self._network.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=max_tokens)
        # what transformers fills up with after an answer has ended, and what ends one
        config = self._network.generation_config
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        latency = (time.monotonic() - started) / len(questions)
        answers = []
        for row, mask in zip(generated[:, prompt_length:].tolist(), inputs["attention_mask"], strict=True):
            length = next((place for place, token in enumerate(row) if token in ends), None)
            new = row if length is None else row[:length]
            answers.append(
                Answer(
                    text=self._processor.tokenizer.decode(new, skip_special_tokens=True),
                    finish_reason="length" if length is None else "stop",
                    prompt_tokens=int(mask.sum()),
                    completion_tokens=len(row) if length is None else length + 1,
                    latency=latency,
                )
            )
        return answers

    def _inputs(self, questions: Sequence[Question]) -> dict[str, torch.Tensor]:
        texts = []
        for question in questions:
            content = [{"type": "image"} for _ in question.images] + [{"type": "text", "text": question.prompt}]
            messages = [{"role": "user", "content": content}]
            texts.append(self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        limit = self.parameters["max_pixels"] or math.inf
        pictures = [[shrink(image, limit) for image in question.images] for question in questions]
        images = {"images": pictures} if pictures[0] else {}
        inputs = self._processor(text=texts, padding=True, return_tensors="pt", **images)
        return move(inputs, self._network)

    def __getstate__(self) -> dict[str, Any]:
        # each process loads it for itself
        return self.__dict__ | {"_network": None, "_processor": None}
