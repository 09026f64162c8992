# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Moved to turingvit_hf.files.yaml_files: import it from there. This file goes."""

from turingvit_hf.files.yaml_files import dump_yaml, parse_yaml, read_yaml  # noqa: F401
