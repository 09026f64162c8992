# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""transformers' common model tests on an unmodified LLaVA whose vision tower is a TuringViT."""

import unittest

import torch
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaModel
from transformers_common_tests.test_modeling_common import ModelTesterMixin

from turingvit_hf import TuringViTConfig


IMAGE_TOKEN = 1
PAD_TOKEN = 0


class LlavaModelTester:
    """Builds a LLaVA of two layers on each side, and a batch with one image in each text."""

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent
        self.batch_size = 3
        self.image_size = 16
        self.patch_size = 8
        self.num_image_tokens = (self.image_size // self.patch_size) ** 2
        self.seq_length = 7 + self.num_image_tokens
        self.hidden_size = 32
        self.num_attention_heads = 4
        self.num_hidden_layers = 2
        self.vocab_size = 99
        self.is_training = True

    def get_config(self) -> LlavaConfig:
        """A tiny LLaVA's configuration, with the choices that a tower without class token asks for."""
        vision_config = TuringViTConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            patch_size=self.patch_size,
            image_size=self.image_size,
            layer_types=["linear_attention", "full_attention"],
            vision_use_head=False,
        )
        text_config = LlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=37,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_attention_heads,
            max_position_embeddings=64,
            pad_token_id=PAD_TOKEN,
            bos_token_id=2,
            eos_token_id=3,
        )
        return LlavaConfig(
            text_config=text_config,
            vision_config=vision_config,
            image_token_index=IMAGE_TOKEN,
            image_seq_length=self.num_image_tokens,
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            tie_word_embeddings=False,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[LlavaConfig, dict[str, torch.Tensor]]:
        """A configuration and what a forward takes: every text begins with its image."""
        input_ids = torch.randint(4, self.vocab_size, (self.batch_size, self.seq_length))
        input_ids[:, : self.num_image_tokens] = IMAGE_TOKEN
        return self.get_config(), {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": torch.rand(self.batch_size, 3, self.image_size, self.image_size),
        }


class LlavaTuringViTTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LlavaModel, LlavaForConditionalGeneration)
    _is_composite = True

    def setUp(self):
        self.model_tester = LlavaModelTester(self)

    @unittest.skip("the generation tests are not in the source distribution; the integration tests generate")
    def test_generation_tester_mixin_inheritance(self):
        pass

    def _image_features_get_expected_num_attentions(self, model_tester=None):
        # only the softmax layer of the tower has an attention map
        return 1

    def _image_features_get_expected_num_hidden_states(self, model_tester=None):
        return 3  # the embeddings and two layers

    def test_every_tower_parameter_gets_a_gradient(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = LlavaForConditionalGeneration(config).train()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        parameters = model.model.vision_tower.named_parameters()
        assert [name for name, p in parameters if p.grad is None or not p.grad.any()] == []
