# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Videos: cut into shots and chunks, measured for motion and for how much of one thing they show."""
