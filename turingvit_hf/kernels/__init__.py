# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Kernels that the tower is made of; they know torch (and Triton), nothing of transformers."""
