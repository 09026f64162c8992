# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Models of curation by protocol: what captions, verifies, fuses, judges, scores and detects."""
