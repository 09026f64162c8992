# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What is measured while training: each rank does its share of the packs, and all ranks get all results.

Packs may be a sequence that makes each pack when it is asked for it; a rank asks for its share only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from turingvit_hf.evaluation.retrieval import retrieval_metrics
from turingvit_hf.evaluation.zero_shot import class_embeddings, zero_shot_metrics
from turingvit_hf.training.distributed import gather_objects, rank, world_size
from turingvit_hf.training.loop.sharding import called_as_forward
from turingvit_hf.training.objective import Objective
from turingvit_hf.training.packs import Pack, model_inputs


class Evaluation(Protocol):
    """Something to measure; every rank calls it and gets the same numbers."""

    def __call__(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """The measurements by name."""


class RetrievalEvaluation:
    """Retrieval between images, or clips, and their captions.

    Args:
        packs: of images or clips with their captions, all of them together in the order of `captions`.
        captions: the caption of each; equal ones count as one text.
        name: goes before the names of `retrieval_metrics`.
        ks: the ranks to report; those above the number of pairs are left out.

    Raises:
        ValueError: there is no pack.
    """

    def __init__(
        self,
        packs: Sequence[Pack],
        captions: Sequence[str],
        *,
        name: str = "retrieval",
        ks: Iterable[int] = (1, 5, 10),
    ):
        self.packs = _at_least_one(packs)
        self.captions = list(captions)
        self.name = name
        self.ks = [k for k in ks if k <= len(self.captions)]

    def __call__(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """`{"retrieval_image_to_text_R@1": ..., "retrieval_image_to_text_chance@1": ..., ...}`."""

        def embed(pack: Pack) -> tuple[Tensor, Tensor]:
            outputs = model(**model_inputs(_on_device(pack, device)))
            return outputs.image_embeds.float().cpu(), outputs.text_embeds.float().cpu()

        images, texts = zip(*_map_over_ranks(embed, self.packs, model), strict=True)
        metrics = retrieval_metrics(torch.cat(images), torch.cat(texts), self.captions, ks=self.ks)
        return {f"{self.name}_{key}": value for key, value in metrics.items()}


class ClassificationEvaluation:
    """Zero-shot classification of images.

    Args:
        packs: of images; captions in them are not looked at.
        labels: the class of each image, an index into `class_names`.
        class_names: the classes.
        tokenize: makes `input_ids` and `attention_mask` of a list of texts.
        name: goes before the names of `zero_shot_metrics`.
        templates: prompts with `{}` for the name.
        ks: the ranks to report.

    Raises:
        ValueError: there is no pack.
    """

    def __init__(
        self,
        packs: Sequence[Pack],
        labels: Sequence[int],
        class_names: Sequence[str],
        tokenize: Callable[[list[str]], Mapping[str, Tensor]],
        *,
        name: str = "classification",
        templates: Sequence[str] = ("a photo of a {}.",),
        ks: Iterable[int] = (1, 5),
    ):
        self.packs = _at_least_one(packs)
        self.labels = list(labels)
        self.class_names = list(class_names)
        self.tokenize = tokenize
        self.name = name
        self.templates = list(templates)
        self.ks = list(ks)

    def __call__(self, model: Any, device: torch.device) -> dict[str, float]:
        """`{"classification_top1": ..., "classification_chance1": ..., ...}`."""

        def embed(pack: Pack) -> Tensor:
            inputs = {name: pack[name].to(device) for name in ("pixel_values", "image_grid_thw")}
            return model.get_image_features(**inputs).pooler_output.float().cpu()

        with called_as_forward(model, "get_image_features", "get_text_features"):
            images_NE = torch.cat(_map_over_ranks(embed, self.packs, model))
            # every rank needs all of them, and they are few
            classes_CE = class_embeddings(model, self.class_names, self.templates, tokenize=self.tokenize)
        metrics = zero_shot_metrics(images_NE, classes_CE, self.labels, ks=self.ks)
        return {f"{self.name}_{key}": value for key, value in metrics.items()}


class LossEvaluation:
    """The objective's losses on packs that are not trained on, each pack by itself, averaged over masked patches where
    there is a mask, else over images.

    Args:
        objective: gives the losses.
        packs: what it is called with.
        name: goes before the losses' names.

    Raises:
        ValueError: there is no pack.
    """

    def __init__(self, objective: Objective, packs: Sequence[Pack], *, name: str = "held_out"):
        self.objective = objective
        self.packs = _at_least_one(packs)
        self.name = name

    def __call__(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """`{"held_out_cosine": ..., "loss": the weighted sum of all}`."""

        def losses_of(pack: Pack) -> tuple[int, dict[str, float]]:
            losses = self.objective(model, _on_device(pack, device))
            total = float(self.objective.total(losses))
            weight = int(pack["bool_masked_pos"].sum()) if "bool_masked_pos" in pack else len(pack["image_grid_thw"])
            return weight, {name: float(loss) for name, loss in losses.items()} | {"": total}

        measured = _map_over_ranks(losses_of, self.packs, model)
        total_weight = sum(weight for weight, _ in measured)
        names = measured[0][1]
        means = {name: sum(weight * losses[name] for weight, losses in measured) / total_weight for name in names}
        return {"loss": means.pop("")} | {f"{self.name}_{name}": mean for name, mean in means.items()}


def _at_least_one(packs: Sequence[Pack]) -> Sequence[Pack]:
    if not len(packs):
        raise ValueError("there is nothing to evaluate: the packs are empty")
    return packs


def _map_over_ranks(function: Callable[[Pack], Any], packs: Sequence[Pack], model: nn.Module) -> list[Any]:
    """What the function gives for each pack, in order, without gradients and in evaluation mode. Collective.

    Rank r does the packs r, r + W and so on. Every rank calls the function equally often, since a forward under FSDP2
    waits for all ranks: one whose share is smaller does its last pack, or the first of all, again.
    """
    own = list(range(rank(), len(packs), world_size()))
    rounds = -(-len(packs) // world_size())
    was_training = model.training
    model.eval()
    with torch.no_grad():
        results = [function(packs[index]) for index in _filled(own, rounds)]
    model.train(was_training)
    by_index = dict(pair for part in gather_objects(list(zip(own, results, strict=False))) for pair in part)
    return [by_index[index] for index in range(len(packs))]


def _filled(indices: list[int], length: int) -> Iterator[int]:
    yield from indices
    for _ in range(length - len(indices)):
        yield indices[-1] if indices else 0


def _on_device(pack: Pack, device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in pack.items()}
