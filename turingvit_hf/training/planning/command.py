# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `turingvit plan`. Heavy imports stand inside: `--help` waits for those of the package alone."""

import json
from typing import Annotated

import typer

from turingvit_hf.console import one_line_errors, quiet_libraries


def plan(
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a YAML file, of a stage or of a chain.")],
    gpus: Annotated[int, typer.Option(help="How many GPUs.")],
    gpu: Annotated[
        str,
        typer.Option(
            help="Which kind, such as H100, H800, A100, L40S or MI300X; any other as NAME:TFLOPS:GB, its dense "
            "bfloat16 operations and its memory."
        ),
    ] = "H100",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A value that differs from the recipe, as in pretrain."),
    ] = None,
    mfu: Annotated[
        float, typer.Option(help="Share of the GPUs' peak that goes into what the mathematics needs, 0 to 1.")
    ] = 0.3,
    images: Annotated[
        list[float] | None,
        typer.Option(
            help="Images of your data; with --epochs they give the steps. Once for all stages, or once for each."
        ),
    ] = None,
    epochs: Annotated[
        list[float] | None, typer.Option(help="How often each image is seen; once for all stages, or once for each.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Of a GPU and hour.")] = None,
    native_patches: Annotated[int, typer.Option(help="Patches of an image of native resolution on average.")] = 2500,
    frame_patches: Annotated[int, typer.Option(help="Patches of a frame of a clip on average.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Tell what a stage or chain will cost: operations, parameters, memory, days. Needs no GPU and no download."""
    with quiet_libraries(), one_line_errors():
        from turingvit_hf.training.planning.plan import plan_training

        planned = plan_training(
            recipe,
            num_gpus=gpus,
            gpu=gpu,
            overrides=overrides or (),
            mfu=mfu,
            images=images or (),
            epochs=epochs or (),
            price=price,
            native_patches=native_patches,
            frame_patches=frame_patches,
        )
        typer.echo(json.dumps(planned.to_dict(), indent=2) if as_json else planned.describe())
