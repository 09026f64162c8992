# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The stages of a run: in which order, made of which steps, and which part of the config each depends on."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from turingvit_hf.curation.config import CurationConfig, hash_of
from turingvit_hf.curation.steps.base import Batch, Step


# part of every stage's hash: raised when what the same config gives is stored differently
FORMAT = 2
# what is said of a model and does not change what it answers: where it is, how it is asked, what it costs
HOW_ASKED = frozenset(
    (
        "base_url",
        "api_key_variable",
        "batch_size",
        "concurrency",
        "completion_price",
        "device",
        "give_up_after",
        "max_retries",
        "max_wait",
        "prompt_price",
        "requests_per_minute",
        "timeout",
        "tokens_per_minute",
    )
)


@dataclass(frozen=True)
class Stage:
    """A part of the pipeline whose results are stored.

    Attributes:
        name: of the stage, its files and its section in the config.
        is_whole: whether it looks at the whole table at once; else it is done shard by shard.
        steps: of a stage that is done by shards, not loaded yet.
        needs_media: whether its steps are given the rows' media.
        thresholds: sections of `thresholds`, or `section.name`, that what it stores depends on.
        decides: sections of `thresholds` that rows are dropped by once its values are there.
        explodes: column of lists, each element of which becomes a row of its own in place of its row; None: none.
        vectors: columns of arrays, which go into a file of their own.
        kind: of the rows that it is for; None: of all.
        further: values of other sections that its steps are made of.
        facts: what the steps know of their models once these are loaded, as plain values for the manifest.
    """

    name: str
    is_whole: bool = False
    steps: Callable[[CurationConfig], list[Step]] = field(default=lambda config: [])
    needs_media: Callable[[CurationConfig], bool] = field(default=lambda config: True)
    thresholds: tuple[str, ...] = ()
    decides: tuple[str, ...] = ()
    explodes: str | None = None
    vectors: tuple[str, ...] = ()
    kind: Literal["image", "video"] | None = None
    further: Callable[[CurationConfig], Any] = field(default=lambda config: None)
    facts: Callable[[list[Step]], dict[str, Any]] = field(default=lambda steps: {})

    def is_enabled(self, config: CurationConfig) -> bool:
        """Whether a config has this stage switched on, and work for it."""
        section = getattr(config, self.name)
        if self.kind is not None and (self.kind == "video") != config.is_of_videos:
            return False
        if self.name == "verify" and not config.verify.verifiers:
            return False
        if self.name == "judge" and config.judge.judge is None:
            return False
        return getattr(section, "enabled", True)

    def hash(self, config: CurationConfig) -> str:
        """What the stored values depend on besides their input: rows are done again when it changes."""
        section = dataclasses.asdict(getattr(config, self.name))
        for name in ("enabled", "batch_size") if self.name != "score" else ("enabled",):
            section.pop(name, None)  # neither changes a value
        thresholds = dataclasses.asdict(config.thresholds)
        used = {}
        for place in self.thresholds:
            name, _, threshold = place.partition(".")
            used[place] = thresholds[name][threshold] if threshold else thresholds[name]
        parts = [section, used, self.further(config)]
        return hash_of([FORMAT, self.name, _of_values(parts), config.seed])

    def decisions_hash(self, config: CurationConfig) -> str:
        """What rows are dropped by after it: they are counted again when it changes."""
        thresholds = dataclasses.asdict(config.thresholds)
        return hash_of([thresholds[name] for name in self.decides])

    def batch_size(self, config: CurationConfig) -> int:
        """How many rows its steps are given at a time."""
        return getattr(config, self.name).batch_size


def enabled_stages(config: CurationConfig) -> list[Stage]:
    """Return the stages that a config has switched on, in their order."""
    return [stage for stage in STAGES.values() if stage.is_enabled(config)]


class AllRawCaptions(Step):
    """Gives the caption step all of a row's own captions, of which `raw_caption` is the first."""

    name = "raw captions"
    reads = ("raw_captions",)
    drafts = ("raw_caption",)

    def __call__(self, batch: Batch) -> Batch:
        """Return `raw_caption` with lists in it."""
        return {"raw_caption": batch["raw_captions"]}


def _of_values(value: Any) -> Any:
    """The same without how models are asked."""
    if isinstance(value, dict):
        is_model = "model" in value or "kind" in value
        return {name: _of_values(part) for name, part in value.items() if not (is_model and name in HOW_ASKED)}
    return [_of_values(part) for part in value] if isinstance(value, list | tuple) else value


def _frames(config: CurationConfig) -> int | None:
    return config.caption.num_frames if config.is_of_videos else None


def _cut(config: CurationConfig) -> list[Step]:
    from turingvit_hf.curation.steps.videos import CutVideos

    section = config.cut
    return [
        CutVideos(
            adaptive_threshold=section.adaptive_threshold,
            min_shot_frames=section.min_shot_frames,
            min_seconds=section.min_seconds,
            max_seconds=section.max_seconds,
        )
    ]


def _motion(config: CurationConfig) -> list[Step]:
    from turingvit_hf.curation.steps.videos import MeasureMotion

    return [MeasureMotion(rate=config.motion.rate, max_frames=config.motion.max_frames)]


def _consistency(config: CurationConfig) -> list[Step]:
    from turingvit_hf.curation.steps.videos import MeasureConsistency

    return [*_decoded(config), MeasureConsistency(scorer=config.embed.scorer)]


def _judge(config: CurationConfig) -> list[Step]:
    from turingvit_hf.curation.steps.clip_captions import JudgeClips

    return [*_decoded(config), JudgeClips(judge=config.judge.judge)]


def _measure(config: CurationConfig) -> list[Step]:
    from turingvit_hf.curation.steps.decode import DecodeImages
    from turingvit_hf.curation.steps.hashes import HashImages
    from turingvit_hf.curation.steps.quality import MeasureQuality

    long_side = config.measure.long_side
    return [DecodeImages(long_side=long_side), MeasureQuality(long_side=long_side), HashImages()]


def _caption(config: CurationConfig) -> list[Step]:
    from turingvit_hf.curation.steps.captions import CaptionStep

    section = config.caption
    if config.is_of_videos:
        return _caption_clips(config)
    step = CaptionStep(
        captioners=section.captioners,
        styles=section.styles,
        use_raw=section.use_raw,
        tagger=section.tagger,
        thresholds=config.thresholds.captions,
    )
    return [*(_decoded(config) if section.captioners else []), AllRawCaptions(), step]


def _caption_clips(config: CurationConfig) -> list[Step]:
    from turingvit_hf.curation.steps.clip_captions import CaptionClips

    section = config.caption
    step = CaptionClips(
        captioners=section.captioners,
        fuser=section.fuser,
        use_raw=section.use_raw,
        tagger=section.tagger,
        # the limit of words is one for images: a clip's caption tells a course of events
        thresholds=dataclasses.replace(config.thresholds.captions, max_words=None),
    )
    return [*(_decoded(config) if section.captioners else []), AllRawCaptions(), step]


def _verify(config: CurationConfig) -> list[Step]:
    from turingvit_hf.curation.steps.verification import VerificationStep

    return [
        *_decoded(config),
        VerificationStep(verifiers=config.verify.verifiers, verify_raw=config.verify.verify_raw),
    ]


def _embed(config: CurationConfig) -> list[Step]:
    from turingvit_hf.curation.steps.embeddings import EmbeddingStep

    if config.is_of_videos:
        from turingvit_hf.curation.steps.clip_captions import EmbedClips

        return [*_decoded(config), EmbedClips(scorer=config.embed.scorer)]
    return [*_decoded(config), EmbeddingStep(scorer=config.embed.scorer)]


def _scorer_facts(steps: list[Step]) -> dict[str, Any]:
    (scorer,) = (step.scorer for step in steps if hasattr(step, "scorer"))  # pyrefly: ignore[missing-attribute]
    return {"scorer": scorer.name, "revision": scorer.revision, "tau": scorer.tau, "is_sigmoid": scorer.is_sigmoid}


def _ground(config: CurationConfig) -> list[Step]:
    from turingvit_hf.curation.steps.grounding import GroundingStep

    return [*_decoded(config), GroundingStep(detector=config.ground.detector, tagger=config.caption.tagger)]


def _decoded(config: CurationConfig) -> list[Step]:
    """What makes the column `image`: a picture, or of a clip a tuple of frames."""
    if config.is_of_videos:
        from turingvit_hf.curation.steps.videos import ReadClips

        return [ReadClips(num_frames=config.caption.num_frames)]
    from turingvit_hf.curation.steps.decode import DecodeImages

    return [DecodeImages()]


STAGES = {
    stage.name: stage
    for stage in (
        Stage("cut", steps=_cut, explodes="chunks", kind="video"),
        Stage("measure", steps=_measure, decides=("quality",), kind="image"),
        Stage(
            "deduplicate",
            is_whole=True,
            thresholds=tuple(f"duplicates.{name}_distance" for name in ("phash", "dhash", "color")),
        ),
        Stage("motion", steps=_motion, decides=("quality", "motion"), kind="video"),
        Stage(
            "consistency",
            steps=_consistency,
            decides=("consistency",),
            kind="video",
            further=lambda config: [config.embed.scorer, _frames(config)],
        ),
        Stage(
            "caption",
            steps=_caption,
            needs_media=lambda config: bool(config.caption.captioners),
            # the others say what is chosen, once candidates are verified and scored
            thresholds=tuple(f"captions.{name}" for name in ("max_words", "min_noun_ratio", "noun_denominator")),
        ),
        Stage("verify", steps=_verify, further=_frames),
        Stage("judge", steps=_judge, decides=("judge",), kind="video", further=_frames),
        Stage(
            "embed",
            steps=_embed,
            vectors=("image_embedding", "candidate_embeddings"),
            facts=_scorer_facts,
            further=_frames,
        ),
        Stage(
            "score",
            is_whole=True,
            thresholds=("duplicates.semantic_similarity", "captions"),
            decides=("score",),
            further=lambda config: config.thresholds.score.min_alignment if config.score.semantic else None,
        ),
        Stage(
            "ground",
            steps=_ground,
            decides=("grounding",),
            kind="image",
            further=lambda config: config.caption.tagger,
        ),
    )
}
