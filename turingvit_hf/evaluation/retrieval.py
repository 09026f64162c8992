# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Image-text retrieval: recall at k in both directions, and the level that guessing reaches."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from turingvit_hf.evaluation.rankings import chance_of_a_hit, expected_hits, expected_hits_of_pairs


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
    hits = torch.zeros((), dtype=torch.float64)
    for scores, groups in zip(similarity.split(QUERIES_AT_ONCE), query_groups.split(QUERIES_AT_ONCE), strict=True):
        right = groups[:, None] == candidate_groups[None]
        if not bool(right.any(1).all()):
            raise ValueError(f"no candidate has group {int(groups[~right.any(1)][0])}")
        hits += expected_hits(scores, right, ks=[k]).sum().cpu()
    return float(hits / len(query_groups))


def chance_at_k(query_groups: Tensor, candidate_groups: Tensor, *, k: int) -> float:
    """The recall at k that guessing reaches, in [0, 1].

    It is 1 - (C-c choose k) / (C choose k) for a query with c right candidates of C, averaged over the queries.
    """
    num_right = (query_groups[:, None] == candidate_groups[None]).sum(1)
    num_candidates = torch.full_like(num_right, len(candidate_groups))
    return float(chance_of_a_hit(num_candidates, num_right, torch.full_like(num_right, k)).mean())


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


def retrieval_hits(
    image_embeds: Tensor, text_embeds: Tensor, image_of_text: Tensor, *, ks: Sequence[int], queries_at_once: int = 256
) -> tuple[Tensor, Tensor]:
    """Whether each image finds one of its captions and each caption its image among the k nearest, float64 in [0, 1].

    Each caption stands for itself, as in the usual figures of COCO and Flickr30K; where two are the same, so are their
    embeddings, and they tie. Queries are taken in chunks, so that memory grows with `queries_at_once` times the number
    of candidates, and 100,000 by 100,000 fits.

    Args:
        image_embeds: (N, E) embeddings of the images, of any length.
        text_embeds: (M, E) embeddings of the captions, of any length.
        image_of_text: (M,) int64 the row of each caption's image; every image has one or more.
        ks: the ranks.
        queries_at_once: rows of a chunk.

    Returns:
        of images (len(ks), N) and of captions (len(ks), M), on the CPU; see `expected_hits` for ties.

    Raises:
        ValueError: an image has no caption, a caption no image, or an embedding is not finite.
    """
    if len(image_of_text) != len(text_embeds):
        raise ValueError(f"{len(text_embeds)} texts and the images of {len(image_of_text)}: there must be as many")
    num_images = len(image_embeds)
    if bool(((image_of_text < 0) | (image_of_text >= num_images)).any()):
        raise ValueError(f"texts are of the images 0 to {num_images - 1}, not {image_of_text.unique().tolist()}")
    is_missing = torch.bincount(image_of_text, minlength=num_images) == 0
    if bool(is_missing.any()):
        raise ValueError(f"image {int(is_missing.nonzero()[0])} has no caption")
    images_NE = nn.functional.normalize(image_embeds.float(), dim=-1)
    texts_ME = nn.functional.normalize(text_embeds.float(), dim=-1)
    image_of_text = image_of_text.to(images_NE.device)

    def hits(queries: Tensor, candidates: Tensor, query_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Of right pairs in the order of their queries."""
        starts = range(0, len(queries), queries_at_once)
        later, first = _equal_rows(candidates)
        bounds = torch.searchsorted(query_ids, torch.tensor([*starts, len(queries)], device=query_ids.device)).tolist()
        chunks = []
        for number, start in enumerate(starts):
            pairs = slice(bounds[number], bounds[number + 1])
            scores = queries[start : start + queries_at_once] @ candidates.T
            # a product's last bit depends on where in the matrix its row stands
            scores[:, later] = scores[:, first]
            found = expected_hits_of_pairs(scores, query_ids[pairs] - start, candidate_ids[pairs], ks=ks)
            chunks.append(found.cpu())
        return torch.cat(chunks, dim=1)

    by_image = image_of_text.argsort(stable=True)
    text_ids = torch.arange(len(texts_ME), device=texts_ME.device)
    return (
        hits(images_NE, texts_ME, image_of_text[by_image], by_image),
        hits(texts_ME, images_NE, text_ids, image_of_text),
    )


def _equal_rows(embeds: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that are equal to an earlier one, and for each of them the first that it is equal to."""
    first_of: dict[bytes, int] = {}
    firsts = torch.tensor(
        [first_of.setdefault(row.tobytes(), number) for number, row in enumerate(embeds.cpu().numpy())]
    )
    later = (firsts < torch.arange(len(embeds))).nonzero().flatten()
    return later.to(embeds.device), firsts[later].to(embeds.device)


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
