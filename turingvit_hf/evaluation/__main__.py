# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""`turingvit evaluate` for launchers: `torchrun --nproc-per-node 8 -m turingvit_hf.evaluation --model DIR ...`."""

import typer

from turingvit_hf.evaluation.command import evaluate


EXAMPLE = "torchrun --nproc-per-node 8 -m turingvit_hf.evaluation --model DIR --task retrieval --data coco --out eval"

if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(epilog=f"Example: {EXAMPLE}")(evaluate)
    app()
