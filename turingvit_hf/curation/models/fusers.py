# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Captions and scores of clips: of frames, of the whole, both fused into one by text alone, and judged."""

from collections.abc import Sequence

import numpy as np

from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.models.answers import Answer, ChatModel, Question, ask
from turingvit_hf.curation.prompts import VideoScores, clip_prompt, frame_prompt, fusion_prompt, judge_prompt


Frames = Sequence[np.ndarray]  # uint8 (H, W, 3) each, in order


def caption_frames(
    model: ChatModel, clips: Sequence[Frames], clip_hashes: Sequence[str], journal: Journal
) -> list[list[Answer]]:
    """Return a caption for each frame of each clip.

    Args:
        model: answers questions about images.
        clips: frames.
        clip_hashes: what names each clip, such as the sha256 of its file with its start and end.
        journal: of answered calls.
    """
    prompt = frame_prompt()
    questions = [
        # of how many is part of it: the second of four is another frame than the second of eight
        Question(prompt, (frame,), f"{clip_hash}#{number}/{len(frames)}")
        for frames, clip_hash in zip(clips, clip_hashes, strict=True)
        for number, frame in enumerate(frames)
    ]
    answers = iter(ask(model, questions, journal))
    return [[next(answers) for _ in frames] for frames in clips]


def caption_clips(
    model: ChatModel, clips: Sequence[Frames], clip_hashes: Sequence[str], journal: Journal
) -> list[Answer]:
    """Return one caption for each clip, asked for with all its frames at once; arguments as `caption_frames`."""
    questions = [
        Question(clip_prompt(len(frames)), tuple(frames), clip_hash)
        for frames, clip_hash in zip(clips, clip_hashes, strict=True)
    ]
    return ask(model, questions, journal)


class Fuser:
    """Asks a model, which need not see, to join the captions of a clip and of its frames.

    Args:
        model: answers questions about text.
    """

    def __init__(self, model: ChatModel):
        self.model = model

    def fuse(
        self, clip_captions: Sequence[str], frame_captions: Sequence[Sequence[str]], journal: Journal
    ) -> list[Answer]:
        """Return the fused caption of each clip."""
        questions = [
            Question(fusion_prompt(clip_caption, captions))
            for clip_caption, captions in zip(clip_captions, frame_captions, strict=True)
        ]
        return ask(self.model, questions, journal)


class Judge:
    """Asks a model for scores of clips with their captions.

    Args:
        model: answers questions about images.
    """

    def __init__(self, model: ChatModel):
        self.model = model

    def judge(
        self, clips: Sequence[Frames], clip_hashes: Sequence[str], captions: Sequence[str], journal: Journal
    ) -> list[Answer]:
        """Return an answer for each clip, whose `value` is a `VideoScores` unless it has a failure."""
        questions = [
            Question(judge_prompt(caption, len(frames)), tuple(frames), clip_hash, VideoScores)
            for frames, clip_hash, caption in zip(clips, clip_hashes, captions, strict=True)
        ]
        return ask(self.model, questions, journal)
