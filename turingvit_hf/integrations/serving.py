# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""`transformers serve` in a process that knows the package, which that command itself does not import."""

from collections.abc import Sequence

from transformers.utils.import_utils import is_serve_available


def serve(arguments: Sequence[str]) -> None:
    """Run `transformers serve` with these arguments until it is stopped; it ends the process.

    Args:
        arguments: What stands behind `transformers serve`, such as `["my-vlm", "--port", "8000"]`.

    Raises:
        ValueError: What the server needs is not installed.
        OSError: There is no such model.
    """
    if not is_serve_available():
        raise ValueError("the server needs packages that are not installed: pip install 'turingvit_hf[serving]'")
    # imported late: transformers builds its server from the packages that may be missing
    from transformers.cli.transformers import app

    app(["serve", *arguments], prog_name="turingvit")


__all__ = ["serve"]
