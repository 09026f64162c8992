# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Moved to turingvit_hf.files.output_folder: import it from there. This file goes."""

from turingvit_hf.files.output_folder import choose_folder, written_in_one_piece  # noqa: F401
