# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `turingvit evaluate`, which is also `python -m turingvit_hf.evaluation`.

Heavy imports stand inside: `--help` waits for those of the package alone.
"""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from turingvit_hf.console import log_lines, one_line_errors, quiet_libraries


def evaluate(
    model: Annotated[str, typer.Option(help="Dual encoder of transformers, or a tower: a folder or a hub id.")],
    task: Annotated[str, typer.Option(help="zero-shot, retrieval, knn, linear-probe or attentive-probe.")],
    data: Annotated[
        str,
        typer.Option(
            help="Images with classes or captions: a folder, parquet, tars, JSON lines, a hub id, the caption files "
            "of COCO, or Karpathy's splits."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of results and features; it may hold those of other tasks.")],
    name: Annotated[
        str | None,
        typer.Option(
            help="Of the data; imagenet-1k, -v2, -a, -r, -sketch, objectnet, coco and flickr30k have the report's "
            "figures beside them.",
            show_default="last part of --data",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Of a hub data set, or of Karpathy's.")] = "test",
    train_data: Annotated[str | None, typer.Option(help="For knn and probes: images to learn from.")] = None,
    train_split: Annotated[str, typer.Option(help="Of --train-data, if it is a hub data set.")] = "train",
    images: Annotated[str | None, typer.Option(help="Folder that --data names its files from.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="File of class names (a line each, or JSON); imagenet-1k, -v2, -sketch, -a or -r out of timm, with "
            ":clip behind it for CLIP's names out of open_clip_torch; or objectnet:FOLDER of its mappings.",
            show_default="those of the data",
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="name, photo, clip-7, siglip, clip-80 (out of open_clip_torch), or prompts with {}, one each time.",
            show_default="photo",
        ),
    ] = None,
    canonicalize: Annotated[
        bool, typer.Option("--canonicalize", help="Texts in lower case and without punctuation, as SigLIP wants.")
    ] = False,
    features: Annotated[
        str, typer.Option(help="Of knn and linear-probe: embedding, pooled, or mean (of patch tokens).")
    ] = "pooled",
    shots: Annotated[int | None, typer.Option(min=1, help="Images of each class to learn from.")] = None,
    neighbors: Annotated[int, typer.Option(min=1, help="The k of knn.")] = 20,
    probe: Annotated[str, typer.Option(help="How a linear probe is fitted: lbfgs, or sgd at many rates.")] = "lbfgs",
    epochs: Annotated[int, typer.Option(min=1, help="Of an attentive probe, and of a linear one by sgd.")] = 20,
    learning_rate: Annotated[
        list[float] | None,
        typer.Option(help="Of these, to choose from; may be given many times.", show_default="those of their recipes"),
    ] = None,
    token_dtype: Annotated[
        str, typer.Option(help="In which an attentive probe's tokens are kept: float16, bfloat16 or float32.")
    ] = "float16",
    media_column: Annotated[str | None, typer.Option(help="Column of images.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of labels or captions.")] = None,
    max_samples: Annotated[int | None, typer.Option(min=1, help="Images to read, from the front.")] = None,
    max_captions: Annotated[int | None, typer.Option(min=1, help="Of one image, such as 5 for COCO.")] = None,
    crop_border: Annotated[int, typer.Option(min=0, help="Pixels to cut off on each side; ObjectNet: 2.")] = 0,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels of squares; TuringViT's own is native resolution.")
    ] = None,
    max_patches: Annotated[int | None, typer.Option(min=1, help="Of one image of native resolution.")] = None,
    tokens_per_batch: Annotated[int, typer.Option(min=1, help="Patches of a batch.")] = 16_384,
    revision: Annotated[str | None, typer.Option(help="Of a hub model.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str | None, typer.Option(help="Such as cpu.", show_default="an accelerator")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of intervals, shots and the sweep.")] = 0,
) -> None:
    """Measure a dual encoder or tower: zero-shot classification, retrieval, k-NN, linear and attentive probes.

    On several processes: torchrun --nproc-per-node 8 -m turingvit_hf.evaluation, with the same options; the figures
    are the same. A run that was interrupted goes on.
    """
    is_main = os.environ.get("RANK", "0") == "0"
    if is_main:
        typer.echo("loading torch and transformers", err=True)
    with log_lines(logging.INFO if is_main else logging.ERROR), quiet_libraries(), one_line_errors():
        from turingvit_hf.evaluation.options import EvaluationOptions
        from turingvit_hf.evaluation.run import run_evaluation

        has_prompts = template is not None and any("{}" in entry for entry in template)
        options = EvaluationOptions(
            model=model,
            task=task,
            data=data,
            out=str(out),
            name=name,
            split=split,
            train_data=train_data,
            train_split=train_split,
            images=images,
            classes=classes,
            templates=tuple(template)
            if template and (has_prompts or len(template) > 1)
            else (template or ["photo"])[0],
            canonicalize=canonicalize,
            features=features,
            shots=shots,
            neighbors=neighbors,
            probe=probe,
            epochs=epochs,
            learning_rates=tuple(learning_rate) if learning_rate else None,
            token_dtype=token_dtype,
            media_column=media_column,
            text_column=text_column,
            max_samples=max_samples,
            max_captions=max_captions,
            crop_border=crop_border,
            image_size=image_size,
            max_patches=max_patches,
            tokens_per_batch=tokens_per_batch,
            revision=revision,
            dtype=dtype,
            device=device,
            seed=seed,
        )
        result = run_evaluation(options)
        if is_main:
            for figure, values in result["figures"].items():
                low, high = values["interval"]
                typer.echo(
                    f"{figure}: {100 * values['value']:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}, "
                    f"chance {100 * values['chance']:.2f})"
                )
            typer.echo(f"next: look at {out / 'table.md'}")
