# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tiny VLM of every family with a TuringViT in it, a tokenizer of bytes, and a chat template of the family."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.integrations import square_vlms, test_tower_swap_qwen
from tests.integrations import tower_swap_cases as cases
from tests.integrations.tiny import tiny_processor
from turingvit_hf.integrations.tower_swap import swap_vision_tower


def _template(user: str, assistant: str, *, prompt: str, start: str = "", image: str) -> str:
    """A chat template: what stands around a question and around an answer, before the first turn, and for an image."""
    before, after = user.split("TEXT")
    answer_before, answer_after = assistant.split("TEXT")
    parts = (
        "{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}{{- '" + image + "' -}}"
        "{%- else -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}"
    )
    return (
        "{{- '" + start + "' -}}{%- for message in messages -%}{%- if message['role'] == 'assistant' -%}"
        "{{- '" + answer_before + "' -}}" + parts + "{{- '" + answer_after + "' -}}{%- else -%}"
        "{{- '" + before + "' -}}" + parts + "{{- '" + after + "' -}}{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '" + prompt + "' -}}{%- endif -%}"
    )


def _chatml(image: str) -> str:
    return _template(
        r"<|im_start|>user\nTEXT<|im_end|>\n",
        r"<|im_start|>assistant\nTEXT<|im_end|>\n",
        prompt=r"<|im_start|>assistant\n",
        image=image,
    )


def _mistral(image: str) -> str:
    return _template("[INST]TEXT[/INST]", "TEXT</s>", prompt="", start="<s>", image=image)


def _idefics(image: str) -> str:
    return _template(
        r"User: TEXT<end_of_utterance>\n",
        r"Assistant: TEXT<end_of_utterance>\n",
        prompt="Assistant:",
        start="<s>",
        image=image,
    )


CHATML, MISTRAL = ("<|im_start|>", "<|im_end|>"), ("[INST]", "[/INST]")


@dataclass(frozen=True)
class Family:
    """How a family writes conversations.

    Attributes:
        make: makes its VLM and processor, with a tower of its own.
        template: its chat template; None where it has none.
        control: special tokens of the template.
        before: what of an answer's turn comes before the answer and is trained on.
        end: what ends an answer.
    """

    make: Callable[[], tuple[PreTrainedModel, Any]]
    template: str | None
    control: tuple[str, ...] = ()
    before: str = ""
    end: str = "</s>"


FAMILIES = {
    "llava": Family(cases.make_llava, _template("USER: TEXT ", "ASSISTANT: TEXT ", prompt="ASSISTANT:",
                                                image=r"<image>\n"), before=" "),
    "pixtral": Family(cases.make_pixtral, _mistral("[IMG]"), MISTRAL),
    "mistral3": Family(cases.make_mistral3, _mistral("[IMG]"), MISTRAL),
    "llava_next": Family(cases.make_llava_next, _template("[INST] TEXT [/INST]", " TEXT</s> ", prompt="",
                                                          image=r"<image>\n"), MISTRAL, before=" "),
    "llava_onevision": Family(cases.make_llava_onevision, _chatml(r"<image>\n"), CHATML, end="<|im_end|>"),
    "qwen2_5_vl": Family(test_tower_swap_qwen.make_qwen2_5, _chatml("<|vision_start|><|image_pad|><|vision_end|>"),
                         CHATML, end="<|im_end|>"),
    "qwen3_vl": Family(test_tower_swap_qwen.make_qwen3, _chatml("<|vision_start|><|image_pad|><|vision_end|>"),
                       CHATML, end="<|im_end|>"),
    "qwen3_vl_moe": Family(test_tower_swap_qwen.make_qwen3_moe,
                           _chatml("<|vision_start|><|image_pad|><|vision_end|>"), CHATML, end="<|im_end|>"),
    "internvl": Family(square_vlms.make_internvl, _chatml(r"<IMG_CONTEXT>\n"), CHATML, end="<|im_end|>"),
    "gemma3": Family(
        square_vlms.make_gemma3,
        _template(
            r"<start_of_turn>user\nTEXT<end_of_turn>\n",
            r"<start_of_turn>model\nTEXT<end_of_turn>\n",
            prompt=r"<start_of_turn>model\n",
            start="<s>",
            image="<start_of_image>",
        ),
        ("<start_of_turn>", "<end_of_turn>"),
        end="<end_of_turn>",
    ),
    "idefics3": Family(square_vlms.make_idefics3, _idefics("<image>"), before=" ", end="<end_of_utterance>"),
    "smolvlm": Family(square_vlms.make_smolvlm, _idefics("<image>"), before=" ", end="<end_of_utterance>"),
    "paligemma": Family(square_vlms.make_paligemma, None),
}  # fmt: skip


def byte_tokenizer(old: PreTrainedTokenizerFast, control: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Bytes, with the special tokens of the old tokenizer at their old places, and those of a chat template."""
    words = old.convert_ids_to_tokens(range(len(old)))
    special = list(takewhile(lambda token: not re.fullmatch(r"w\d+", token), words))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *control, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    settings = {key: value for key, value in old.init_kwargs.items() if key != "backend"}
    new = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)
    new.add_tokens([*special, *control], special_tokens=True)
    return new


def make_family(name: str) -> tuple[PreTrainedModel, Any]:
    """A VLM of the family with a TuringViT in it, the same weights at each call, and its processor."""
    torch.manual_seed(0)
    family = FAMILIES[name]
    vlm, processor = family.make()
    processor.tokenizer = byte_tokenizer(processor.tokenizer, family.control)
    if family.end == "<|im_end|>":
        processor.tokenizer.eos_token = family.end
    processor.chat_template = family.template
    vlm.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    # as released towers have it; training may not depend on what it draws
    tower = cases.make_tower(pos_embed_rescale=2.0)
    result = swap_vision_tower(vlm, tower, processor=processor, image_processor=tiny_processor())
    return result.model, result.processor
