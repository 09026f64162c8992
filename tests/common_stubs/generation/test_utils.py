# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Stands in for transformers' generation tests, which its source distribution does not contain."""


class GenerationTesterMixin:
    """Marks the test classes of models that generate; a tower does not, and the common tests check that."""
