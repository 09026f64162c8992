# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The commands that look at a run: report, tune, explain. `command.py` registers them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from turingvit_hf.console import one_line_errors
from turingvit_hf.curation.speaking import place_errors
from turingvit_hf.errors import InputError


Folder = Annotated[Path, typer.Argument(help="The run folder.")]


def report(out: Folder) -> None:
    """Write report.html and report.json into the run folder: funnel, measurements with their thresholds, captions,
    pictures that were kept, dropped and nearly dropped, duplicates, boxes, errors.

    The page holds everything itself and needs no network. The run may be unfinished.
    """
    with one_line_errors(), place_errors():
        from turingvit_hf.curation.report.page import write_report

        for file in write_report(out):
            typer.echo(str(file))


def tune(
    out: Folder,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.NAME=VALUE",
            help="A threshold, such as quality.min_side=128 or score.top_fraction=0.3; null switches one off. May be "
            "given many times.",
        ),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Write the thresholds into the run's config; the next `run` goes on with them."),
    ] = False,
) -> None:
    """Show what other thresholds would keep and drop, from what the run has stored, in seconds.

    Nothing is measured or asked anew, and without --apply nothing is changed.
    """
    with one_line_errors(), place_errors():
        from turingvit_hf.curation import tune as tuning

        result = tuning.tune(out, _values(overrides or ()))
        _console().print(tuning.as_table(result))
        if apply and result.changes:
            tuning.apply(out, result)
            typer.echo(f"the thresholds are written into {out / 'config.yaml'}; next: turingvit curate run {out}")
        elif result.changes:
            typer.echo("nothing is changed; --apply writes the thresholds into the run's config")


def explain(
    out: Folder,
    sample_id: Annotated[str, typer.Argument(metavar="ID", help="The sample's id, or the beginning of it.")],
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Write a PNG as well: the picture with its boxes beside its candidates.", show_default="none"
        ),
    ] = None,
) -> None:
    """Show all that is stored of a sample: what became of it and why, its measurements, candidates with scores and
    verdicts, and boxes.
    """
    with one_line_errors(), place_errors():
        from turingvit_hf.curation import explain as explaining

        found = explaining.explain(out, sample_id)
        _console().print(explaining.as_table(found))
        if figure is not None:
            typer.echo(str(explaining.write_figure(out, found, figure)))


def _values(overrides: Iterable[str]) -> dict[str, Any]:
    """`["quality.min_side=128"]` as `{"quality.min_side": 128}`; the config's own name of a threshold will do too."""
    from turingvit_hf.files.yaml_files import parse_yaml

    values = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"--set {override}: it must read SECTION.NAME=VALUE, such as quality.min_side=128")
        values[name.strip().removeprefix("thresholds.")] = parse_yaml(text, f"--set {override}")
    if not values:
        raise InputError("no threshold is given: --set quality.min_side=128")
    return values


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)
