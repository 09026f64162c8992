# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""One evaluation from start to end: features in shards, the task's figures, results in a folder."""

import hashlib
import json
import logging
import os
import re
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from torch import Tensor

import turingvit_hf
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.classes import Classes, read_classes
from turingvit_hf.evaluation.datasets import EvaluationData, open_evaluation_data
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.evaluation.features import FeatureStore, ImageFeatures, identity_of_files
from turingvit_hf.evaluation.figures import classification_figures, retrieval_figures, zero_shot_figures
from turingvit_hf.evaluation.linear_probe import sweep_linear_probe
from turingvit_hf.evaluation.neighbors import nearest_neighbor_scores
from turingvit_hf.evaluation.options import EvaluationOptions, check, describe
from turingvit_hf.evaluation.prompts import TEMPLATES, canonical, make_prompts
from turingvit_hf.evaluation.report import make_table, read_results


logger = logging.getLogger(__name__)

# a process may wait for the slowest for so long
PATIENCE = timedelta(days=2)

Figures = tuple[dict[str, dict[str, Any]], dict[str, Any]]


def run_evaluation(options: EvaluationOptions) -> dict[str, Any]:
    """The figures of one task, written to `results/` in the folder, beside `table.md` of all results there.

    Features are kept in the folder: a run that was interrupted goes on, and another task on the same images computes
    nothing twice. Under torchrun or accelerate each process makes its share of them; the figures are those of one.

    Returns:
        `{"task", "name", "model", "figures": {name: {"value", "interval", "chance"}}, "num_images", "left_out", ...}`,
        shares in [0, 1]. In processes other than the first one there are no figures.

    Raises:
        InputError: an option, the model or the data is at fault.
    """
    check(options)
    processes = PartialState(cpu=options.device == "cpu", timeout=PATIENCE)
    device = str(processes.device) if options.device is None else options.device
    encoder = TransformersEncoder(
        options.model,
        revision=options.revision,
        dtype=options.dtype,
        device=device,
        image_size=options.image_size,
        max_patches=options.max_patches,
        tokens_per_batch=options.tokens_per_batch,
    )
    identity = _identity(options, encoder, device)
    store = FeatureStore(encoder, identity, Path(options.out).expanduser() / "features", processes)
    task = {"zero-shot": _zero_shot, "retrieval": _retrieval, "knn": _probe, "linear-probe": _probe}[options.task]
    figures, details = task(options, store, torch.device(device))
    result = {
        "task": options.task,
        "name": options.name or Path(options.data).stem,
        "model": options.model,
        "setting": describe(options),
        "figures": figures,
        **details,
        "options": asdict(replace(options, out=str(options.out))),
        "num_processes": processes.num_processes,
        "versions": {module.__name__: module.__version__ for module in (turingvit_hf, torch, transformers)},
    }
    if processes.is_main_process:
        _write(result, Path(options.out).expanduser())
    processes.wait_for_everyone()
    return result


def _zero_shot(options: EvaluationOptions, store: FeatureStore, device: torch.device) -> Figures:
    data = _open(options, "label")
    classes = _classes(options, data)
    templates = TEMPLATES[options.templates] if isinstance(options.templates, str) else options.templates
    prompts = make_prompts(classes.names, templates, canonicalize=options.canonicalize)
    prompts_ME = store.texts(prompts)
    images = store.images(data, "embedding", classes)
    if not store.is_main:
        return {}, {}
    figures = zero_shot_figures(
        images.features.to(device),
        prompts_ME.to(device),
        images.labels,
        num_classes=len(classes.names),
        seed=options.seed,
    )
    return figures, _counts(images) | {"num_classes": len(classes.names), "num_prompts": len(prompts)}


def _retrieval(options: EvaluationOptions, store: FeatureStore, device: torch.device) -> Figures:
    images = store.images(_open(options, "caption"), "embedding")
    captions = [texts[: options.max_captions] for texts in images.texts]
    texts = [canonical(text) if options.canonicalize else text for texts in captions for text in texts]
    image_of_text = torch.repeat_interleave(torch.tensor([len(texts) for texts in captions]))
    texts_ME = store.texts(texts)
    if not store.is_main:
        return {}, {}
    figures = retrieval_figures(images.features.to(device), texts_ME.to(device), image_of_text, seed=options.seed)
    return figures, _counts(images) | {"num_texts": len(texts)}


def _probe(options: EvaluationOptions, store: FeatureStore, device: torch.device) -> Figures:
    """k-NN or a linear probe."""
    training = _open(options, "label", is_training=True)
    classes = _classes(options, training)
    num_classes = len(classes.names)
    known = store.images(training, options.features, classes)
    images = store.images(_open(options, "label"), options.features, classes)
    if not store.is_main:
        return {}, {}
    chosen = few_shots(known.labels, options.shots, seed=options.seed)
    features, labels = known.features[chosen].to(device), known.labels[chosen]
    details: dict[str, Any] = {"num_classes": num_classes, "num_training_images": len(chosen)}
    if options.task == "knn":
        scores = nearest_neighbor_scores(
            images.features.to(device), features, labels, num_classes=num_classes, k=options.neighbors
        )
    else:
        probe, shares = sweep_linear_probe(features, labels, num_classes=num_classes, seed=options.seed)
        scores = probe.scores(images.features)
        details["held_out_top1_by_penalty"] = {str(penalty): share for penalty, share in shares.items()}
    return classification_figures(scores, images.labels, seed=options.seed), _counts(images) | details


def few_shots(labels: Tensor, shots: int | None, *, seed: int = 0) -> Tensor:
    """The rows of so many images of each class, drawn without replacement, in their order; of all with None.

    Args:
        labels: (N,) int64.
        shots: of each class.
        seed: of the draw.

    Raises:
        InputError: a class has fewer.
    """
    if shots is None:
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = []
    for label in labels.unique().tolist():
        rows = order[labels[order] == label]
        if len(rows) < shots:
            raise InputError(f"shots={shots}: class {label} has {len(rows)} training images")
        chosen.append(rows[:shots])
    return torch.cat(chosen).sort().values


def _open(options: EvaluationOptions, texts: str, *, is_training: bool = False) -> EvaluationData:
    path = options.train_data if is_training else options.data
    assert path is not None, "checked before"
    data = open_evaluation_data(
        path,
        texts=texts,
        split=options.train_split if is_training else options.split,
        media_column=options.media_column,
        text_column=options.text_column,
        images=None if is_training else options.images,
        max_samples=None if is_training else options.max_samples,
        crop_border=options.crop_border,
    )
    logger.info("%s: %d images", path, len(data))
    return data


def _classes(options: EvaluationOptions, data: EvaluationData) -> Classes:
    return data.own_classes() if options.classes is None else read_classes(options.classes)


def _counts(images: ImageFeatures) -> dict[str, Any]:
    if images.left_out:
        logger.warning("left out, since they cannot be used: %s", images.left_out)
    return {"num_images": len(images.features), "left_out": images.left_out}


def _identity(options: EvaluationOptions, encoder: TransformersEncoder, device: str) -> dict[str, Any]:
    """What features depend on beside the data."""
    return {
        "model": options.model,
        "files": identity_of_files(options.model),
        "revision": getattr(encoder.network.config, "_commit_hash", None),
        "dtype": options.dtype,
        "device": torch.device(device).type,
        "image_options": encoder.image_options,
        "tokens_per_batch": options.tokens_per_batch,
        "transformers": transformers.__version__,
    }


def _write(result: dict[str, Any], folder: Path) -> None:
    """Writes a result beside others, and the table of all."""
    words = (result["task"], result["name"], Path(result["model"]).name, result["setting"])
    file = "-".join(re.sub(r"[^\w.]+", "_", word) for word in words)
    # checkpoints of two runs may be called the same
    file += "-" + hashlib.sha256(f"{result['model']} {result['options']['revision']}".encode()).hexdigest()[:6]
    try:
        (folder / "results").mkdir(parents=True, exist_ok=True)
        _replace(folder / "results" / f"{file}.json", json.dumps(result, indent=2) + "\n")
        _replace(folder / "table.md", make_table(read_results(folder / "results")))
    except OSError as error:
        raise InputError(f"cannot write results to {folder}: {error.strerror}") from error


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
