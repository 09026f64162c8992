# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The error that means the input is at fault and not the program, and the one that means a single row is."""


class InputError(ValueError):
    """Data or an argument that the user can put right; the command line shows its one-line text and no traceback."""


class DivergedError(RuntimeError):
    """Training went wrong: so many steps in a row had no finite loss or gradient. The recipe can put that right."""


class BadRowError(ValueError):
    """A row that cannot be used. It is left out and counted.

    Args:
        reason: what rows like it are counted by, without anything of the row itself.
        detail: which row, and what is the matter with it.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
