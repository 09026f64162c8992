# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Where right answers stand among ranked candidates, with ties taken to come in random order."""

from collections.abc import Sequence

import torch
from torch import Tensor


def expected_hits(scores: Tensor, right: Tensor, *, ks: Sequence[int]) -> Tensor:
    """The chance that a right candidate is among a query's k most similar ones, (len(ks), Q) float64 in [0, 1].

    It is 0 or 1 unless candidates tie with the best right one; those are taken to come in random order.

    Args:
        scores: (Q, C) finite scores of any scale, higher is more similar.
        right: (Q, C) which candidates are right, at least one for each query.
        ks: how many candidates count, 1 or more each.

    Raises:
        ValueError: a k is not positive, a score is not finite, or a query has no right candidate.
    """
    if min(ks) < 1:
        raise ValueError(f"k must be 1 or more, not {min(ks)}")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("similarity has values that are not finite")
    if not bool(right.any(1).all()):
        raise ValueError(f"query {int((~right.any(1)).nonzero()[0])} has no right candidate")
    best_right = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    num_above = (scores > best_right).sum(1)
    is_tied = scores == best_right
    num_tied, num_right = is_tied.sum(1), (is_tied & right).sum(1)
    return torch.stack([chance_of_a_hit(num_tied, num_right, k - num_above) for k in ks])


def chance_of_a_hit(num_candidates: Tensor, num_right: Tensor, num_draws: Tensor) -> Tensor:
    """The chance that draws without replacement hit a right candidate, elementwise; 0 where there is no draw left."""
    miss = torch.ones(num_candidates.shape, dtype=torch.float64, device=num_candidates.device)
    for draw in range(int(num_draws.max())):
        wrong_left = (num_candidates - num_right - draw).clamp(min=0)
        factor = wrong_left / (num_candidates - draw).clamp(min=1)
        miss = torch.where(draw < num_draws, miss * factor, miss)
    return 1 - miss
