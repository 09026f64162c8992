# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""From features to figures: each a share with its confidence interval and the level that guessing reaches."""

from typing import Any

import torch
from torch import Tensor, nn

from turingvit_hf.evaluation.rankings import expected_hits
from turingvit_hf.evaluation.retrieval import retrieval_hits
from turingvit_hf.evaluation.statistics import bootstrap_interval, mean_of_groups
from turingvit_hf.evaluation.zero_shot import mean_of_prompts


RANKS = (1, 5)
RETRIEVAL_RANKS = (1, 5, 10)


def classification_figures(scores: Tensor, labels: Tensor, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """`{"top1": ..., "top5": ..., "mean_per_class": ...}`, each `{"value", "interval", "chance"}` in [0, 1].

    Classes that tie are taken to come in random order. Top 5 is left out where there are no more classes. The mean per
    class is over the classes that have images; its interval draws images, as those of the others do.

    Args:
        scores: (N, C) higher is more likely.
        labels: (N,) int64.
        seed: of the bootstrap.
    """
    num_classes = scores.shape[1]
    ks = [k for k in RANKS if k == 1 or k < num_classes]
    right = nn.functional.one_hot(labels, num_classes).bool()
    hits = torch.cat(
        [expected_hits(s, r, ks=ks) for s, r in zip(scores.split(1024), right.split(1024), strict=True)], 1
    )
    figures = {f"top{k}": _figure(hit, k / num_classes, seed) for k, hit in zip(ks, hits, strict=True)}
    values, groups = hits[0].numpy(), labels.numpy()
    interval = bootstrap_interval(values, groups=groups, seed=seed)
    mean = mean_of_groups(values, groups)
    figures["mean_per_class"] = {"value": mean, "interval": list(interval), "chance": 1 / num_classes}
    return figures


def zero_shot_figures(
    images: Tensor, prompts: Tensor, labels: Tensor, *, num_classes: int, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """`classification_figures` of the cosines between images and the means of classes' prompts.

    Args:
        images: (N, E) of any length.
        prompts: (C times the number of templates, E), those of one class after the other.
        labels: (N,) int64.
        num_classes: C.
        seed: of the bootstrap.
    """
    classes_CE = mean_of_prompts(prompts, num_classes)
    scores_NC = nn.functional.normalize(images.float(), dim=-1) @ classes_CE.T
    return classification_figures(scores_NC.cpu(), labels, seed=seed)


def retrieval_figures(
    images: Tensor, texts: Tensor, image_of_text: Tensor, *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """`{"image_to_text_R@1": ..., "text_to_image_R@1": ..., ...}`, each `{"value", "interval", "chance"}` in [0, 1].

    The interval draws images, and with each its captions. Ranks that reach all candidates are left out.

    Args:
        images: (N, E) of any length.
        texts: (M, E) of any length.
        image_of_text: (M,) int64 the row of each caption's image.
        seed: of the bootstrap.
    """
    hits = retrieval_hits(images, texts, image_of_text, ks=RETRIEVAL_RANKS)
    num_captions = torch.bincount(image_of_text.cpu(), minlength=len(images)).double()
    figures = {}
    for name, hit, clusters, num_candidates in (
        ("image_to_text", hits[0], None, len(texts)),
        ("text_to_image", hits[1], image_of_text.cpu().numpy(), len(images)),
    ):
        for k, values in zip(RETRIEVAL_RANKS, hit, strict=True):
            if k == 1 or k < num_candidates:
                right = num_captions if name == "image_to_text" else torch.ones(1, dtype=torch.float64)
                chance = _chance(right, num_candidates, k)
                figures[f"{name}_R@{k}"] = _figure(values, chance, seed, clusters)
    return figures


def _chance(num_right: Tensor, num_candidates: int, k: int) -> float:
    """The recall at k of guessing, 1 - (C-c choose k) / (C choose k), averaged over queries with c right ones of C."""
    miss = torch.ones_like(num_right)
    for draw in range(min(k, num_candidates)):
        miss *= (num_candidates - num_right - draw).clamp(min=0) / (num_candidates - draw)
    return float((1 - miss).mean())


def _figure(values: Tensor, chance: float, seed: int, clusters: Any = None) -> dict[str, Any]:
    interval = bootstrap_interval(values.numpy(), clusters, seed=seed)
    return {"value": float(values.mean()), "interval": list(interval), "chance": chance}
