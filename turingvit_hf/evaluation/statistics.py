# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How sure a measured share is: bootstrap confidence intervals."""

from collections.abc import Sequence

import numpy as np


NUM_RESAMPLES = 1000


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[int] | np.ndarray | None = None,
    *,
    groups: Sequence[int] | np.ndarray | None = None,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval (low, high) of the mean of values (Efron 1979).

    Args:
        values: (N,) one for each query, such as 1 for a hit and 0 for a miss.
        clusters: (N,) what is drawn again together, such as the captions of one image; None: each value by itself.
        groups: (N,) int64 from 0 up, such as the class of each image: the interval is that of the mean of the groups'
            means. Values are drawn from all, and groups of which none is drawn left out. None: all are one group.
        level: the share of resampled means inside the interval.
        num_resamples: how often it is drawn again.
        seed: of the draws: the same values give the same interval.

    Raises:
        ValueError: there is no value, clusters or groups are not as many, both are given, or the level is not between
            0 and 1.
    """
    values_N = np.asarray(values, dtype=np.float64)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    if not len(values_N) or (clusters is not None and len(clusters) != len(values_N)):
        raise ValueError(f"{len(values_N)} values and {None if clusters is None else len(clusters)} clusters")
    if groups is not None and (clusters is not None or len(groups) != len(values_N)):
        raise ValueError(f"{len(values_N)} values and {len(groups)} groups: as many of both, and no clusters")
    sums, counts = values_N, np.ones(len(values_N))
    if clusters is not None:
        _, place_N = np.unique(np.asarray(clusters), return_inverse=True)
        sums, counts = np.bincount(place_N, weights=values_N), np.bincount(place_N).astype(np.float64)
    draws = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    for resample in range(num_resamples):
        drawn = draws.integers(0, len(sums), len(sums))
        if groups is None:
            means[resample] = sums[drawn].sum() / counts[drawn].sum()
        else:
            means[resample] = mean_of_groups(values_N[drawn], np.asarray(groups)[drawn])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_of_groups(values: np.ndarray, groups: np.ndarray) -> float:
    """The mean of the means of groups that have values.

    Args:
        values: (N,).
        groups: (N,) int64 from 0 up.
    """
    counts = np.bincount(groups)
    sums = np.bincount(groups, weights=values)
    return float((sums[counts > 0] / counts[counts > 0]).mean())
