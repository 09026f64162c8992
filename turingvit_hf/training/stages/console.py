# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Moved to turingvit_hf.console: import it from there. This file goes."""

from turingvit_hf.console import log_lines, one_line_errors, quiet_libraries  # noqa: F401
