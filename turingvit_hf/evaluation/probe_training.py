# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Probes trained by gradient descent, one for each learning rate and weight decay, side by side on equal batches."""

import logging
import math
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.linear_probe import HELD_OUT
from turingvit_hf.evaluation.probe_heads import LinearHeads
from turingvit_hf.evaluation.shards import write_whole
from turingvit_hf.evaluation.tokens import FeatureRows, TokenFiles


logger = logging.getLogger(__name__)

MOMENTUM = 0.9
# chunks that are read while another one is worked on
CHUNKS_AHEAD = 2

Examples = TokenFiles | FeatureRows
MakeHeads = Callable[[Tensor, Tensor, int], LinearHeads]


@dataclass(frozen=True)
class ProbeRecipe:
    """How probes are trained.

    Attributes:
        learning_rates: to choose from.
        weight_decays: to choose from, with each of the learning rates.
        optimizer: `"adamw"`, or `"sgd"` with momentum 0.9.
        epochs: over the training images; the learning rate falls to 0 with a cosine.
        warmup: share of the steps in which it rises first.
        batch_size: images of a step, and a sixteenth of all where that is fewer.
        seed: of the order of images and of what is held out.
    """

    learning_rates: Sequence[float]
    weight_decays: Sequence[float] = (0.0,)
    optimizer: str = "adamw"
    epochs: int = 20
    warmup: float = 0.1
    batch_size: int = 256
    seed: int = 0

    @property
    def variants(self) -> list[tuple[float, float]]:
        """All pairs of learning rate and weight decay."""
        return list(product(self.learning_rates, self.weight_decays))


def sweep_probes(
    make_heads: MakeHeads,
    examples: Examples,
    rows: Tensor,
    recipe: ProbeRecipe,
    *,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
) -> tuple[LinearHeads, dict[str, float]]:
    """The probe of all rows in the variant that does best on a fifth of them held out, and the share of each variant.

    Of variants that are right as often the one of lower cross-entropy is taken. Test data are never looked at.

    Args:
        make_heads: makes so many probes for features of a mean and deviation.
        examples: what they learn from.
        rows: (R,) int64 which of them, at least two.
        recipe: how.
        device: where.
        folder: where the state of training is kept, so that it goes on there; None keeps none.

    Returns:
        the probe, and {"learning rate, weight decay": share of the held-out examples that it classifies right}.

    Raises:
        InputError: there are fewer than two rows, no variant has a finite loss, or a state cannot be kept.
    """
    if len(rows) < 2:
        raise InputError(f"a probe is chosen on images that it did not learn from, and there are {len(rows)} in all")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(recipe.seed))
    num_held_out = max(1, round(HELD_OUT * len(rows)))
    held_out, kept = rows[order[:num_held_out]], rows[order[num_held_out:]]
    state = None if folder is None else folder / "sweep.pt"
    heads = train_probes(make_heads, examples, kept, recipe, recipe.variants, device=device, state=state)
    shares, losses = judge(heads, examples, held_out, device=device)
    # one that has diverged gives every example the first class
    shares = [share if math.isfinite(loss) else 0.0 for share, loss in zip(shares, losses, strict=True)]
    if not any(map(math.isfinite, losses)):
        raise InputError(f"the losses of all learning rates diverged, {list(recipe.learning_rates)}: take lower ones")
    best = max(range(len(shares)), key=lambda number: (shares[number], -losses[number]))
    logger.info("held-out top 1 of %s: %s", recipe.variants, shares)
    state = None if folder is None else folder / "probe.pt"
    chosen = train_probes(make_heads, examples, rows, recipe, [recipe.variants[best]], device=device, state=state)
    names = [f"{rate:g}, {decay:g}" for rate, decay in recipe.variants]
    return chosen, dict(zip(names, shares, strict=True))


def train_probes(
    make_heads: MakeHeads,
    examples: Examples,
    rows: Tensor,
    recipe: ProbeRecipe,
    variants: Sequence[tuple[float, float]],
    *,
    device: torch.device | str = "cpu",
    state: Path | None = None,
) -> LinearHeads:
    """Probes, one for each pair of learning rate and weight decay, trained on the same batches.

    Args:
        make_heads: makes so many probes for features of a mean and deviation.
        examples: what they learn from.
        rows: (R,) int64 which of them.
        recipe: how, apart from its variants.
        variants: the pairs.
        device: where.
        state: a file that is renewed after each epoch, and from which training goes on where it is there.

    Raises:
        InputError: the state cannot be kept or read.
    """
    found = None if state is None or not state.is_file() else _load(state, device)
    statistics = (torch.zeros(examples.width), torch.ones(examples.width)) if found else examples.statistics(rows)
    heads = make_heads(*statistics, len(variants)).to(device)
    optimizer = _optimizer(heads, recipe, variants)
    first_epoch = 0
    if found is not None:
        heads.load_state_dict(found["heads"])
        optimizer.load_state_dict(found["optimizer"])
        first_epoch = found["epoch"]
    batch_size = min(recipe.batch_size, max(1, len(rows) // 16))
    num_steps = -(-len(rows) // batch_size)
    for epoch in range(first_epoch, recipe.epochs):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(recipe.seed + epoch))
        batches = rows[order].split(batch_size)
        chunks = [(number, chunk) for number, batch in enumerate(batches) for chunk in examples.chunks(batch)]
        numbers = [number for number, _ in chunks]
        total_K = torch.zeros(len(variants), device=device)
        for place, (chunk, inputs) in enumerate(_loaded(examples, [chunk for _, chunk in chunks])):
            batch = numbers[place]
            loss_K = _losses(heads(*(value.to(device) for value in inputs)), examples.labels[chunk].to(device))
            # each probe has its own weights: the sum of their losses gives each one the gradient of its own
            (loss_K.sum() / len(batches[batch])).backward()
            total_K += loss_K.detach()
            if place + 1 == len(chunks) or numbers[place + 1] != batch:
                progress = (epoch * num_steps + batch + 0.5) / (recipe.epochs * num_steps)
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * _schedule(progress, recipe.warmup)
                optimizer.step()
                optimizer.zero_grad()
        logger.info("epoch %d of %d: cross-entropy %.4f", epoch + 1, recipe.epochs, total_K.min() / len(rows))
        if state is not None:
            _save(state, {"heads": heads.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1})
    return heads.eval()


@torch.inference_mode()
def judge(
    heads: LinearHeads, examples: Examples, rows: Tensor, *, device: torch.device | str = "cpu"
) -> list[list[float]]:
    """The share of rows that each of K probes classifies right, and the mean cross-entropy of each."""
    hits, losses = [], []
    for chunk, inputs in _loaded(examples, _all_chunks(examples, rows)):
        logits_NKC, labels = heads(*(value.to(device) for value in inputs)), examples.labels[chunk].to(device)
        hits.append((logits_NKC.argmax(-1) == labels[:, None]).double().sum(0).cpu())
        losses.append(_losses(logits_NKC, labels).double().cpu())
    return [(torch.stack(values).sum(0) / len(rows)).tolist() for values in (hits, losses)]


@torch.inference_mode()
def probe_scores(heads: LinearHeads, examples: Examples, *, device: torch.device | str = "cpu") -> Tensor:
    """The logits (N, C) float64 on the CPU that a single probe gives all examples."""
    rows, scores = [], []
    for chunk, inputs in _loaded(examples, _all_chunks(examples, torch.arange(len(examples.labels)))):
        rows.append(chunk)
        scores.append(heads(*(value.to(device) for value in inputs))[:, 0].double().cpu())
    return torch.cat(scores)[torch.cat(rows).argsort()]


def _losses(logits_NKC: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy (K,) of each probe, summed over examples."""
    spread = labels[:, None].expand(logits_NKC.shape[:2])
    return nn.functional.cross_entropy(logits_NKC.transpose(1, 2), spread, reduction="none").sum(0)


def _optimizer(heads: LinearHeads, recipe: ProbeRecipe, variants: Sequence[tuple[float, float]]) -> Any:
    groups: list[dict[str, Any]] = []
    for number, (rate, decay) in enumerate(variants):
        decaying, others = heads.parameters_of(number)
        groups.append({"params": decaying, "lr": rate, "initial_lr": rate, "weight_decay": decay})
        groups.append({"params": others, "lr": rate, "initial_lr": rate, "weight_decay": 0.0})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM)
    return torch.optim.AdamW(groups)


def _schedule(progress: float, warmup: float) -> float:
    """The share of the learning rate after a share of all steps: a linear rise, then half a cosine down to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _all_chunks(examples: Examples, rows: Tensor) -> list[Tensor]:
    return [chunk for part in rows.split(1024) for chunk in examples.chunks(part)]


def _loaded(examples: Examples, chunks: Sequence[Tensor]) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """The chunks with their inputs, some read ahead by a thread of their own."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[Tensor, Future[tuple[Tensor, ...]]]] = deque()
        for chunk in chunks:
            waiting.append((chunk, pool.submit(examples.load, chunk)))
            if len(waiting) > CHUNKS_AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _save(path: Path, state: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda partial: torch.save(state, partial))
    except OSError as error:
        raise InputError(f"the state of a probe cannot be kept in {path}: {error}") from error


def _load(path: Path, device: torch.device | str) -> dict[str, Any]:
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"the state of a probe in {path} cannot be read: {error}; delete that file") from error
