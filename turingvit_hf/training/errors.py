# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The error that means the input is at fault and not the program."""


class InputError(ValueError):
    """Data or an argument that the user can put right; the command line shows its one-line text and no traceback."""
