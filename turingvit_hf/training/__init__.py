# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pretraining with Hugging Face Trainer: data, losses, objectives, trainer, a quickstart through all of them; VLMs."""
