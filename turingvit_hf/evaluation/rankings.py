# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Where right answers stand among ranked candidates, with ties taken to come in random order."""

from collections.abc import Sequence

import torch
from torch import Tensor


# scores that are compared at a time: what is made of them stays small, and in the processor's caches
SCORES_AT_ONCE = 2**21


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
    queries, candidates = right.nonzero(as_tuple=True)
    return expected_hits_of_pairs(scores, queries, candidates, ks=ks)


def expected_hits_of_pairs(scores: Tensor, queries: Tensor, candidates: Tensor, *, ks: Sequence[int]) -> Tensor:
    """`expected_hits` where the right candidates are given as pairs, so that beside the scores nothing is (Q, C).

    Args:
        scores: (Q, C) finite scores of any scale, higher is more similar.
        queries: (P,) int64 the row of each right pair, every row once or more.
        candidates: (P,) int64 its column.
        ks: how many candidates count, 1 or more each.

    Raises:
        ValueError: a k is not positive, a score is not finite, or a query has no right candidate.
    """
    if min(ks) < 1:
        raise ValueError(f"k must be 1 or more, not {min(ks)}")
    num_queries, num_candidates = scores.shape
    is_missing = torch.bincount(queries, minlength=num_queries) == 0
    if bool(is_missing.any()):
        raise ValueError(f"query {int(is_missing.nonzero()[0])} has no right candidate")
    values = scores[queries, candidates]
    best_right = scores.new_full((num_queries,), -torch.inf).scatter_reduce(0, queries, values, "amax")
    num_right = torch.bincount(queries[values == best_right[queries]], minlength=num_queries)
    rows_at_once = max(1, SCORES_AT_ONCE // num_candidates)
    above, tied = [], []
    for part, best in zip(scores.split(rows_at_once), best_right[:, None].split(rows_at_once), strict=True):
        # a value that is not a number is both of them
        if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(part)):
            raise ValueError("similarity has values that are not finite")
        # in 32 bits, since a sum first makes a copy of what is added
        above.append((part > best).sum(1, dtype=torch.int32))
        tied.append((part == best).sum(1, dtype=torch.int32))
    num_above, num_tied = torch.cat(above).long(), torch.cat(tied).long()
    return torch.stack([chance_of_a_hit(num_tied, num_right, k - num_above) for k in ks])


def chance_of_a_hit(num_candidates: Tensor, num_right: Tensor, num_draws: Tensor) -> Tensor:
    """The chance that draws without replacement hit a right candidate, elementwise; 0 where there is no draw left."""
    miss = torch.ones(num_candidates.shape, dtype=torch.float64, device=num_candidates.device)
    for draw in range(int(num_draws.max())):
        wrong_left = (num_candidates - num_right - draw).clamp(min=0)
        factor = wrong_left.double() / (num_candidates - draw).clamp(min=1)
        miss = torch.where(draw < num_draws, miss * factor, miss)
    return 1 - miss
