# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The parts of a stage of pretraining: its models, data, folder, report, and its command."""
