# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses of the pretraining stages: pure functions, tensors in, one scalar out.

The model owns the parameters, `objectives.py` joins the two, and nothing here knows about ranks. `siglip_loss` and
`naive_superclass_loss` are the definitions; `chunked_siglip_loss` and `superclass_loss` give the same values and
gradients without their large matrices. Those two compute in float32 (float64 for float64 inputs), whatever the dtype
of the inputs and of autocast, and can be differentiated once.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from turingvit_hf.modeling.modeling_dual_encoder import pairwise_sigmoid_loss
from turingvit_hf.modeling.modeling_masked_image import cosine_distance


def siglip_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    first: int = 0,
) -> Tensor:
    """The sigmoid loss of SigLIP: every image against every text, summed over all pairs and divided by the number of
    images.

    With z the embeddings, t = exp(logit_scale), b = logit_bias and y = +1 for a pair that belongs together, -1
    otherwise: `-(1/N) sum_ij log sigmoid(y_ij (t <z_i, z_j> + b))` (Zhai et al. 2023, arXiv 2303.15343, equation 1).
    The sum over pairs is divided by the number of images, not by the number of pairs.

    Args:
        image_embeds: (N, E) L2-normalized embeddings of the images.
        text_embeds: (M, E) L2-normalized embeddings of the texts, M >= N; image i belongs to text `first + i`.
        logit_scale: (1,) t' = ln t, as the model stores it.
        logit_bias: (1,) b.
        first: index of the text of the first image; not 0 where the texts of several ranks were gathered.

    Returns:
        a scalar.

    Raises:
        ValueError: if the texts `first` to `first + N` do not exist.
    """
    _check_pairs(len(image_embeds), len(text_embeds), first)
    logits_NM = logit_scale.exp() * image_embeds @ text_embeds.T + logit_bias
    return pairwise_sigmoid_loss(logits_NM, first=first)


def chunked_siglip_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    first: int = 0,
    chunk_size: int = 1024,
) -> Tensor:
    """The same as `siglip_loss`, from tiles of `chunk_size` x `chunk_size` logits: memory grows with N + M, not N·M.

    The gradients are computed together with the loss, tile by tile, so that backward only scales them. Arguments and
    errors are those of `siglip_loss`.

    Args:
        image_embeds: (N, E).
        text_embeds: (M, E).
        logit_scale: (1,).
        logit_bias: (1,).
        first: index of the text of the first image.
        chunk_size: images and texts of a tile.

    Returns:
        a scalar, 0 if there is no image; float32, or float64 for float64 embeddings.
    """
    _check_pairs(len(image_embeds), len(text_embeds), first)
    _check_chunk_size(chunk_size)
    inputs = (image_embeds, text_embeds, logit_scale, logit_bias)
    return _ChunkedSiglip.apply(*inputs, first, chunk_size, torch.is_grad_enabled())


def naive_superclass_loss(
    features: Tensor, weight: Tensor, bias: Tensor, *, class_ids: Tensor, class_weights: Tensor
) -> Tensor:
    """The classification loss of SuperClass by its definition, with (N, C) logits and targets.

    `-(1/N') sum_n sum_c y_nc log softmax(x_n)_c` with x the logits `features · weight^T + bias`, y the targets, and N'
    the number of images that have a class at all (Huang et al. 2024, arXiv 2411.03313, equation 3).

    Args:
        features: (N, D) pooled features of the images.
        weight: (C, D) of the linear head.
        bias: (C,) of the linear head.
        class_ids: (N, L) int64, the classes of each image without repetition, -100 where there is none.
        class_weights: (N, L) the targets y of these classes; each row sums to 1, or to 0 and adds nothing.

    Returns:
        a scalar, 0 if no image has a class.
    """
    logits_NC = torch.nn.functional.linear(features, weight, bias)
    there_NL = class_ids >= 0
    targets_NC = torch.zeros_like(logits_NC)
    targets_NC.scatter_add_(1, class_ids.clamp(min=0), (class_weights * there_NL).to(logits_NC))
    return -(targets_NC * logits_NC.log_softmax(1)).sum() / there_NL.any(1).sum().clamp(min=1)


def superclass_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    class_ids: Tensor,
    class_weights: Tensor,
    chunk_size: int = 1024,
) -> Tensor:
    """The same as `naive_superclass_loss`, linear head and loss in one, from logits of `chunk_size` images at a time.

    For each image it is `(sum_c y_c) logsumexp(x) - sum_c y_c x_c`, which needs the logits of L classes only beside
    the logsumexp. The gradients are computed together with the loss, so no logits are kept for backward.

    Args:
        features: (N, D).
        weight: (C, D).
        bias: (C,).
        class_ids: (N, L) int64, -100 where there is no class.
        class_weights: (N, L).
        chunk_size: images whose C logits are in memory at a time.

    Returns:
        a scalar, 0 if no image has a class; float32, or float64 for float64 features.
    """
    _check_chunk_size(chunk_size)
    inputs = (features, weight, bias)
    return _ChunkedSuperClass.apply(*inputs, class_ids, class_weights, chunk_size, torch.is_grad_enabled())


def masked_cosine_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """The mean of 1 - cos between what the student predicts for masked patches and what the teacher saw there.

    The loss of masked feature distillation in EVA-02 (arXiv 2303.11331); computed in float32 or wider.

    Args:
        predictions: (K, Dt) for K masked patches.
        targets: (K, Dt) features of the teacher.

    Returns:
        a scalar between 0 and 2, 0 if no patch is masked.

    Raises:
        ValueError: the shapes differ.
    """
    if predictions.shape != targets.shape:
        raise ValueError(f"predictions {tuple(predictions.shape)} for targets {tuple(targets.shape)}")
    return cosine_distance(predictions, targets).sum() / max(len(predictions), 1)


def _check_pairs(num_images: int, num_texts: int, first: int) -> None:
    """Raises ValueError unless each image has its text."""
    if not 0 <= first <= num_texts - num_images:
        raise ValueError(f"{num_images} images from {first=} on need that many texts, there are {num_texts}")


def _check_chunk_size(chunk_size: int) -> None:
    """Raises ValueError unless a chunk holds something."""
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} must be at least 1")


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _scaled(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    """What forward saved, times the gradient of the loss, in the dtypes of the inputs; None where none is needed."""
    saved = zip(ctx.saved_tensors, ctx.dtypes, ctx.needs_input_grad, strict=False)
    return [(gradient * value).to(dtype) if needed else None for value, dtype, needed in saved]


class _ChunkedSiglip(torch.autograd.Function):
    """`chunked_siglip_loss`: tiles of logits become loss and gradients before the next tile is made."""

    @staticmethod
    def forward(ctx, image_embeds, text_embeds, logit_scale, logit_bias, first, chunk_size, with_gradients):
        inputs = (image_embeds, text_embeds, logit_scale, logit_bias)
        ctx.dtypes = [tensor.dtype for tensor in inputs]
        with torch.autocast(image_embeds.device.type, enabled=False):
            loss, gradients = _siglip_tiles(
                *map(_wide, inputs),
                first=first,
                chunk_size=chunk_size,
                with_gradients=with_gradients and any(ctx.needs_input_grad),
            )
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return *_scaled(ctx, gradient), None, None, None


def _siglip_tiles(
    images_NE: Tensor,
    texts_ME: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    first: int,
    chunk_size: int,
    with_gradients: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The loss, and its gradients for the four tensors or none.

    With u = -y·logit the loss of a pair is -log sigmoid(-u), and its derivative for the logit is -y·sigmoid(u).
    """
    scale = logit_scale.exp()
    total, d_bias = images_NE.new_zeros(()), torch.zeros_like(logit_bias)
    d_images_NE, d_texts_ME = torch.zeros_like(images_NE), torch.zeros_like(texts_ME)
    for i in range(0, len(images_NE), chunk_size):
        rows_nE = images_NE[i : i + chunk_size]
        for j in range(0, len(texts_ME), chunk_size):
            columns_mE = texts_ME[j : j + chunk_size]
            tile_nm = torch.addmm(logit_bias, scale * rows_nE, columns_mE.T)
            right_pairs = tile_nm.diagonal(first + i - j)  # empty if there are none in this tile
            right_pairs.neg_()
            total -= torch.nn.functional.logsigmoid(-tile_nm).sum()
            if with_gradients:
                tile_nm.sigmoid_()
                right_pairs.neg_()
                d_images_NE[i : i + chunk_size].addmm_(tile_nm, columns_mE)
                d_texts_ME[j : j + chunk_size].addmm_(tile_nm.T, rows_nE)
                d_bias += tile_nm.sum()
    num_images = max(len(images_NE), 1)
    if not with_gradients:
        return total / num_images, []
    d_images_NE *= scale / num_images
    d_texts_ME *= scale / num_images
    # t' enters with the embeddings: dL/dt' = sum_ij dL/dlogit_ij · t <z_i, z_j> = sum_i <z_i, dL/dz_i>
    d_scale = (d_images_NE * images_NE).sum().reshape(logit_scale.shape)
    return total / num_images, [d_images_NE, d_texts_ME, d_scale, d_bias / num_images]


class _ChunkedSuperClass(torch.autograd.Function):
    """`superclass_loss`: logits of a few images become loss and gradients before the next ones are made."""

    @staticmethod
    def forward(ctx, features, weight, bias, class_ids, class_weights, chunk_size, with_gradients):
        inputs = (features, weight, bias)
        ctx.dtypes = [tensor.dtype for tensor in inputs]
        with torch.autocast(features.device.type, enabled=False):
            loss, gradients = _superclass_chunks(
                *map(_wide, inputs),
                class_ids=class_ids,
                class_weights=class_weights,
                chunk_size=chunk_size,
                with_gradients=with_gradients and any(ctx.needs_input_grad),
            )
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return *_scaled(ctx, gradient), None, None, None, None


def _superclass_chunks(
    features_ND: Tensor,
    weight_CD: Tensor,
    bias_C: Tensor,
    *,
    class_ids: Tensor,
    class_weights: Tensor,
    chunk_size: int,
    with_gradients: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The loss, and its gradients for features, weight and bias or none."""
    there_NL = class_ids >= 0
    ids_NL, targets_NL = class_ids.clamp(min=0), (class_weights * there_NL).to(features_ND)
    num_images = there_NL.any(1).sum().clamp(min=1)
    total = features_ND.new_zeros(())
    gradients = [torch.zeros_like(tensor) for tensor in (features_ND, weight_CD, bias_C)] if with_gradients else []
    for start in range(0, len(features_ND), chunk_size):
        chunk = slice(start, start + chunk_size)
        ids_nL, targets_nL = ids_NL[chunk], targets_NL[chunk]
        logits_nC = torch.addmm(bias_C, features_ND[chunk], weight_CD.T)
        sums_n1, logsumexp_n1 = targets_nL.sum(1, keepdim=True), logits_nC.logsumexp(1, keepdim=True)
        total += (sums_n1 * logsumexp_n1).sum() - (targets_nL * logits_nC.gather(1, ids_nL)).sum()
        if with_gradients:
            d_features_ND, d_weight_CD, d_bias_C = gradients
            d_logits_nC = logits_nC.sub_(logsumexp_n1).exp_().mul_(sums_n1 / num_images)
            d_logits_nC.scatter_add_(1, ids_nL, targets_nL / -num_images)
            d_features_ND[chunk] = d_logits_nC @ weight_CD
            d_weight_CD.addmm_(d_logits_nC.T, features_ND[chunk])
            d_bias_C += d_logits_nC.sum(0)
    return total / num_images, gradients
