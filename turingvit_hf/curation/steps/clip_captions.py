# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Captions of clips, fused from those of frames and of the whole, and a judge's marks for clip and caption."""

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from turingvit_hf.curation.decisions import CaptionThresholds
from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.models.answers import Answer, ChatModel, hash_of_parameters, usage_of
from turingvit_hf.curation.models.captioners import clean_caption, error_text, failure_row
from turingvit_hf.curation.models.fusers import Fuser, Judge, caption_clips, caption_frames
from turingvit_hf.curation.models.registry import build
from turingvit_hf.curation.models.scorers import Scorer
from turingvit_hf.curation.prompts import clip_prompt, fusion_prompt, prompt_hash
from turingvit_hf.curation.steps.base import Batch, Step, batch_length
from turingvit_hf.curation.steps.captions import add_usage, raw_candidates
from turingvit_hf.curation.steps.embeddings import CUT_FOR_SCORER, checked
from turingvit_hf.curation.steps.videos import embed_clips, mean_embedding
from turingvit_hf.curation.text import check_caption, entropy


CLIP, FUSED = "clip", "fused"


class CaptionClips(Step):
    """Makes the column `candidates` of clips: their rows' own captions, the caption of the clip and the fused one.

    It reads `image`, a tuple of frames, `sha256`, `raw_caption` and `copied_captions`. It also makes `frame_captions`,
    texts, and `caption_failures` and `caption_usage` as `CaptionStep` does.

    Args:
        captioners: models that caption frames and clips, as `registry.build` takes them or built already.
        fuser: the model that joins captions; None takes each captioner itself.
        use_raw: whether the rows' own captions are candidates.
        tagger: of nouns.
    """

    name = "caption"
    reads = ("image", "sha256", "raw_caption", "copied_captions")

    def __init__(
        self,
        *,
        captioners: Sequence[Any] = (),
        fuser: Any = None,
        use_raw: bool = True,
        tagger: Any = MappingProxyType({"kind": "lexicon"}),
        thresholds: CaptionThresholds | None = None,
    ):
        self._captioners: list[ChatModel] = [build("captioner", captioner) for captioner in captioners]
        self._fuser = None if fuser is None else build("fuser", fuser)
        self._use_raw = use_raw
        # the limit of words is one for images: a clip's caption tells a course of events
        self._measure = partial(
            check_caption, tagger=build("tagger", tagger), thresholds=thresholds or CaptionThresholds(max_words=None)
        )

    def __call__(self, batch: Batch) -> Batch:
        """Return `candidates`, `frame_captions`, `caption_failures`, `caption_usage` and `error` of each row."""
        if self.journal is None:
            self.journal = Journal()
        size = batch_length(batch)
        columns: Batch = {
            "candidates": raw_candidates(batch, self._measure) if self._use_raw else [[] for _ in range(size)],
            "frame_captions": [[] for _ in range(size)],
            "caption_failures": [[] for _ in range(size)],
            "caption_usage": [{} for _ in range(size)],
            "error": [None] * size,
        }
        rows = [row for row, frames in enumerate(batch["image"]) if frames]
        for captioner in self._captioners:
            self._caption(captioner, batch, rows, columns)
        return columns

    def _caption(self, model: ChatModel, batch: Batch, rows: list[int], columns: Batch) -> None:
        assert self.journal is not None
        clips, hashes = ([batch[name][row] for row in rows] for name in ("image", "sha256"))
        of_frames = caption_frames(model, clips, hashes, self.journal)
        of_clips = caption_clips(model, clips, hashes, self.journal)
        texts = [[clean_caption(answer.text) for answer in answers if not answer.failure] for answers in of_frames]
        fusable = [place for place, answer in enumerate(of_clips) if not answer.failure and texts[place]]
        clip_texts = [clean_caption(of_clips[place].text) for place in fusable]
        fuser = model if self._fuser is None else self._fuser
        fused = Fuser(fuser).fuse(clip_texts, [texts[place] for place in fusable], self.journal)
        by_place = dict(zip(fusable, fused, strict=True))
        for place, row in enumerate(rows):
            made, asked = [], [(model, answer) for answer in (*of_frames[place], of_clips[place])]
            if not of_clips[place].failure:
                prompt = clip_prompt(len(clips[place]))
                made.append(self._candidate(model, of_clips[place], CLIP, prompt))
            if place in by_place:
                asked.append((fuser, by_place[place]))
                if not by_place[place].failure:
                    prompt = fusion_prompt(clean_caption(of_clips[place].text), texts[place])
                    made.append(self._candidate(fuser, by_place[place], FUSED, prompt))
            columns["candidates"][row] += made
            columns["frame_captions"][row] += texts[place]
            failures = [failure_row(of.name, None, answer) for of, answer in asked if answer.failure]
            columns["caption_failures"][row] += failures
            error = error_text(failures, is_anything_usable=bool(made))
            columns["error"][row] = columns["error"][row] or error
            for of, answer in asked:  # each at the prices of its model
                columns["caption_usage"][row] = add_usage(columns["caption_usage"][row], usage(of, [answer]))

    def _candidate(self, model: ChatModel, answer: Answer, style: str, prompt: str) -> dict[str, Any]:
        text = clean_caption(answer.text)
        return {
            "text": text,
            "origin": "model",
            "copied_from": None,
            "captioner": model.name,
            "captioner_revision": model.revision,
            "style": style,
            "prompt_hash": prompt_hash(prompt),
            "parameters_hash": hash_of_parameters(model),
            "seed": model.parameters.get("seed"),
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "latency": answer.latency,
            **self._measure(text),
        }


class JudgeClips(Step):
    """Adds a judge's marks for each clip with the last caption that a model wrote, the fused one where there is one;
    where no model wrote any, with the first of the row's own.

    It reads `image`, a tuple of frames, `sha256` and `candidates`. It makes `judge_quality`, `judge_relevance`,
    `judge_consistency` and their mean `judge_mean`, each 0 to 1, `judge_usage`, and `error`.

    Args:
        judge: a model, as `registry.build` takes it or built already.
    """

    name = "judge"
    reads = ("image", "sha256", "candidates")

    def __init__(self, *, judge: Any):
        self._judge = Judge(build("judge", judge))

    def __call__(self, batch: Batch) -> Batch:
        """Return the new columns; None where there is nothing to judge."""
        if self.journal is None:
            self.journal = Journal()
        size = batch_length(batch)
        names = ("judge_quality", "judge_relevance", "judge_consistency", "judge_mean", "judge_usage", "error")
        columns: Batch = {name: [None] * size for name in names}
        rows = [row for row in range(size) if batch["image"][row] and batch["candidates"][row]]
        answers = self._judge.judge(
            [batch["image"][row] for row in rows],
            [batch["sha256"][row] for row in rows],
            [_judged(batch["candidates"][row])["text"] for row in rows],
            self.journal,
        )
        for row, answer in zip(rows, answers, strict=True):
            columns["judge_usage"][row] = usage(self._judge.model, [answer])
            if answer.failure:
                failure = failure_row(self._judge.model.name, None, answer)
                columns["error"][row] = error_text([failure], is_anything_usable=False)
                continue
            marks = [answer.value.quality, answer.value.relevance, answer.value.consistency]
            for name, mark in zip(names, [*marks, sum(marks) / len(marks)], strict=False):
                columns[name][row] = mark
        return columns


class EmbedClips(Step):
    """Embeds clips, as the mean of their frames, and candidates; columns as those of `EmbeddingStep`.

    Args:
        scorer: a model, as `registry.build` takes it or built already.
    """

    name = "embed"
    reads = ("image", "candidates")

    def __init__(self, *, scorer: Any):
        self.scorer: Scorer = build("scorer", scorer)

    @property
    def tau(self) -> float:
        """The temperature that the scorer was trained with."""
        return self.scorer.tau

    def __call__(self, batch: Batch) -> Batch:
        """Return `image_embedding`, `candidate_embeddings`, `candidates` and `error` of each row."""
        clips = [mean_embedding(vectors) for vectors in embed_clips(self.scorer, batch["image"])]
        candidates = [[{**candidate} for candidate in row or ()] for row in batch["candidates"]]
        texts: list[list[np.ndarray]] = []
        for clip, row in zip(clips, candidates, strict=True):
            embedded = self.scorer.embed_texts([candidate["text"] for candidate in row]) if row else None
            texts.append([] if embedded is None else list(embedded.vectors))
            for place, candidate in enumerate(row):
                assert embedded is not None
                candidate["entropy"] = entropy(candidate["text"])
                vector = embedded.vectors[place].astype(np.float32)
                candidate["alignment"] = None if clip is None else float(clip.astype(np.float32) @ vector)
                if embedded.is_cut[place]:
                    candidate["flags"] = [*candidate["flags"], CUT_FOR_SCORER]
        return checked(self.scorer, clips, texts) | {"candidates": candidates}


def _judged(candidates: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The candidate that stands for the clip; those of its copies come after its own."""
    written = [candidate for candidate in candidates if candidate["origin"] == "model"]
    return written[-1] if written else candidates[0]


def usage(model: ChatModel, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return what answers of a model took, see `usage_of`."""
    prices = {name: getattr(model, name, 0.0) for name in ("prompt_price", "completion_price")}
    return usage_of(answers, **prices)
