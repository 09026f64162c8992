# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How fast a tower, its processor and a training step are, beside those of others: `turingvit benchmark`."""
