# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The usual names of columns, in the order in which they are looked for."""

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png", "webp")
CAPTION_COLUMNS = ("caption", "text", "captions", "sentence", "description", "label", "txt")
