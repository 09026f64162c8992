# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses of the pretraining stages: pure functions, tensors in, one scalar out.

The model owns the parameters, `objectives.py` joins the two, and nothing here knows about ranks.
"""

from torch import Tensor

from turingvit_hf.modeling.modeling_pretraining import pairwise_sigmoid_loss


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
    num_images, num_texts = len(image_embeds), len(text_embeds)
    if not 0 <= first <= num_texts - num_images:
        raise ValueError(f"{num_images} images from {first=} on need that many texts, there are {num_texts}")
    logits_NM = logit_scale.exp() * image_embeds @ text_embeds.T + logit_bias
    return pairwise_sigmoid_loss(logits_NM, first=first)
