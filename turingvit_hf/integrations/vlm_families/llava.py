# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""LLaVA-1.5, LLaVA-NeXT, LLaVA-OneVision, and Pixtral and Mistral3: towers behind a projector of two matrices."""

from turingvit_hf.integrations.vlm_families.adapter import TowerAdapter


ADAPTERS: tuple[TowerAdapter, ...] = ()
