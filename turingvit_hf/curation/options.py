# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What several commands of `turingvit curate` can be told, and what is made of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from turingvit_hf.errors import InputError


Folder = Annotated[Path, typer.Argument(help="The run folder.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A YAML file with what differs from the defaults.", show_default="none")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A value that differs from the config, such as thresholds.quality.min_side=128 or "
        "'sources=[{path: my/pictures}]'. May be given many times.",
    ),
]
EngineName = Annotated[str, typer.Option("--engine", help="local: processes here; ray: actors of a Ray cluster.")]
Workers = Annotated[int, typer.Option("--num-workers", min=1, help="Shards that are worked on at a time.")]
Cpus = Annotated[
    list[str] | None,
    typer.Option(
        "--num-cpus", metavar="[STAGE=]N", help="CPUs of a worker of Ray, of all stages or of one; may be repeated."
    ),
]
Gpus = Annotated[
    list[str] | None,
    typer.Option(
        "--num-gpus",
        metavar="[STAGE=]N",
        help="GPUs likewise, such as embed=1; fractions share a GPU between workers.",
    ),
]
Address = Annotated[
    str | None, typer.Option("--address", help="Of a Ray cluster, such as ray://head:10001.", show_default="none")
]
LogJson = Annotated[
    bool | None,
    typer.Option(
        "--log-json/--bar",
        help="Progress as lines of JSON, or as a bar.",
        show_default="a bar on a terminal, else lines",
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Read the first N rows only: limit=N in the config.")
]
Sample = Annotated[
    float | None, typer.Option("--sample", help="Read this share of the rows only: sample=P in the config.")
]


def with_limits(overrides: list[str] | None, limit: int | None, sample: float | None) -> list[str]:
    """Return `--set`'s values with those of `--limit` and `--sample`."""
    given = {"limit": limit, "sample": sample}
    return [*(overrides or ()), *(f"{name}={value}" for name, value in given.items() if value is not None)]


def engine_options(
    name: str, num_workers: int, num_cpus: list[str] | None, num_gpus: list[str] | None, address: str | None
) -> Any:
    """Return the `EngineOptions` of the command line.

    Raises:
        InputError: they do not go together.
    """
    from turingvit_hf.curation.engines import EngineOptions

    return EngineOptions(
        name, num_workers, _amounts("--num-cpus", num_cpus), _amounts("--num-gpus", num_gpus), address
    )


def _amounts(option: str, texts: list[str] | None) -> dict[str, float]:
    """`["1", "embed=2"]` as `{"": 1, "embed": 2}`."""
    amounts = {}
    for text in texts or ():
        stage, _, number = text.rpartition("=")
        try:
            amounts[stage] = float(number)
        except ValueError as error:
            raise InputError(f"{option} {text}: {number!r} is no number") from error
    return amounts


def shard_range(text: str | None) -> range | None:
    """Return `"A:B"` as a range.

    Raises:
        InputError: it reads otherwise.
    """
    if text is None:
        return None
    first, colon, after = text.partition(":")
    if not colon or not first.isdecimal() or not after.isdecimal() or int(first) >= int(after):
        raise InputError(f"--shards {text}: it must read A:B with A < B, such as 0:100")
    return range(int(first), int(after))
