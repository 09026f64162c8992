# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Images and videos to patches: geometry, the image processor and the video processor."""
