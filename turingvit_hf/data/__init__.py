# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows of images, videos and captions wherever they lie: opened, found, decoded. Training and curation read them."""
