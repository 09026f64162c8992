# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a stage's samples are made into, and its held-out samples as evaluations."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.errors import InputError
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.collators import ImageTextPackCollator, MaskedImagePackCollator, tokenize
from turingvit_hf.training.data.samples import Sample, iterate_samples
from turingvit_hf.training.loop.evaluations import (
    ClassificationEvaluation,
    Evaluation,
    LossEvaluation,
    RetrievalEvaluation,
)
from turingvit_hf.training.objective import Objective
from turingvit_hf.training.teachers import Teacher


Collate = ImageTextPackCollator | MaskedImagePackCollator


class LazyPacks(Sequence[dict[str, Any]]):
    """Packs of samples that are made when they are asked for, so that each rank makes those that it evaluates.

    Args:
        samples: all of them; their pixels stay in memory, three bytes a pixel.
        collate: makes a pack of some.
        tokens_per_pack: patches in a pack, unless a single sample has more.
    """

    def __init__(self, samples: Iterable[Sample], collate: Collate, *, tokens_per_pack: int):
        self.collate = collate
        self.samples: list[Sample] = list(samples)
        self._starts = [0]
        num_tokens = 0
        area = collate.image_processor.patch_size**2
        for number, sample in enumerate(self.samples):
            size = sum(frame.shape[1] * frame.shape[2] for frame in sample.frames) // area
            if num_tokens and num_tokens + size > tokens_per_pack:
                self._starts.append(number)
                num_tokens = 0
            num_tokens += size

    def __len__(self) -> int:
        return len(self._starts) if self.samples else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The pack with this number.

        Raises:
            IndexError: there is none.
        """
        start = self._starts[index]
        end = self._starts[index + 1] if index + 1 < len(self._starts) else len(self.samples)
        pack = self.collate(self.samples[start:end])
        pack.pop("notes", None)  # what was counted while packing is for the loader
        return pack


def make_collate(
    recipe: StageRecipe,
    image_processor: TuringViTImageProcessor,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    vocabulary: PreTrainedTokenizerBase | None = None,
    teacher: Teacher | None = None,
) -> Collate:
    """What makes packs of a stage's samples.

    Args:
        recipe: the stage's.
        image_processor: the tower's.
        tokenizer: of the text encoder; None in stage `mim`.
        vocabulary: whose subwords are the classes of SuperClass, None without it.
        teacher: of stage `mim`.
    """
    if tokenizer is None or recipe.text is None:
        preprocess = teacher.preprocess if teacher is not None else None
        return MaskedImagePackCollator(image_processor, mask_ratio=recipe.objective.mask_ratio, preprocess=preprocess)
    return ImageTextPackCollator(
        image_processor,
        tokenizer,
        max_tokens=recipe.text.max_tokens,
        lowercase=recipe.text.lowercase,
        vocabulary=vocabulary,
    )


def make_evaluations(
    recipe: StageRecipe, collate: Collate, *, objective: Objective, tokenizer: PreTrainedTokenizerBase | None
) -> list[Evaluation]:
    """What the recipe's section `evaluation` measures; in stage `mim` the loss on the images kept for retrieval.

    Raises:
        InputError: a source cannot be used or has nothing usable.
    """
    evaluation = recipe.evaluation
    found: list[Evaluation] = []
    if tokenizer is None:
        if evaluation.retrieval is not None:
            packs = _read(recipe, evaluation.retrieval, collate, captions=False)
            found.append(LossEvaluation(objective, packs))
        return found
    for name in ("retrieval", "video_retrieval"):
        source = getattr(evaluation, name)
        if source is not None:
            packs = _read(recipe, source, collate)
            found.append(RetrievalEvaluation(packs, [sample.caption for sample in packs.samples], name=name))
    if evaluation.classification is not None:
        packs = _read(recipe, evaluation.classification, collate)
        class_names = sorted({sample.caption for sample in packs.samples})
        labels = [class_names.index(sample.caption) for sample in packs.samples]
        found.append(
            ClassificationEvaluation(
                packs, labels, class_names, _tokenize_with(tokenizer, recipe), templates=evaluation.templates
            )
        )
    return found


def _read(recipe: StageRecipe, source: SourceRecipe, collate: Collate, *, captions: bool = True) -> LazyPacks:
    data = dataclasses.replace(recipe.data, resolution=recipe.evaluation.resolution or recipe.data.resolution)
    samples = iterate_samples(
        source,
        data,
        patch_size=collate.image_processor.patch_size,
        num_samples=recipe.evaluation.num_samples,
        captions=captions,
    )
    packs = LazyPacks(samples, collate, tokens_per_pack=recipe.data.tokens_per_pack)
    if len(packs.samples) < 2:
        raise InputError(f"evaluation on {source.path!r}: {len(packs.samples)} usable samples, at least 2 are needed")
    return packs


def _tokenize_with(
    tokenizer: PreTrainedTokenizerBase, recipe: StageRecipe
) -> Callable[[list[str]], dict[str, Tensor]]:
    text = recipe.text
    assert text is not None, "StageRecipe refuses a stage with captions and no text section"

    def tokenize_prompts(texts: list[str]) -> dict[str, Tensor]:
        return tokenize(
            tokenizer, [prompt.lower() for prompt in texts] if text.lowercase else texts, max_tokens=text.max_tokens
        )

    return tokenize_prompts
