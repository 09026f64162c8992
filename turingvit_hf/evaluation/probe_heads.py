# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Classifiers of frozen features, several side by side that differ in how they are trained."""

import torch
from torch import Tensor, nn


# columns of an attention head, where the width allows it
HEAD_WIDTH = 64


class LinearHeads(nn.Module):
    """K linear classifiers of standardized features, all with the same weights to begin with.

    Args:
        mean: (D,) taken off the features.
        std: (D,) that they are divided by.
        num_heads: K.
        num_classes: C.
        generator: draws the first weights.
    """

    def __init__(self, mean: Tensor, std: Tensor, num_heads: int, num_classes: int, generator: torch.Generator):
        super().__init__()
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.weight = _copies(_drawn(generator, num_classes, len(mean)), num_heads)
        self.bias = _copies(torch.zeros(num_classes), num_heads)

    def forward(self, features: Tensor) -> Tensor:
        """The logits (N, K, C) of features (N, D)."""
        return self._classify((features - self.mean) / self.std, "n d")

    def parameters_of(self, head: int) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """What of one classifier decays, and what does not."""
        return [self.weight[head]], [self.bias[head]]

    def _classify(self, x: Tensor, names: str) -> Tensor:
        return torch.einsum(f"{names},kcd->nkc", x, torch.stack(list(self.weight))) + torch.stack(list(self.bias))


class AttentiveHeads(LinearHeads):
    """K classifiers of an image's patch tokens: a learned query attends to them, and a linear layer to what it sees.

    The attentive probe of AIM (El-Nouby et al. 2024, arXiv 2401.08541) and V-JEPA (Bardes et al. 2024, arXiv
    2404.08471) with one query and no MLP: keys and values are linear in standardized tokens, the query attends with
    several heads, and their values together are classified.

    Since the query is the same for all images, the projections are applied to it and to what is pooled, not to each
    token: q·(W_k x) = (W_kᵀ q)·x, and the sum of W_v x under weights is W_v times the sum of x. So K classifiers cost
    little more than one.

    Args:
        mean: (D,) taken off the tokens.
        std: (D,) that they are divided by.
        num_heads: K.
        num_classes: C.
        generator: draws the first weights.
        num_attention_heads: of each query, a divisor of D; None: D / 64 or the next divisor below.
    """

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        num_heads: int,
        num_classes: int,
        generator: torch.Generator,
        num_attention_heads: int | None = None,
    ):
        super().__init__(mean, std, num_heads, num_classes, generator)
        width = len(mean)
        wanted = num_attention_heads or max(1, width // HEAD_WIDTH)
        self.num_attention_heads = next(number for number in range(wanted, 0, -1) if width % number == 0)
        self.query = _copies(_drawn(generator, width), num_heads)
        self.key_weight = _copies(_drawn(generator, width, width), num_heads)
        self.value_weight = _copies(_drawn(generator, width, width), num_heads)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The logits (N, K, C).

        Args:
            tokens: (N, L, D), whatever stands behind an image's own.
            lengths: (N,) how many are its own, 1 or more.
        """
        x_NLD = (tokens - self.mean) / self.std
        split = (self.num_attention_heads, -1)
        query_KHd = torch.stack(list(self.query)).unflatten(-1, split)
        key_KHdD, value_KHdD = (
            torch.stack(list(weights)).unflatten(1, split) for weights in (self.key_weight, self.value_weight)
        )
        asked_KHD = torch.einsum("khd,khde->khe", query_KHd, key_KHdD) * query_KHd.shape[-1] ** -0.5
        scores_NLA = x_NLD @ asked_KHD.flatten(0, 1).T  # A = K·H
        is_own = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        weights_NLA = scores_NLA.masked_fill(~is_own[..., None], -torch.inf).softmax(1)
        pooled_NKHD = (weights_NLA.transpose(1, 2) @ x_NLD).unflatten(1, query_KHd.shape[:2])
        seen_NKD = torch.einsum("nkhe,khde->nkhd", pooled_NKHD, value_KHdD).flatten(2)
        return self._classify(seen_NKD, "n k d")

    def parameters_of(self, head: int) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """What of one classifier decays, and what does not."""
        decaying, others = super().parameters_of(head)
        return [*decaying, self.key_weight[head], self.value_weight[head]], [*others, self.query[head]]


def _drawn(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal numbers of deviation 1 / sqrt of the last size."""
    return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5


def _copies(value: Tensor, number: int) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(value.clone()) for _ in range(number)])
