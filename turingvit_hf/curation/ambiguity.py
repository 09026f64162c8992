# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How easily a caption could be another image's: the normalizer of the contrastive loss, over batches of a table.

With unit vectors v_i of images and t_i of captions, a batch B of images that contains i, and K ways to cut the table
into batches, the ambiguity of VISTA's figure is the normalizer of negCLIPLoss (Wang et al., arXiv 2405.19547):

    G(i) = mean_k tau/2 * [ log sum_{j in B_k} exp(v_i . t_j / tau)  +  log sum_{j in B_k} exp(v_j . t_i / tau) ]

and alignment - G is the negative loss of CLIP of this pair times tau, at most 0. tau is the scorer's own temperature;
a softmax over a batch is calibrated for CLIP's loss and only ranks where a scorer was trained with SigLIP's.

Batches depend on seed and sample ids alone, not on the order of rows, and are jobs of their own: however they are
spread over workers, the result is the same. A job holds the vectors of its batch and one block of products.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from turingvit_hf.curation.embedding_table import EmbeddingTable, open_table
from turingvit_hf.curation.steps.base import Batch, Step
from turingvit_hf.files.sections import STRICT


Pool = Literal["all_candidates", "per_style", "one_per_image"]

# products held at a time: 32 MiB of float32
BLOCK_ROWS, BLOCK_COLUMNS = 2048, 4096


@dataclass(frozen=True, config=STRICT)
class Contrast:
    """What captions are contrasted with.

    Attributes:
        tau: temperature, above 0; the scorer's 1 / exp(logit_scale): 0.01 for OpenAI's CLIP.
        batch_size: images of a batch.
        num_batchings: K.
        seed: of the batches, and of the captions that `one_per_image` draws.
        pool: `all_candidates` of the batch; those of the same style, `per_style`; `one_per_image`, drawn anew for
            each of the K batchings, the candidate itself in its own image's place.
    """

    tau: float = Field(gt=0.0)
    batch_size: int = Field(32_768, ge=1)
    num_batchings: int = Field(10, ge=1)
    seed: int = 0
    pool: Pool = "all_candidates"


class BatchResult(NamedTuple):
    """What a job found: numbers of captions, and the ambiguity of each within this batch, float64."""

    captions: np.ndarray
    ambiguity: np.ndarray


class ContrastBatches(Step):
    """Finds the ambiguity of captions within batches of images; its rows are jobs, numbered from 0.

    New columns: `captions`, the numbers of the captions of the job's batch, and `ambiguity` of each, as arrays.
    `mean_ambiguity` joins them.

    Args:
        folder: where `write_table` put the embeddings; they are mapped, so that workers share them.
        contrast: temperature, batches and pool.
        device: of torch, for the products.
    """

    name = "ambiguity"
    reads = ("job",)

    def __init__(self, folder: Path, contrast: Contrast, *, device: str = "cpu"):
        self.folder = folder
        self.contrast = contrast
        self.device = device
        self._loaded: tuple[EmbeddingTable, np.ndarray] | None = None

    def __call__(self, batch: Batch) -> Batch:
        """Return the new columns of a batch of jobs."""
        if self._loaded is None:
            table = open_table(self.folder)
            self._loaded = table, digests_of(table.keys)
        table, digests = self._loaded
        results = [
            batch_ambiguity(table, self.contrast, batch_of_job(digests, self.contrast, job), device=self.device)
            for job in batch["job"]
        ]
        return {
            "captions": [result.captions for result in results],
            "ambiguity": [result.ambiguity for result in results],
        }

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; it maps the files itself."""
        return self.__dict__ | {"_loaded": None}


class BatchOfImages(NamedTuple):
    """Which of the K batchings a job belongs to, and the numbers of its images."""

    batching: int
    images: np.ndarray


def number_of_jobs(num_images: int, contrast: Contrast) -> int:
    """Return how many batches there are: K times as many as it takes to hold all images."""
    return contrast.num_batchings * _batches_in_each(num_images, contrast)


def mean_ambiguity(results: Iterable[BatchResult], num_captions: int, contrast: Contrast) -> np.ndarray:
    """Return the ambiguity G of all captions, (M,) float64: the mean over the K batchings; lower is better.

    Args:
        results: of all jobs, in order, so that sums round the same way however many workers there were.
        num_captions: M.
        contrast: what the jobs were made with.
    """
    total = np.zeros(num_captions)
    for captions, values in results:
        total[captions] += values
    return total / contrast.num_batchings


def ambiguity(table: EmbeddingTable, contrast: Contrast, *, device: str = "cpu") -> np.ndarray:
    """Return the ambiguity G of all captions of a table, (M,) float64, in this process."""
    digests = digests_of(table.keys)
    jobs = (batch_of_job(digests, contrast, job) for job in range(number_of_jobs(len(digests), contrast)))
    results = (batch_ambiguity(table, contrast, job, device=device) for job in jobs)
    return mean_ambiguity(results, len(table.owners), contrast)


def alignment(table: EmbeddingTable, *, block: int = 65_536) -> np.ndarray:
    """Return the cosine of each caption and its image, (M,) float64, of the same stored vectors as `ambiguity`."""
    cosines = np.empty(len(table.owners))
    for start in range(0, len(cosines), block):
        rows = slice(start, start + block)
        images = _unit(table.images, np.asarray(table.owners[rows]), "cpu")
        cosines[rows] = (images * _unit(table.captions, np.arange(len(cosines))[rows], "cpu")).sum(1).double().numpy()
    return cosines


def digests_of(keys: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return a 64-bit number for each sample id, by which batches are made; it takes no part where the row stands."""
    return np.array(
        [int.from_bytes(hashlib.blake2b(str(key).encode(), digest_size=8).digest(), "little") for key in keys],
        np.uint64,
    )


def batch_of_job(digests: np.ndarray, contrast: Contrast, job: int) -> BatchOfImages:
    """Return the images of a job. Those of one batching hold every image once, in batches that differ by one at most.

    A small remainder would be worse than even batches: what its sums lack can be made up for on average alone.
    """
    batching, part = divmod(job, _batches_in_each(len(digests), contrast))
    order = np.lexsort((digests, _mixed(digests, _draw_seed(contrast.seed, batching))))
    return BatchOfImages(batching, np.array_split(order, _batches_in_each(len(digests), contrast))[part])


def batch_ambiguity(
    table: EmbeddingTable, contrast: Contrast, batch: BatchOfImages, *, device: str = "cpu"
) -> BatchResult:
    """Return the ambiguity of all captions of a batch of images, contrasted within it.

    A batch of b images, where a full one has B, has too few terms. Those of other images are multiplied by
    (B - 1) / (b - 1), which gives a full batch's sum on average; that of the pair itself is in any batch once. Where
    the others outweigh it, that is the usual tau * log(B / b); where it outweighs them, as with good captions at a
    small tau, that would be too much. A table that is smaller than a batch is a full one.
    """
    captions, places = captions_of(table.owners, batch.images)
    if not len(captions):
        return BatchResult(captions, np.zeros(0))
    images = _unit(table.images, batch.images, device)
    texts = _unit(table.captions, captions, device)
    place = torch.from_numpy(places).to(device)
    own = (images[place] * texts).sum(1).double()
    by_image = torch.empty_like(own)
    by_caption = torch.empty_like(own)
    for members, pool in _contrasts(contrast, table.styles[captions], captions, places, batch.batching):
        members, pool = members.to(device), pool.to(device)
        other_texts, _ = _log_sums(images, texts[pool], place[pool], contrast.tau)
        # an image is in the batch once, and each caption's others are the other images
        _, other_images = _log_sums(images, texts[members], place[members], contrast.tau)
        always = _own_log_sums(own, place, len(images), contrast.tau)[place[members]]
        if contrast.pool != "all_candidates":
            always = own[members] / contrast.tau
        num_texts = len(images) if contrast.pool == "all_candidates" else len(pool)
        by_image[members] = torch.logaddexp(other_texts[place[members]] + _lacking(contrast, table, num_texts), always)
        by_caption[members] = torch.logaddexp(
            other_images + _lacking(contrast, table, len(images)), own[members] / contrast.tau
        )
    value = contrast.tau / 2 * (by_image + by_caption)
    # by rounding alone can it be less than the pair's own term
    return BatchResult(captions, torch.maximum(value, own).cpu().numpy())


def captions_of(owners: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the captions of some images, and each one's place among these images.

    Args:
        owners: (M,) number of each caption's image, ascending.
        images: (b,) numbers of images, in any order.
    """
    first, last = np.searchsorted(owners, images, "left"), np.searchsorted(owners, images, "right")
    counts = last - first
    places = np.repeat(np.arange(len(images)), counts)
    within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first[places] + within, places


def _contrasts(
    contrast: Contrast, styles: np.ndarray, captions: np.ndarray, places: np.ndarray, batching: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of captions, and of those that they are contrasted with."""
    everything = np.arange(len(captions))
    if contrast.pool == "all_candidates":
        pools = [(everything, everything)]
    elif contrast.pool == "one_per_image":
        pools = [(everything, _drawn_captions(captions, places, _draw_seed(contrast.seed, batching) + 1))]
    else:
        groups = _groups(styles, places)
        pools = [(members, members) for group in np.unique(groups) for members in [np.flatnonzero(groups == group)]]
    for members, pool in pools:
        yield torch.from_numpy(members), torch.from_numpy(pool)


def _lacking(contrast: Contrast, table: EmbeddingTable, number: int) -> float:
    """log((B - 1) / (b - 1)); 0 of one alone, which has no others to multiply."""
    full = min(contrast.batch_size, len(table.keys))
    return math.log((full - 1) / (number - 1)) if number > 1 else 0.0


def _log_sums(images: Tensor, captions: Tensor, place: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """log sum exp(v.t / tau), float64, over the captions of other images for each image, and over the images of other
    captions for each caption. `place` says whose the captions are."""
    by_image = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)
    by_caption = torch.full((len(captions),), -torch.inf, dtype=torch.float64, device=images.device)
    numbers = torch.arange(len(images), device=images.device)[:, None]
    for top in range(0, len(images), BLOCK_ROWS):
        rows = slice(top, top + BLOCK_ROWS)
        for left in range(0, len(captions), BLOCK_COLUMNS):
            columns = slice(left, left + BLOCK_COLUMNS)
            logits = images[rows] @ captions[columns].T / tau
            logits.masked_fill_(place[columns] == numbers[rows], -torch.inf)
            by_image[rows] = torch.logaddexp(by_image[rows], logits.logsumexp(1).double())
            by_caption[columns] = torch.logaddexp(by_caption[columns], logits.logsumexp(0).double())
    return by_image, by_caption


def _own_log_sums(own: Tensor, place: Tensor, num_images: int, tau: float) -> Tensor:
    """log sum exp over each image's own captions; minus infinity for an image without."""
    largest = torch.full((num_images,), -torch.inf, dtype=own.dtype, device=own.device)
    largest = largest.scatter_reduce(0, place, own, "amax")
    sums = torch.zeros_like(largest).index_add_(0, place, torch.exp((own - largest[place]) / tau))
    return largest / tau + sums.log()


def _groups(styles: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Number of each caption's style; where an image has several of a style, its second and third are styles apart."""
    seen: dict[tuple[int, Any], int] = {}
    labels: dict[tuple[Any, int], int] = {}
    groups = np.empty(len(styles), np.int64)
    for index, (style, place) in enumerate(zip(styles.tolist(), places.tolist(), strict=True)):
        occurrence = seen[place, style] = seen.get((place, style), -1) + 1
        groups[index] = labels.setdefault((style, occurrence), len(labels))
    return groups


def _drawn_captions(captions: np.ndarray, places: np.ndarray, seed: int) -> np.ndarray:
    """Index of one caption of each image that has any: the one whose mixed number comes first."""
    mixed = _mixed(captions.astype(np.uint64), seed)
    order = np.lexsort((mixed, places))
    return order[np.r_[True, places[order][1:] != places[order][:-1]]]


def _unit(vectors: np.ndarray, rows: np.ndarray, device: str) -> Tensor:
    """Rows as float32 of length 1, which 16 bits hold to three digits only."""
    return torch.nn.functional.normalize(torch.from_numpy(np.asarray(vectors[rows], np.float32)).to(device), dim=-1)


def _batches_in_each(num_images: int, contrast: Contrast) -> int:
    return max(1, math.ceil(num_images / contrast.batch_size))


def _draw_seed(seed: int, batching: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{batching}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mixed(values: np.ndarray, seed: int) -> np.ndarray:
    """64-bit numbers that look random, a permutation of all such numbers (the finalizer of SplitMix64)."""
    mixed = values + np.uint64(seed % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
