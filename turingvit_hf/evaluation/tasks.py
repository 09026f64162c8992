# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The tasks: from a data set and a model's features to figures."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.classes import Classes, read_classes
from turingvit_hf.evaluation.datasets import EvaluationData, open_evaluation_data
from turingvit_hf.evaluation.features import FeatureStore, ImageFeatures
from turingvit_hf.evaluation.figures import classification_figures, retrieval_figures, zero_shot_figures
from turingvit_hf.evaluation.linear_probe import sweep_linear_probe
from turingvit_hf.evaluation.neighbors import nearest_neighbor_scores
from turingvit_hf.evaluation.options import EvaluationOptions
from turingvit_hf.evaluation.probe_heads import AttentiveHeads, LinearHeads
from turingvit_hf.evaluation.probe_training import ProbeRecipe, probe_scores, sweep_probes
from turingvit_hf.evaluation.prompts import canonical, make_prompts, templates_of
from turingvit_hf.evaluation.shards import name_of
from turingvit_hf.evaluation.tokens import FeatureRows, TokenFiles


logger = logging.getLogger(__name__)

# rates and decays about those of AIM and V-JEPA; for SGD about those of DINOv2 (Oquab et al. 2023, arXiv 2304.07193)
ATTENTIVE = ProbeRecipe(learning_rates=(1e-4, 3e-4, 1e-3, 3e-3), weight_decays=(0.01, 0.1))
SGD = ProbeRecipe(
    learning_rates=(1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5), optimizer="sgd", warmup=0.0
)

Figures = tuple[dict[str, dict[str, Any]], dict[str, Any]]


def _zero_shot(options: EvaluationOptions, store: FeatureStore, device: torch.device) -> Figures:
    data = _open(options, "label")
    classes = _classes(options, data)
    templates = templates_of(options.templates)
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
    return figures, _counts(images) | {
        "num_classes": len(classes.names),
        "num_prompts": len(prompts),
    }


def _retrieval(options: EvaluationOptions, store: FeatureStore, device: torch.device) -> Figures:
    images = store.images(_open(options, "caption"), "embedding")
    captions = [texts[: options.max_captions] for texts in images.texts]
    texts = [canonical(text) if options.canonicalize else text for texts in captions for text in texts]
    image_of_text = torch.repeat_interleave(torch.tensor([len(texts) for texts in captions]))
    # each once, since the last bit of a feature depends on the batch around it, and equal captions shall tie
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    different_UE = store.texts(list(row_of))
    if not store.is_main:
        return {}, {}
    texts_ME = different_UE[[row_of[text] for text in texts]]
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
    chosen = few_shots(known.labels, options.shots, seed=options.seed, names=classes.names)
    features, labels = known.features[chosen].to(device), known.labels[chosen]
    details: dict[str, Any] = {"num_classes": num_classes, "num_training_images": len(chosen)}
    if options.task == "knn":
        scores = nearest_neighbor_scores(
            images.features.to(device), features, labels, num_classes=num_classes, k=options.neighbors
        )
    elif options.probe == "sgd":
        make = partial(_make_heads, LinearHeads, num_classes, options.seed)
        examples, tested = FeatureRows(features, labels), FeatureRows(images.features.to(device), images.labels)
        heads, shares = sweep_probes(make, examples, torch.arange(len(chosen)), _recipe(options), device=device)
        scores = probe_scores(heads, tested, device=device)
        details["held_out_top1_by_variant"] = shares
    else:
        probe, shares = sweep_linear_probe(features, labels, num_classes=num_classes, seed=options.seed)
        scores = probe.scores(images.features)
        details["held_out_top1_by_penalty"] = {str(penalty): share for penalty, share in shares.items()}
    return classification_figures(scores, images.labels, seed=options.seed), _counts(images) | details


def _attentive_probe(options: EvaluationOptions, store: FeatureStore, device: torch.device) -> Figures:
    """A probe of patch tokens; the state of its training lies beside them."""
    training = _open(options, "label", is_training=True)
    classes = _classes(options, training)
    known = store.tokens(training, classes, options.token_dtype)
    images = store.tokens(_open(options, "label"), classes, options.token_dtype)
    if not store.is_main:
        return {}, {}
    chosen = few_shots(known.labels, options.shots, seed=options.seed, names=classes.names)
    recipe = _recipe(options)
    spec = {"tokens": known.name, "rows": chosen.tolist(), "recipe": asdict(recipe), "torch": torch.__version__}
    heads, shares = sweep_probes(
        partial(_make_heads, AttentiveHeads, len(classes.names), options.seed),
        known,
        chosen,
        recipe,
        device=device,
        folder=store.folder / f"probe-{name_of(spec)}",
    )
    scores = probe_scores(heads, images, device=device)
    details = {"num_classes": len(classes.names), "num_training_images": len(chosen)}
    details |= {"held_out_top1_by_variant": shares, "num_tokens": int(known.lengths.sum() + images.lengths.sum())}
    return classification_figures(scores, images.labels, seed=options.seed), _counts(images) | details


def _recipe(options: EvaluationOptions) -> ProbeRecipe:
    """How the probes of a task are trained where nothing else is said."""
    recipe = ATTENTIVE if options.task == "attentive-probe" else SGD
    rates = tuple(options.learning_rates or recipe.learning_rates)
    return replace(recipe, learning_rates=rates, epochs=options.epochs, seed=options.seed)


def _make_heads(kind: Any, num_classes: int, seed: int, mean: Tensor, std: Tensor, num_heads: int) -> LinearHeads:
    return kind(mean, std, num_heads, num_classes, torch.Generator().manual_seed(seed))


def few_shots(labels: Tensor, shots: int | None, *, seed: int = 0, names: Sequence[str] | None = None) -> Tensor:
    """The rows of so many images of each class, drawn without replacement, in their order; of all with None.

    Args:
        labels: (N,) int64.
        shots: of each class.
        seed: of the draw.
        names: of the classes, for the error.

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
            name = label if names is None else repr(names[label])
            raise InputError(f"shots={shots}: class {name} has {len(rows)} training images that can be used")
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


def _counts(images: ImageFeatures | TokenFiles) -> dict[str, Any]:
    if images.left_out:
        logger.warning("left out, since they cannot be used: %s", images.left_out)
    return {"num_images": images.num_images, "left_out": images.left_out}


TASKS: dict[str, Callable[[EvaluationOptions, FeatureStore, torch.device], Figures]] = {
    "zero-shot": _zero_shot,
    "retrieval": _retrieval,
    "knn": _probe,
    "linear-probe": _probe,
    "attentive-probe": _attentive_probe,
}
