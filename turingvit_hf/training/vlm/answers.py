# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Where the answers are in a conversation that a chat template has written out: the part that is trained on."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import jinja2
from transformers import ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template

from turingvit_hf.errors import BadRowError, InputError
from turingvit_hf.training.vlm.token_counts import Size, num_tokens_with_images


GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")
PROBE = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "first question"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "first answer"}]},
    {"role": "user", "content": [{"type": "text", "text": "second question"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "second answer"}]},
]

Span = tuple[int, int]


class ChatRenderer:
    """Writes conversations out by a VLM's chat template and says which characters are answers.

    A template with `{% generation %}` says so itself. Of others, the beginnings of a conversation are rendered: an
    answer is what comes between the rendering before it, with the prompt for an answer, and the rendering up to it.
    Where a beginning of the conversation is not a beginning of its text, nothing can be told, and that is an error.

    An answer includes the special token that ends it, without which a model would never learn to stop, and not the
    line break that templates put behind that. Where a template ends answers with nothing, the tokenizer's end token is
    put behind the last one.

    Args:
        processor: that of the VLM, with a chat template of its own or of its tokenizer.

    Raises:
        InputError: there is no chat template, it does not write images as the processor reads them, or it changes what
            came before when a conversation goes on.
    """

    def __init__(self, processor: ProcessorMixin):
        parts: Any = processor  # attributes of its family's class
        self.processor = processor
        template = parts.chat_template or parts.tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        if template is None:
            raise InputError("the processor has no chat template: set processor.chat_template")
        self.template: str = template
        self.tokenizer = parts.tokenizer
        self.image_token: str = parts.image_token
        added = self.tokenizer.added_tokens_decoder.values()
        names: set[str] = {*self.tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
        self.end_tokens: tuple[str, ...] = tuple(sorted(names - {self.image_token}, key=len, reverse=True))
        self._check_template()

    def _check_template(self) -> None:
        try:
            text, spans = self.render(PROBE)
        except BadRowError as error:
            raise InputError(f"the chat template cannot be trained with: {error}") from error
        if text.count(self.image_token) != 1 or "{'type'" in text:
            raise InputError(
                f"the chat template does not write {self.image_token!r} for an image: {text!r:.200}; set "
                "processor.chat_template to one for images"
            )
        for span, answer in zip(spans, ("first answer", "second answer"), strict=True):
            if answer not in text[slice(*span)] or "question" in text[slice(*span)]:
                raise InputError(f"the chat template marks {text[slice(*span)]!r} for the answer {answer!r}")

    def render(self, messages: Sequence[dict[str, Any]]) -> tuple[str, list[Span]]:
        """Return the text of a conversation, one image token an image, and where its answers start and end.

        Raises:
            BadRowError: a text holds the image token, the template refuses the conversation, or its beginnings are not
                beginnings of its text.
        """
        for message in messages:
            if any(self.image_token in part.get("text", "") for part in message["content"]):
                raise BadRowError("text holds the image token", self.image_token)
        text, marked = self._render(messages)
        answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if marked:
            if len(marked) != len(answers):
                raise BadRowError(
                    "chat template marks more or fewer answers than there are", f"{len(marked)}, {len(answers)}"
                )
            spans = [
                (start, self._end_behind(text, end, messages[: index + 1]))
                for (start, end), index in zip(marked, answers, strict=True)
            ]
        else:
            spans = [self._span(text, messages, index) for index in answers]
        return self._with_end_token(text, [self._trimmed(text, span) for span in spans])

    def num_tokens(self, text: str, answers: Sequence[Span], sizes: Sequence[Size]) -> int:
        """Return how many tokens the model sees of a rendered text, those of images of these (height, width) included.

        Raises:
            InputError: the processor has a setting under which it cannot be told.
        """
        return num_tokens_with_images(self.processor, text, sizes)

    def _render(self, messages: Sequence[dict[str, Any]], *, prompt: bool = False) -> tuple[str, list[Span]]:
        """The text and, of a template that marks answers, where they are."""
        does_mark = GENERATION_BLOCK.search(self.template) is not None
        try:
            (text,), marked = render_jinja_template(
                [list(messages)],
                chat_template=self.template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=does_mark,
                **self.tokenizer.special_tokens_map,
            )
        # a template for texts adds a list of parts to a text
        except (jinja2.TemplateError, TypeError) as error:
            raise BadRowError("chat template refuses the conversation", str(error)) from error
        return text, [(int(start), int(end)) for start, end in marked[0]] if does_mark else []

    def _span(self, text: str, messages: Sequence[dict[str, Any]], index: int) -> Span:
        before, _ = self._render(messages[:index], prompt=True)
        until, _ = self._render(messages[: index + 1])
        if not (text.startswith(until) and until.startswith(before)):
            raise BadRowError(
                "chat template changes what came before when a conversation goes on",
                "it has no {% generation %} to say where answers are, and beginnings of a conversation do not tell",
            )
        return len(before), len(until)

    def _end_behind(self, text: str, end: int, messages: Sequence[dict[str, Any]]) -> int:
        """The end of a marked answer, behind the token that ends it where the template marks the words alone."""
        until, _ = self._render(messages)
        if not text.startswith(until) or any(text[:end].rstrip().endswith(token) for token in self.end_tokens):
            return end
        behind = text[end : len(until)]
        token = next((token for token in self.end_tokens if behind.lstrip().startswith(token)), "")
        return text.index(token, end) + len(token) if token else end

    def _trimmed(self, text: str, span: Span) -> Span:
        """The answer without the white space behind the token that ends it."""
        start, end = span
        words = text[start:end].rstrip()
        return (start, start + len(words)) if words.endswith(self.end_tokens) else span

    def _with_end_token(self, text: str, spans: list[Span]) -> tuple[str, list[Span]]:
        start, end = spans[-1]
        if text[start:end].endswith(self.end_tokens) or text[end:].strip():
            return text, spans
        text = text[:end].rstrip() + self.tokenizer.eos_token
        return text, [*spans[:-1], (start, len(text))]


def token_labels(
    input_ids: Sequence[int],
    *,
    offsets: Sequence[Span],
    spans: Sequence[Span],
    replacements: Sequence[dict[str, Any]],
    ignore_index: int = -100,
) -> list[int]:
    """Return the token of each position that lies in an answer, and `ignore_index` for all others.

    A token that begins before an answer belongs to what was asked.

    Args:
        input_ids: tokens of one text, its image tokens multiplied.
        offsets: where in that text each token starts and ends; empty for padding and what the tokenizer adds.
        spans: where answers start and end in the text before image tokens were multiplied.
        replacements: for each image token, `span` before and `new_span` after, as processors report them.
        ignore_index: what the loss leaves out.
    """
    image_ends = [replacement["span"][1] for replacement in replacements]
    shifts = [0] + [replacement["new_span"][1] - replacement["span"][1] for replacement in replacements]
    labels = [ignore_index] * len(input_ids)
    for span in spans:
        start, end = (place + shifts[bisect_right(image_ends, place)] for place in span)
        for position, (token_start, token_end) in enumerate(offsets):
            if start <= token_start < token_end <= end:
                labels[position] = int(input_ids[position])
    return labels
