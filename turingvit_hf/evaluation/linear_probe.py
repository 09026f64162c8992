# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Linear classification of frozen features: multinomial logistic regression, its regularization chosen by a sweep."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from turingvit_hf.errors import InputError


# on standardized features, from hardly any to strong
PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
HELD_OUT = 0.2


@dataclass(frozen=True)
class LinearProbe:
    """A classifier of features.

    Attributes:
        mean: (D,) of the training features.
        std: (D,) of them, 1 where they are constant.
        weight: (C, D).
        bias: (C,).
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """The logits (N, C) float64 on the CPU of features (N, D)."""
        return ((features.to(self.mean) - self.mean) / self.std @ self.weight.T + self.bias).double().cpu()


def fit_linear_probe(
    features: Tensor, labels: Tensor, *, num_classes: int, penalty: float, max_iterations: int = 1000
) -> LinearProbe:
    """The probe that minimizes the mean cross-entropy plus penalty / 2 times the squared norm of its weight.

    Features are brought to mean 0 and deviation 1 first, so that one penalty means the same for all towers. L-BFGS in
    float64 from zero weights: nothing is drawn, and equal input gives equal probes.

    Args:
        features: (N, D).
        labels: (N,) int64.
        num_classes: C.
        penalty: 0 or more.
        max_iterations: of L-BFGS.

    Raises:
        ValueError: labels do not fit features or classes, or the penalty is negative.
    """
    if not len(labels) or len(labels) != len(features) or int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(f"{len(labels)} labels do not fit {len(features)} features and {num_classes} classes")
    if penalty < 0:
        raise ValueError(f"penalty={penalty}: it is 0 or more")
    features, labels = features.double(), labels.to(features.device)
    std, mean = torch.std_mean(features, dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    inputs = (features - mean) / std
    weight = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=features.device)
    parameters = [weight.requires_grad_(), torch.zeros_like(weight[:, 0]).requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=max_iterations, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(nn.functional.linear(inputs, *parameters), labels)
        loss = loss + penalty / 2 * parameters[0].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)
    return LinearProbe(mean, std, parameters[0].detach(), parameters[1].detach())


def sweep_linear_probe(
    features: Tensor, labels: Tensor, *, num_classes: int, penalties: Sequence[float] = PENALTIES, seed: int = 0
) -> tuple[LinearProbe, dict[float, float]]:
    """The probe of all features with the penalty that does best on a fifth of them held out, and each one's share.

    Of equally good penalties the largest is taken. Test data are never looked at.

    Args:
        features: (N, D), at least two.
        labels: (N,) int64.
        num_classes: C.
        penalties: to choose from.
        seed: of the draw of what is held out.

    Returns:
        the probe, and {penalty: share of the held-out features that are classified right}.

    Raises:
        InputError: there are fewer than two features, or no penalty.
    """
    if len(features) < 2 or not penalties:
        raise InputError(f"{len(features)} images and {len(penalties)} penalties: a sweep needs 2 and 1 at least")
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed)).to(features.device)
    num_held_out = max(1, round(HELD_OUT * len(features)))
    held_out, kept = order[:num_held_out], order[num_held_out:]
    labels = labels.to(features.device)
    shares = {}
    for penalty in penalties:
        probe = fit_linear_probe(features[kept], labels[kept], num_classes=num_classes, penalty=penalty)
        is_right = probe.scores(features[held_out]).argmax(1) == labels[held_out].cpu()
        shares[penalty] = float(is_right.double().mean())
    best = max(shares, key=lambda penalty: (shares[penalty], penalty))
    return fit_linear_probe(features, labels, num_classes=num_classes, penalty=best), shares
