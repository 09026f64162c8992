# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""`turingvit pretrain` for launchers: `torchrun --nproc-per-node 8 -m turingvit_hf.training --recipe NAME ...`."""

import typer

from turingvit_hf.training.stages.command import pretrain


EXAMPLE = "torchrun --nproc-per-node 8 -m turingvit_hf.training --recipe 18l/stage1 --out stage1"

if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(epilog=f"Example: {EXAMPLE}")(pretrain)
    app()
