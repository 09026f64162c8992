# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A hybrid linear-attention vision tower for transformers."""

__version__ = "0.1.0.dev0"
