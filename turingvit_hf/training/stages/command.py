# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `turingvit pretrain`, which is also `python -m turingvit_hf.training`.

Heavy imports stand inside: `--help` waits for those of the package alone.
"""

import logging
import os
from collections.abc import Sequence
from typing import Annotated

import typer

from turingvit_hf.console import log_lines, one_line_errors, quiet_libraries


# sysexits.h, EX_TEMPFAIL: not finished, try again
STOPPED = 75


def pretrain(
    recipe: Annotated[
        str | None, typer.Option(help="A shipped recipe (--list shows them) or a YAML file, of a stage or of a chain.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder to write; one with results is for --resume only.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A value that differs from the recipe, such as training.learning_rate=1e-4 or "
            "'data.sources=[{path: my/pictures}]'. May be given many times. In a chain stage2.KEY is for its second "
            "stage only.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out, if there is one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done and what is wrong with it, and do nothing.")
    ] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the shipped recipes.")] = False,
) -> None:
    """Pretrain a tower by a recipe: masked distillation, image-text, native resolution, image-video.

    On several processes: torchrun --nproc-per-node 8 -m turingvit_hf.training, or accelerate launch -m
    turingvit_hf.training, with the same options.

    Exit codes: 0 finished, or nothing wrong in a dry run; 1 an option, the recipe or the data is at fault; 75 stopped
    by SIGTERM or Ctrl-C after a checkpoint was written, so that --resume goes on.
    """
    if list_recipes:
        _echo_recipes()
        return
    if recipe is None:
        raise typer.BadParameter("say which recipe; --list shows those that are shipped", param_hint="--recipe")
    if out is None and not dry_run:
        raise typer.BadParameter("say which folder to write", param_hint="--out")
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    with log_lines(level), quiet_libraries(), one_line_errors():
        if out is None or dry_run:
            if not _echo_plan(recipe, overrides or (), out="OUT" if out is None else out):
                raise typer.Exit(1)
        elif not _run(recipe, overrides or (), out=out, resume=resume):
            raise typer.Exit(STOPPED)


def _run(recipe: str, overrides: Sequence[str], *, out: str, resume: bool) -> bool:
    """Whether the stage or chain was finished."""
    from turingvit_hf.training.pretraining import run_chain, run_pretraining
    from turingvit_hf.training.recipes import is_chain, load_chain, load_recipe
    from turingvit_hf.training.stages.folder import is_finished

    if not is_chain(recipe):
        return is_finished(run_pretraining(load_recipe(recipe, overrides), out=out, resume=resume))
    chain = load_chain(recipe, overrides)
    folder = run_chain(chain, out=out, resume=resume)
    return is_finished(folder) and folder.name == f"stage{len(chain.stages)}"


def _echo_plan(recipe: str, overrides: Sequence[str], *, out: str) -> bool:
    """Shows what would be done; whether it could start."""
    from turingvit_hf.training.recipes import is_chain, load_chain, load_recipe
    from turingvit_hf.training.stages.checks import find_faults, linked, num_launched
    from turingvit_hf.training.stages.folder import output_folder
    from turingvit_hf.training.stages.plan import describe_plan

    num_ranks, folder = num_launched(), output_folder(out)
    stages = [(folder, load_recipe(recipe, overrides))] if not is_chain(recipe) else []
    stages = stages or load_chain(recipe, overrides).in_folder(folder)
    could_start = True
    for place, stage, before in linked(stages):
        if len(stages) > 1:
            typer.echo(f"---- {place.name}: {stage.name} ----")
        typer.echo(describe_plan(stage, out=place, num_ranks=num_ranks, before=before) + "\n")
        could_start &= not find_faults(stage, num_ranks=num_ranks, before=before)
    return could_start


def _echo_recipes() -> None:
    """Shows each shipped recipe with the first sentence that its file begins with."""
    from turingvit_hf.training.recipes import describe_shipped

    for name, sentence in describe_shipped().items():
        typer.echo(f"{name:<14}{sentence}")
