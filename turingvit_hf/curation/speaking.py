# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How `turingvit curate` ends where it cannot go on: one line, an exit code, and no answer lost."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from turingvit_hf.console import log_lines, one_line_errors, quiet_libraries
from turingvit_hf.errors import InputError


TOO_MANY_ERRORS = 3
# of the place that is written to, and no fault of ours
OF_THE_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


@contextmanager
def place_errors() -> Iterator[None]:
    """Turns a full disk, a quota and a folder that nothing may be written to into an `InputError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in OF_THE_PLACE:
            raise
        place = f"{error.filename}: " if error.filename else ""
        raise InputError(
            f"{place}{error.strerror or error}; what is stored stays, and the same command goes on from it"
        ) from error


@contextmanager
def speaking() -> Iterator[None]:
    """Log lines on standard output, one line for what the user can put right, exit code 3 for too many errors."""
    with log_lines(logging.INFO), quiet_libraries(), one_line_errors(), place_errors():
        from turingvit_hf.curation.runs import TooManyErrorsError

        try:
            yield
        except TooManyErrorsError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(TOO_MANY_ERRORS) from None
