# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Moved to turingvit_hf.data.shapes: import it from there. This file goes."""

from turingvit_hf.data.shapes import *  # noqa: F403
