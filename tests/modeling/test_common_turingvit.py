# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""transformers' common model, configuration and backbone tests on the tower and the models on top of it."""

import unittest

import pytest
import torch
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)
from transformers_common_tests.test_backbone_common import BackboneTesterMixin
from transformers_common_tests.test_configuration_common import ConfigTester
from transformers_common_tests.test_modeling_common import ModelTesterMixin

from turingvit_hf import (
    TuringViTBackbone,
    TuringViTConfig,
    TuringViTForImageClassification,
    TuringViTForMaskedImageModeling,
    TuringViTModel,
)


@pytest.fixture(autouse=True)
def known_model_names(monkeypatch):
    """The common tests tell what a model is for by these tables, which registration does not fill."""
    monkeypatch.setitem(MODEL_MAPPING_NAMES, "turingvit", "TuringViTModel")
    monkeypatch.setitem(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "turingvit", "TuringViTForImageClassification")
    monkeypatch.setitem(MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING_NAMES, "turingvit", "TuringViTForMaskedImageModeling")


class TuringViTModelTester:
    """Builds a tower of one linear and one softmax layer, and a batch of images of one size for it."""

    layer_types = ("linear_attention", "full_attention")

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent
        self.batch_size = 3
        self.image_size = 32
        self.patch_size = 8
        self.num_channels = 3
        self.hidden_size = 32
        self.num_attention_heads = 4
        self.num_hidden_layers = len(self.layer_types)
        self.seq_length = (self.image_size // self.patch_size) ** 2
        self.num_labels = 4
        self.num_masks = 6
        self.teacher_hidden_size = 8
        self.is_training = True

    def get_config(self) -> TuringViTConfig:
        """The tiny tower's configuration."""
        return TuringViTConfig(
            hidden_size=self.hidden_size,
            intermediate_size=64,
            num_hidden_layers=len(self.layer_types),
            num_attention_heads=self.num_attention_heads,
            num_channels=self.num_channels,
            patch_size=self.patch_size,
            image_size=self.image_size,
            layer_types=list(self.layer_types),
            num_labels=self.num_labels,
            teacher_hidden_size=self.teacher_hidden_size,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[TuringViTConfig, dict[str, torch.Tensor]]:
        """A configuration and what a forward takes."""
        shape = (self.batch_size, self.num_channels, self.image_size, self.image_size)
        return self.get_config(), {"pixel_values": torch.rand(shape)}


class TuringViTModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (TuringViTModel, TuringViTForImageClassification, TuringViTForMaskedImageModeling)
    test_resize_embeddings = False  # a tower has no vocabulary

    def setUp(self):
        self.model_tester = TuringViTModelTester(self)
        self.config_tester = ConfigTester(self, config_class=TuringViTConfig, has_text_modality=False, hidden_size=80)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        # the common inputs for a masked image model mask nothing, and its loss is against features of a teacher
        inputs_dict = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if "bool_masked_pos" in inputs_dict:
            inputs_dict["bool_masked_pos"][:, : self.model_tester.num_masks] = 1
            shape = (*inputs_dict["bool_masked_pos"].shape, self.model_tester.teacher_hidden_size)
            inputs_dict["teacher_features"] = torch.ones(shape)
        return inputs_dict

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model_get_set_embeddings(self):
        # the common test expects a table of token embeddings; patches go through a linear layer, and nothing comes out
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            assert model.get_input_embeddings() is model.base_model.patch_embed
            assert model.get_output_embeddings() is None

    def test_attention_outputs(self):
        # only softmax layers have attention maps, and the common test expects as many as this attribute says
        self.model_tester.num_hidden_layers = self.model_tester.layer_types.count("full_attention")
        super().test_attention_outputs()


class TuringViTBackboneTest(BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (TuringViTBackbone,)
    config_class = TuringViTConfig

    def setUp(self):
        self.model_tester = TuringViTModelTester(self)
