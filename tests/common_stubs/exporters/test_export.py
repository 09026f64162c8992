# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Stands in for transformers' export tests, which its source distribution does not contain: torch.export only."""

import unittest

import torch
from transformers.exporters.configs import DynamoConfig
from transformers.exporters.exporter_dynamo import DynamoExporter
from transformers.testing_utils import set_model_for_less_flaky_test


class ExportTesterMixin:
    """Exports each model class through `torch.export` and compares what the program returns with the model."""

    def _check_export(self, dynamic: bool) -> None:
        if not self.test_torch_exportable:
            raise unittest.SkipTest("the test class says that its models cannot be exported")
        for model_class in self.all_model_classes:
            with self.subTest(model_class.__name__):
                config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
                inputs = self._prepare_for_class(inputs, model_class)
                model = model_class(config).eval()
                set_model_for_less_flaky_test(model)
                with torch.no_grad():
                    expected = model(**inputs)
                program = DynamoExporter().export(model, dict(inputs), DynamoConfig(dynamic=dynamic)).program
                exported = program.module()(**inputs)
                tensors = {name: value for name, value in expected.items() if isinstance(value, torch.Tensor)}
                assert tensors
                for name, value in tensors.items():
                    torch.testing.assert_close(exported[name], value)

    def test_torch_export_static(self):
        self._check_export(dynamic=False)

    def test_torch_export_dynamic(self):
        self._check_export(dynamic=True)
