# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The report of a run: one page without a network, and its numbers as JSON."""
