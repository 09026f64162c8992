# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""k-NN classification of frozen features, as DINO does it."""

import torch
from torch import Tensor, nn


def nearest_neighbor_scores(
    queries: Tensor,
    neighbors: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    queries_at_once: int = 256,
) -> Tensor:
    """The votes (N, C) float64 on the CPU: each of the k nearest adds exp(cosine / temperature) to its class.

    Wu et al. 2018 (arXiv 1805.01978), section 3.4; k and temperature as in DINO (Caron et al. 2021, arXiv 2104.14294).

    Args:
        queries: (N, D) features of any length.
        neighbors: (R, D) features whose classes are known.
        labels: (R,) int64 these classes.
        num_classes: C.
        k: how many vote; all R if there are fewer.
        temperature: above 0.
        queries_at_once: rows of a chunk; memory grows with it times R.

    Raises:
        ValueError: k or the temperature is not positive, or labels and neighbors differ in number.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"k={k} must be 1 or more and temperature={temperature} above 0")
    if not len(labels) or len(labels) != len(neighbors):
        raise ValueError(f"{len(neighbors)} neighbors and {len(labels)} labels: there must be as many, and at least 1")
    queries = nn.functional.normalize(queries.float(), dim=-1)
    neighbors = nn.functional.normalize(neighbors.float(), dim=-1)
    labels = labels.to(neighbors.device)
    votes = []
    for rows in queries.split(queries_at_once):
        cosines, places = (rows @ neighbors.T).topk(min(k, len(neighbors)), dim=1)
        chunk = torch.zeros(len(rows), num_classes, dtype=torch.float64, device=rows.device)
        votes.append(chunk.scatter_add_(1, labels[places], (cosines.double() / temperature).exp()).cpu())
    return torch.cat(votes)
