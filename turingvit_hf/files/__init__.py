# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Files and folders that people write and read: strict YAML, outputs that appear complete or not at all."""
