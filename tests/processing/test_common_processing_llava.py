# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""transformers' common processor tests on the processor of a LLaVA around a TuringViT."""

import unittest

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers_common_tests.test_processing_common import ProcessorTesterMixin

from turingvit_hf import TuringViTImageProcessor, TuringViTLlavaProcessor


TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


# the common test of saved chat templates reads a file and leaves it open
@pytest.mark.filterwarnings("ignore:Exception ignored .*jinja:pytest.PytestUnraisableExceptionWarning")
class TuringViTLlavaProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    """The common tests; images of the tests have 400 by 30 pixels, here 50 by 4 tokens at most."""

    processor_class = TuringViTLlavaProcessor
    images_text_kwargs_max_length = 300
    images_text_kwargs_override_max_length = 280
    images_unstructured_max_length = 290

    @classmethod
    def _setup_tokenizer(cls) -> PreTrainedTokenizerFast:
        special = {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "<image>": 4}
        letters = {chr(code): index for index, code in enumerate(range(32, 127), start=5)}
        tokenizer = Tokenizer(models.WordLevel(special | letters, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        tokenizer.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            unk_token="<unk>",
            bos_token="<s>",
            eos_token="</s>",
            additional_special_tokens=["<image>"],
        )

    @classmethod
    def _setup_image_processor(cls) -> TuringViTImageProcessor:
        return TuringViTImageProcessor(patch_size=8, return_image_sizes=True, max_patches=200)

    @staticmethod
    def prepare_processor_dict() -> dict:
        return {"chat_template": TEMPLATE}
