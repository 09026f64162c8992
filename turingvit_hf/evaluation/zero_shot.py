# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Zero-shot classification: a class is the mean of its prompts' embeddings, an image belongs to the nearest class."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


PROMPTS_AT_ONCE = 256


@torch.inference_mode()
def class_embeddings(
    model: Any,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    tokenize: Callable[[list[str]], Mapping[str, Tensor]],
) -> Tensor:
    """One embedding for each class, (C, E) in float32 on the CPU, L2-normalized.

    Each template makes a prompt of each name; the prompts' normalized embeddings are averaged and normalized again, as
    CLIP does (Radford et al. 2021, arXiv 2103.00020, section 3.1.4).

    Args:
        model: a dual encoder with `get_text_features`, put into evaluation mode for the call.
        class_names: the C names.
        templates: prompts, each with `{}` where the name goes.
        tokenize: makes `input_ids` and `attention_mask` of a list of texts.

    Raises:
        ValueError: there is no class or no template, or a template has no place for the name.
    """
    if not class_names or not templates:
        raise ValueError(f"{len(class_names)} classes and {len(templates)} templates: there must be one of each")
    if without := [template for template in templates if "{}" not in template]:
        raise ValueError(f"a template needs {{}} where the name goes, {without[0]!r} has none")
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    embeddings = []
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        texts = tokenize(prompts[start : start + PROMPTS_AT_ONCE])
        features_ME = model.get_text_features(**{name: value.to(device) for name, value in texts.items()})
        embeddings.append(features_ME.pooler_output.float().cpu())
    model.train(was_training)
    return mean_of_prompts(torch.cat(embeddings), len(class_names))


def mean_of_prompts(prompt_embeds: Tensor, num_classes: int) -> Tensor:
    """One embedding for each class, (C, E) float32 of length 1: the mean of its prompts' normalized embeddings.

    Args:
        prompt_embeds: (C times the number of templates, E) of any length, those of one class after the other.
        num_classes: C.
    """
    prompts_CPE = nn.functional.normalize(prompt_embeds.float(), dim=-1).unflatten(0, (num_classes, -1))
    return nn.functional.normalize(prompts_CPE.mean(1), dim=-1)


def zero_shot_metrics(
    image_embeds: Tensor, class_embeds: Tensor, labels: Sequence[int], *, ks: Iterable[int] = (1, 5)
) -> dict[str, float]:
    """The share of images whose class is among the k nearest, and what guessing reaches: `{"top1": ..., "chance1":
    ...}`.

    Classes that tie with the right one are taken to come before it: a model that gives every class the same score gets
    nothing.

    Args:
        image_embeds: (N, E) embeddings of the images, of any length.
        class_embeds: (C, E) embeddings of the classes, of any length.
        labels: the class of each image.
        ks: the ranks to report; those above C are left out.

    Raises:
        ValueError: there is no image, or labels do not fit images and classes.
    """
    if not len(labels) or len(labels) != len(image_embeds):
        raise ValueError(f"{len(image_embeds)} images and {len(labels)} labels: there must be as many, and at least 1")
    if min(labels) < 0 or max(labels) >= len(class_embeds):
        raise ValueError(f"labels from {min(labels)} to {max(labels)} do not fit {len(class_embeds)} classes")
    images_NE = nn.functional.normalize(image_embeds.float(), dim=-1)
    scores_NC = images_NE @ nn.functional.normalize(class_embeds.float(), dim=-1).T
    right_N1 = torch.tensor(labels, device=scores_NC.device)[:, None]
    # the right class itself is one of those that are at least as near as it
    place_N = (scores_NC >= scores_NC.gather(1, right_N1)).sum(1)
    metrics = {}
    for k in ks:
        if k <= len(class_embeds):
            metrics[f"top{k}"] = float((place_N <= k).float().mean())
            metrics[f"chance{k}"] = k / len(class_embeds)
    return metrics
