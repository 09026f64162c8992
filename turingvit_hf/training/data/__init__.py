# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""From sources to the packs of a step: rows, readers with a state, samples, best-filled packs."""
