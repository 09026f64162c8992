# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Steps of curation: callables on batches, usable alone, in `datasets.map` and in Ray's `map_batches`."""
