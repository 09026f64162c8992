# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Image-text retrieval: recall at k in both directions, and the level that guessing reaches."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


QUERIES_AT_ONCE = 1024


def recall_at_k(similarity: Tensor, query_groups: Tensor, candidate_groups: Tensor, *, k: int) -> float:
    """The share of queries that find a right candidate among their k most similar ones, in [0, 1].

    A candidate is right when it has the query's group, so several may be right. Candidates that tie are taken to come
    in random order, and the expected share is returned: a model that gives every pair the same score gets exactly the
    level of guessing, whatever the order of the rows.

    Args:
        similarity: (Q, C) finite scores of any scale, higher is more similar.
        query_groups: (Q,) group of each query.
        candidate_groups: (C,) group of each candidate.
        k: how many candidates count, 1 or more.

    Raises:
        ValueError: if k is not positive, a score is not finite, or a query has no right candidate.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    if not bool(torch.isfinite(similarity).all()):
        raise ValueError("similarity has values that are not finite")
    expected_hits = torch.zeros((), dtype=torch.float64)
    for scores, groups in zip(similarity.split(QUERIES_AT_ONCE), query_groups.split(QUERIES_AT_ONCE), strict=True):
        right = groups[:, None] == candidate_groups[None]
        if not bool(right.any(1).all()):
            raise ValueError(f"no candidate has group {int(groups[~right.any(1)][0])}")
        best_right = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        num_above = (scores > best_right).sum(1)
        num_tied = (scores == best_right).sum(1)
        num_right = ((scores == best_right) & right).sum(1)
        expected_hits += _chance_of_a_hit(num_tied, num_right, k - num_above).sum().cpu()
    return float(expected_hits / len(query_groups))


def chance_at_k(query_groups: Tensor, candidate_groups: Tensor, *, k: int) -> float:
    """The recall at k that guessing reaches, in [0, 1].

    It is 1 - (C-c choose k) / (C choose k) for a query with c right candidates of C, averaged over the queries.
    """
    num_right = (query_groups[:, None] == candidate_groups[None]).sum(1)
    num_candidates = torch.full_like(num_right, len(candidate_groups))
    return float(_chance_of_a_hit(num_candidates, num_right, torch.full_like(num_right, k)).mean())


def retrieval_metrics(
    image_embeds: Tensor, text_embeds: Tensor, captions: Sequence[str], *, ks: Iterable[int]
) -> dict[str, float]:
    """Recall in both directions and its chance level, as `{"image_to_text_R@1": ..., "image_to_text_chance@1": ...,
    "text_to_image_R@1": ...}`.

    Rows i of the embeddings and of the captions belong together. Equal captions are one text: as a candidate it stands
    once, as a query every image that has it is right.

    Args:
        image_embeds: (N, E) embeddings of the images, of any length.
        text_embeds: (N, E) embeddings of their captions.
        captions: the N captions.
        ks: the ranks to report.
    """
    first_of: dict[str, int] = {}
    image_groups = [first_of.setdefault(caption, row) for row, caption in enumerate(captions)]
    groups_N = torch.tensor(image_groups, device=image_embeds.device)
    groups_M = torch.tensor(list(first_of.values()), device=image_embeds.device)
    texts_ME = nn.functional.normalize(text_embeds.float(), dim=-1)[groups_M]
    similarity_NM = nn.functional.normalize(image_embeds.float(), dim=-1) @ texts_ME.T
    metrics = {}
    for k in ks:
        metrics[f"image_to_text_R@{k}"] = recall_at_k(similarity_NM, groups_N, groups_M, k=k)
        metrics[f"image_to_text_chance@{k}"] = chance_at_k(groups_N, groups_M, k=k)
        metrics[f"text_to_image_R@{k}"] = recall_at_k(similarity_NM.T, groups_M, groups_N, k=k)
        metrics[f"text_to_image_chance@{k}"] = chance_at_k(groups_M, groups_N, k=k)
    return metrics


@torch.inference_mode()
def embed_pairs(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """The embeddings of images and texts, (N, E) each, on the CPU in fp32 and in the order of the batches.

    Args:
        model: a dual encoder, put into evaluation mode for the call.
        batches: keyword arguments of its forward, each batch with as many images as texts.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    images, texts = [], []
    for batch in batches:
        outputs = model(**{name: value.to(device) for name, value in batch.items()})
        images.append(outputs.image_embeds.float().cpu())
        texts.append(outputs.text_embeds.float().cpu())
    model.train(was_training)
    return torch.cat(images), torch.cat(texts)


def _chance_of_a_hit(num_candidates: Tensor, num_right: Tensor, num_draws: Tensor) -> Tensor:
    """The chance that draws without replacement hit a right candidate, elementwise; 0 where there is no draw left."""
    miss = torch.ones(num_candidates.shape, dtype=torch.float64, device=num_candidates.device)
    for draw in range(int(num_draws.max())):
        wrong_left = (num_candidates - num_right - draw).clamp(min=0)
        factor = wrong_left / (num_candidates - draw).clamp(min=1)
        miss = torch.where(draw < num_draws, miss * factor, miss)
    return 1 - miss
