# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How commands speak: log lines on standard output, no noise from libraries, one line where the input is at fault."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from turingvit_hf.errors import DivergedError, InputError


@contextmanager
def log_lines(level: int = logging.INFO) -> Iterator[None]:
    """Shows what the package logs as plain lines on standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("turingvit_hf")
    package.addHandler(handler)
    package.setLevel(level)
    try:
        yield
    finally:
        package.removeHandler(handler)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps the progress bars and reports of other libraries out of ours."""
    import datasets
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # It misses an optional package as soon as it is imported, which peft does where it is installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
        datasets.enable_progress_bars()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends with exit code 1 and one line where input or recipe is at fault; a fault of ours keeps its traceback."""
    try:
        yield
    except (InputError, DivergedError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def describe_load_error(error: Exception, **options: str) -> str:
    """Return one line about what could not be loaded: the option and its value, where that is no folder here.

    Args:
        error: what transformers, or a check, said of it.
        options: of the command that name checkpoints, with their values.
    """
    text = " ".join(str(error).split())
    if isinstance(error, OSError) or "Repo id" in text:  # transformers does not name what it looked for
        for name, value in options.items():
            if not Path(value).expanduser().exists():
                return f"--{name} {value!r}: there is no such folder, and no model on the hub that can be had: {text}"
    return text
