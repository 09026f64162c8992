# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What joins a tower to the world outside of this package."""
