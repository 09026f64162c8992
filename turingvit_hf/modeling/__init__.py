# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The tower: configuration, packing, position, attention, pooling and the models made of them."""
