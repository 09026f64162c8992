# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The commands `turingvit benchmark …`. Heavy imports stand inside: `--help` waits for those of the package alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from turingvit_hf.console import log_lines, one_line_errors, quiet_libraries


app = typer.Typer(
    help="Measure towers, processors and training steps beside those of others, random weights, on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

OUT = typer.Option(help="Folder of figures; the same one again goes on where a run ended.", show_default="none")
REPEATS = typer.Option(min=1, help="Timed runs of each form, all forms in turn.")
WARMUP = typer.Option(min=0, help="Runs of each form before those that are timed.")
THREADS = typer.Option(
    min=1,
    help="Of torch. With 1 the clock is processor time, which a busy machine changes little.",
    show_default="torch's own",
)
DEVICE = typer.Option(help="cpu or cuda.")
DTYPE = typer.Option(help="float32, bfloat16 or float16.")


@contextmanager
def _running() -> Iterator[None]:
    """What every sub-command runs in."""
    typer.echo("loading torch and transformers", err=True)
    with log_lines(), quiet_libraries(), one_line_errors():
        yield


@app.command(
    short_help="Forward passes over resolution: time, memory, operations, floor.",
    epilog="Example: turingvit benchmark latency --towers turingvit-18l --towers siglip2-l --side 512 --side 1536 "
    "--dtype bfloat16 --threads 1 --out latency",
)
def latency(
    towers: Annotated[
        list[str] | None,
        typer.Option(
            "--towers",
            "--tower",
            help="turingvit-18l, turingvit-24l, siglip2-l-naflex, siglip2-l, seed1.5-like, dinov3-l, qwen3-vl or "
            "naflexvit-l. Several with commas, or the option again; the others are compared with the first.",
            show_default="all",
        ),
    ] = None,
    sides: Annotated[
        list[str] | None,
        typer.Option(
            "--sides",
            "--side",
            help="Side of the square images in pixels, multiples of 32. Several with commas, or the option again.",
            show_default="512,768,1024,1280,1536",
        ),
    ] = None,
    dtype: Annotated[str, DTYPE] = "float32",
    mode: Annotated[str, typer.Option(help="eager, compiled or onnxruntime.")] = "eager",
    batch: Annotated[int, typer.Option(min=1, help="Images of a forward.")] = 1,
    device: Annotated[str, DEVICE] = "cpu",
    threads: Annotated[int | None, THREADS] = None,
    repeats: Annotated[int, REPEATS] = 5,
    warmup: Annotated[int, typer.Option(min=1, help="Runs of each tower before those that are timed.")] = 1,
    memory: Annotated[
        bool, typer.Option("--memory", help="Peak memory on a CPU too, each eager tower in a process of its own.")
    ] = False,
    operations: Annotated[
        bool, typer.Option(help="Share of time of each kind of operation, from one more forward.")
    ] = True,
    matmul_rate: Annotated[
        bool, typer.Option(help="Rate of this device's matrix products, for the floor of each tower's time.")
    ] = True,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Time the forward pass of whole towers, side by side, over resolution.

    All towers at all sides take hours on a few cores. Two towers at a side of 512 pixels take minutes.
    """
    with _running():
        from turingvit_hf.benchmarking.latency import run_latency
        from turingvit_hf.benchmarking.options import LatencyOptions, split_names, split_numbers

        options = LatencyOptions(
            towers=split_names(towers),
            sides=split_numbers(sides) or LatencyOptions.sides,
            dtype=dtype,
            mode=mode,
            batch=batch,
            device=device,
            threads=threads,
            repeats=repeats,
            warmup=warmup,
            memory=memory,
            operations=operations,
            matmul_rate=matmul_rate,
            out=out,
        )
        run_latency(options)


@app.command(
    short_help="Image processors over the most patches of a picture.",
    epilog="Example: turingvit benchmark preprocessing --pictures 32 --threads 1 --out preprocessing",
)
def preprocessing(
    pictures: Annotated[int, typer.Option(min=1, help="Pictures of a run.")] = 32,
    max_patches: Annotated[
        list[str] | None,
        typer.Option(
            help="Most patches of a picture. Several with commas, or the option again.", show_default="256,1024,4096"
        ),
    ] = None,
    threads: Annotated[int | None, THREADS] = None,
    repeats: Annotated[int, REPEATS] = 5,
    warmup: Annotated[int, WARMUP] = 1,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Time image processors on the same pictures."""
    with _running():
        from turingvit_hf.benchmarking.options import PreprocessingOptions, split_numbers
        from turingvit_hf.benchmarking.preprocessing import run_preprocessing

        options = PreprocessingOptions(
            pictures=pictures,
            max_patches=split_numbers(max_patches) or PreprocessingOptions.max_patches,
            threads=threads,
            repeats=repeats,
            warmup=warmup,
            out=out,
        )
        run_preprocessing(options)


@app.command(
    short_help="One training step: forward, backward and optimizer.",
    epilog="Example: turingvit benchmark training --layers 18 --images 8 --tokens 4096 --dtype bfloat16 "
    "--out training",
)
def training(
    layers: Annotated[int, typer.Option(min=1, help="Of the tower; 18 is TuringViT-18L.")] = 18,
    width: Annotated[int, typer.Option(min=64, help="Of the tower, in heads of 64.")] = 1280,
    images: Annotated[int, typer.Option(min=1, help="In a step.")] = 8,
    tokens: Annotated[int, typer.Option(min=1, help="Patches in a step, which the images share.")] = 4096,
    dtype: Annotated[str, DTYPE] = "float32",
    device: Annotated[str, DEVICE] = "cpu",
    threads: Annotated[int | None, THREADS] = None,
    repeats: Annotated[int, REPEATS] = 5,
    warmup: Annotated[int, WARMUP] = 1,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Time the training step of a tower."""
    with _running():
        from turingvit_hf.benchmarking.options import TrainingStepOptions
        from turingvit_hf.benchmarking.training_step import run_training_step

        options = TrainingStepOptions(
            layers=layers,
            width=width,
            images=images,
            tokens=tokens,
            dtype=dtype,
            device=device,
            threads=threads,
            repeats=repeats,
            warmup=warmup,
            out=out,
        )
        run_training_step(options)
