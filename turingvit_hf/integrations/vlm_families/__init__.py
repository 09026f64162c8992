# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How each family of VLMs takes a tower; `turingvit_hf.integrations.tower_swap` is what uses them."""
