# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Training a VLM of transformers with a TuringViT in it: conversations, their labels, and the two stages of LLaVA."""
