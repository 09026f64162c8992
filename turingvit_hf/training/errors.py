# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Moved to turingvit_hf.errors: import it from there. This file goes."""

from turingvit_hf.errors import BadRowError, InputError  # noqa: F401
