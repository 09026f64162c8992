# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Measures of a trained tower."""
