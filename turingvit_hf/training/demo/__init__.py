# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The parts of the quickstart: its time budget, progress, demonstrations and report."""
