# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The command line `turingvit`: it parses arguments, calls the Python API and shows what that logs.

Heavy imports stand inside the commands, so that `turingvit --help` waits for those of the package alone.
"""

import functools
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from turingvit_hf.benchmarking.command import app as benchmark
from turingvit_hf.console import describe_load_error, log_lines, one_line_errors, quiet_libraries
from turingvit_hf.curation.command import app as curate
from turingvit_hf.evaluation.command import evaluate
from turingvit_hf.training.planning.command import plan
from turingvit_hf.training.stages.command import pretrain


app = typer.Typer(
    help="Train, try and inspect TuringViT vision towers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _commands() -> None:
    """Train, try and inspect TuringViT vision towers."""


@app.command(
    short_help="Train a small tower, search with it, put it into a LLaVA.",
    epilog="Example: turingvit quickstart --data shapes --minutes 5 --out my-first-tower",
)
def quickstart(
    data: Annotated[
        str,
        typer.Option(
            help="shapes (rendered here, no download), stamps (Tux Paint's, from a Debian package), a folder of "
            "pictures with metadata.jsonl or metadata.csv, a folder with one sub-folder a class, a parquet file, or a "
            "dataset id on the Hugging Face hub."
        ),
    ] = "shapes",
    minutes: Annotated[float, typer.Option(help="Wall-clock time for everything, in minutes.")] = 5.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write; refused if it is not empty.",
            show_default="first free of turingvit-quickstart, turingvit-quickstart-2, ...",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of data, split, weights and order.")] = 0,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Let --out replace the result of an earlier quickstart, never anything else."
        ),
    ] = False,
) -> None:
    """Train a small tower on image-caption pairs, measure retrieval, reload it, ask it, put it into a LLaVA."""
    typer.echo("loading torch and transformers", err=True)
    with log_lines(), quiet_libraries(), one_line_errors():
        from turingvit_hf.training.quickstart import run_quickstart

        _, folder = run_quickstart(data, minutes=minutes, out=out, seed=seed, overwrite=overwrite)
        typer.echo(
            f"next: look at {folder / 'quickstart.png'}, then `import turingvit_hf` and "
            f"`AutoModel.from_pretrained({str(folder / 'vision_tower')!r})`, or train on your own: --data FOLDER"
        )


app.command(
    short_help="Pretrain a tower, one stage or several, by a recipe.",
    epilog="Example: turingvit pretrain --recipe tiny/stage2 --set training.max_steps=200 --out stage2",
)(pretrain)
app.command(
    short_help="Say what pretraining costs, before it starts.",
    epilog="Example: turingvit plan --recipe 18l/stage2 --gpus 64 --gpu H100 --mfu 0.35",
)(plan)


app.add_typer(curate, name="curate", short_help="Curate image-text and video-text data.")


@app.command(
    short_help="Put a tower into an existing VLM.",
    epilog="Example: turingvit swap --vlm llava-hf/llava-1.5-7b-hf --tower stage3/vision_tower --out my-vlm",
)
def swap(
    vlm: Annotated[str, typer.Option(help="The VLM with its processor: a folder or a hub id.")],
    tower: Annotated[str, typer.Option(help="The tower: a folder or a hub id.")],
    out: Annotated[Path, typer.Option(help="Folder to write; refused if it is not empty.")],
    token_reduction: Annotated[
        str | None, typer.Option(help="mean_pool or pixel_unshuffle: one token of two by two before the projector.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels of the squares, for families that cut images into them.")
    ] = None,
    max_image_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of an image, for families of native resolution.")
    ] = None,
) -> None:
    """Put a tower in the place of a VLM's vision encoder; everything else keeps its weights."""
    typer.echo("loading torch and transformers", err=True)
    with log_lines(), quiet_libraries(), one_line_errors():
        from turingvit_hf.errors import InputError
        from turingvit_hf.integrations.tower_swap import swap_saved_vlm

        try:
            result = swap_saved_vlm(
                vlm,
                tower,
                out,
                token_reduction=token_reduction,
                image_size=image_size,
                max_image_tokens=max_image_tokens,
            )
        except (ValueError, OSError) as error:  # what the checks refuse, and what transformers cannot load
            raise InputError(describe_load_error(error, vlm=vlm, tower=tower)) from error
        typer.echo(f"{type(result.model).__name__} in {out}; one image takes up to {result.image_tokens} tokens")
        typer.echo(f"newly initialized, to be trained first: {', '.join(result.newly_initialized) or 'nothing'}")
        typer.echo("next: `import turingvit_hf`, then AutoModelForImageTextToText and AutoProcessor load it")


@app.command(
    short_help="Ask a VLM about pictures.",
    epilog="Example: turingvit chat --model my-vlm --image cat.jpg --prompt 'What is this?'",
)
def chat(
    model: Annotated[str, typer.Option(help="The VLM with its processor: a folder or a hub id.")],
    image: Annotated[list[str], typer.Option(help="A picture: a file or a URL; give the option again for more.")],
    prompt: Annotated[
        str | None, typer.Option(help="What to ask.", show_default="turn by turn, until an empty line")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
) -> None:
    """Answer about pictures, word by word as the answer comes."""
    typer.echo("loading torch and transformers", err=True)
    with quiet_libraries(), one_line_errors():
        from turingvit_hf.errors import InputError
        from turingvit_hf.integrations.chat import converse, load_chat

        if prompt is None and not is_terminal():
            raise InputError("no question: give --prompt TEXT, or run the command in a terminal")
        write = functools.partial(typer.echo, nl=False)
        try:
            conversation = load_chat(model, image, max_new_tokens=max_new_tokens)
            if prompt is not None:
                conversation.ask(prompt, write=write)
                typer.echo()
            else:
                converse(conversation, read=lambda: input("> "), write=write)
        except (ValueError, OSError) as error:  # what is refused, and what transformers cannot load
            raise InputError(describe_load_error(error, model=model)) from error


def is_terminal() -> bool:
    """Whether somebody can be asked on standard input."""
    return sys.stdin.isatty()


app.command(
    short_help="Measure a dual encoder or tower: zero-shot, retrieval, k-NN, probes.",
    epilog="Example: turingvit evaluate --model stage3/model --task retrieval --data my/pairs --out results",
)(evaluate)


app.add_typer(benchmark, name="benchmark", short_help="Measure towers, processors and training steps beside others.")


@app.command(
    short_help="Write a tower or dual encoder as ONNX.",
    epilog="Example: turingvit export --model stage3/vision_tower --out onnx --form dense --form packed",
)
def export(
    model: Annotated[str, typer.Option(help="Tower, classifier or dual encoder: a folder or a hub id.")],
    out: Annotated[Path, typer.Option(help="Folder to write; refused if it is not empty.")],
    form: Annotated[
        list[str] | None,
        typer.Option(
            help="dense: batches of images of one size; packed: patches with their grid. May be given twice.",
            show_default="dense",
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16, or int8 (of matrix products).")] = "float32",
    output: Annotated[
        list[str] | None,
        typer.Option(help="last_hidden_state or pooler_output of a tower. May be given twice.", show_default="all"),
    ] = None,
    program: Annotated[
        bool, typer.Option("--program", help="Save each graph as a torch.export program (.pt2) too.")
    ] = False,
) -> None:
    """Write ONNX files that take any image size, each compared with the model before it is kept."""
    typer.echo("loading torch and transformers", err=True)
    with log_lines(), quiet_libraries(), one_line_errors():
        from turingvit_hf.errors import InputError
        from turingvit_hf.integrations.onnx.export import export_saved

        try:
            exported = export_saved(
                model, out, forms=tuple(form or ("dense",)), dtype=dtype, outputs=output, program=program
            )
        except (ValueError, OSError, ImportError) as error:  # what is refused, cannot be loaded or is missing
            raise InputError(describe_load_error(error, model=model)) from error
        for entry in exported:
            error = max(check.max_error for check in entry.checks)
            cosine = min(check.min_cosine for check in entry.checks)
            typer.echo(
                f"{out / entry.file}: {len(entry.checks)} comparisons, error at most {error:.1e}, cosine at least "
                f"{cosine:.6f}"
            )
        typer.echo(f"next: onnxruntime.InferenceSession({str(out / exported[0].file)!r}); export.json has the figures")


@app.command(
    short_help="Serve a VLM over HTTP, as `transformers serve` does.",
    context_settings={"ignore_unknown_options": True},
    # its help is that of transformers
    add_help_option=False,
)
def serve(
    arguments: Annotated[list[str] | None, typer.Argument(help="What stands behind `transformers serve`.")] = None,
) -> None:
    """Run `transformers serve`, with all its options, in a process that knows the package."""
    with one_line_errors():
        from turingvit_hf.errors import InputError
        from turingvit_hf.integrations import serving

        try:
            serving.serve(arguments or [])
        except (ValueError, OSError) as error:  # what is missing, and what transformers cannot load
            raise InputError(str(error)) from error


@app.command(short_help="Show versions, devices and backends.", epilog="Example: turingvit info")
def info() -> None:
    """Show versions, devices, and which backend of linear attention runs on each device and why."""
    import torch
    import transformers

    import turingvit_hf
    from turingvit_hf.kernels.linear_attention import BACKENDS, explain_backend, self_test

    for module in (turingvit_hf, torch, transformers):
        typer.echo(f"{module.__name__} {module.__version__}")
    typer.echo(f"python {platform.python_version()} on {platform.platform()}")
    typer.echo(f"backends of linear attention: {', '.join(sorted(BACKENDS))}")
    typer.echo(f"  {_triton_version()}")
    state = "on" if self_test.is_on() else "off, as TURINGVIT_SELF_TEST says"
    typer.echo(f"  self-test of its kernels on their first use: {state}")
    typer.echo(f"  launches of its kernels: {_launch_source()}")
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    for device in (torch.device("cpu"), *devices):
        if device.type == "cpu":
            name = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
        else:
            properties = torch.cuda.get_device_properties(device)
            name = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        backend, reason = explain_backend(device)
        typer.echo(f"{device}: {name}\n  linear attention in bfloat16 runs on {backend}: {reason}")


def _triton_version() -> str:
    """The version of Triton, or why there is none."""
    if importlib.util.find_spec("triton") is None:
        return "no triton: the package is not installed (torch for CUDA and ROCm brings it along on Linux)"
    try:
        import triton
    except ImportError as error:
        return f"no triton: the installed package cannot be imported: {error}"
    return f"triton {triton.__version__}"


def _launch_source() -> str:
    """Where the launches of kernels come from, or what is wrong with the file that the environment names."""
    from turingvit_hf.kernels.linear_attention.launch_table import FILE_VARIABLE, read_launches

    path = os.environ.get(FILE_VARIABLE)
    if not path:
        return "the table of this package"
    try:
        return f"{len(read_launches(path))} of {path}, as {FILE_VARIABLE} says, the others from the table"
    except (OSError, ValueError) as error:
        return f"none, {FILE_VARIABLE} names a file that cannot be used: {error}"
