# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""ONNX: graphs of towers and dual encoders at any image size, checked against torch before they are kept."""
