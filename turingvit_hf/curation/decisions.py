# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What rows are dropped by: thresholds for every stage, and a pure function that applies them to measured values.

Stages measure and store; nothing is dropped while it is measured. So thresholds can be changed afterwards, and a
finished run be decided anew in seconds. A threshold that is None is not applied. A value that is missing or None was
not measured, since its stage has not run or is switched off, and is not held against its row.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from turingvit_hf.files.sections import STRICT


@dataclass(frozen=True, config=STRICT)
class Drop:
    """Why a row is left out.

    Attributes:
        stage: whose values decided.
        reason: what such rows are counted by.
        value: what was measured; a text where the fault is none of numbers.
        threshold: what it was held against; None where there is no number.
    """

    stage: str
    reason: str
    value: float | int | str | None = None
    threshold: float | int | None = None


@dataclass(frozen=True, config=STRICT)
class QualityThresholds:
    """Pictures that are not worth a caption. The defaults hold for photographs and for flat drawings on white.

    The first two are DataComp's basic filter. Those of sharpness and texture were chosen on scikit-image's pictures,
    Open Clip Art and Tux Paint's stamps, each sharp and blurred: see `benchmarks/README.md`.

    Attributes:
        min_side: pixels of the shorter side.
        max_aspect: longer over shorter side.
        max_edge_width: of the sharpest edges, as the sigma in pixels at a long side of 512 of the blur that they have.
            Severely blurred pictures have 3 and more, 99 of 100 sharp ones less than 2.1, whatever their contrast is
            and however much of them is flat.
        min_smooth_laplacian: variance of the smoothed Laplacian. 3 separates sharp photographs from blurred ones as
            long as all of them are full of detail; sharp drawings on white and night skies reach only 1.
        min_gray_entropy: bits. 2 suits photographs; half of all clip art is below.
        min_edge_share: share of pixels on an edge, below which a picture counts as smooth, and is dropped where one
            of the next two says so as well.
        smooth_gray_entropy: a smooth picture with fewer bits is flat.
        smooth_laplacian: a smooth picture with a smaller smoothed Laplacian is a mere gradient.
    """

    min_side: int | None = Field(200, ge=1)
    max_aspect: float | None = Field(3.0, ge=1.0)
    max_edge_width: float | None = Field(2.2, gt=0.0)
    min_smooth_laplacian: float | None = Field(None, ge=0.0)
    min_gray_entropy: float | None = Field(None, ge=0.0, le=8.0)
    min_edge_share: float | None = Field(0.001, ge=0.0, le=1.0)
    smooth_gray_entropy: float = Field(4.0, ge=0.0, le=8.0)
    smooth_laplacian: float = Field(0.1, ge=0.0)


@dataclass(frozen=True, config=STRICT)
class DuplicateThresholds:
    """How alike pictures are that count as one.

    Attributes:
        phash_distance: bits of 64 in which two pHashes may differ.
        dhash_distance: bits of 64 in which the two dHashes may differ as well.
        color_distance: largest difference of a color, of 255, in any of 4 x 4 fields. Both hashes see gray alone, and
            without this a green button would be a copy of a red one.
        semantic_similarity: cosine of two image embeddings from which pictures are semantic duplicates (1 - epsilon
            of SemDeDup). None: there are none. The same cosine means another thing to each scorer, so that no number
            is right for all: `tune` shows what one would drop.
    """

    phash_distance: int = Field(10, ge=0, le=31)
    dhash_distance: int = Field(8, ge=0, le=31)
    color_distance: int = Field(12, ge=0, le=255)
    semantic_similarity: float | None = Field(None, gt=0.0, le=1.0)


@dataclass(frozen=True, config=STRICT)
class CaptionThresholds:
    """Candidates that may be chosen.

    Attributes:
        max_words: a model's caption with more is no candidate. The rows' own captions are spared: their length is
            no fault of a prompt.
        min_noun_ratio: a caption with fewer nouns is tried once more and then flagged, not left out: VISTA's own
            winner in its figure would fail its 0.3.
        noun_denominator: share of `"all"` words, or of `"content"` words (nouns, verbs, adjectives and adverbs).
        require_grounded: whether a caption is no candidate once a verifier has found it not grounded in the image.
        min_verdict: the least quality, 1 to 5, in a verifier's verdict; None: any.
    """

    max_words: int | None = Field(20, ge=1)
    min_noun_ratio: float | None = Field(0.25, ge=0.0, le=1.0)
    noun_denominator: Literal["all", "content"] = "all"
    require_grounded: bool = True
    min_verdict: int | None = Field(3, ge=1, le=5)


@dataclass(frozen=True, config=STRICT)
class ScoreThresholds:
    """What a row's best candidate must reach. All of it is None: what is a good score depends on the scorer.

    Attributes:
        min_overall: the least overall score.
        top_fraction: this share of the scored rows is kept, those with the best overall score.
        min_alignment: the least cosine of image and caption.
    """

    min_overall: float | None = None
    top_fraction: float | None = Field(None, gt=0.0, le=1.0)
    min_alignment: float | None = None


@dataclass(frozen=True, config=STRICT)
class GroundingThresholds:
    """What share of the phrases must have been found in the image; None: any."""

    min_recall: float | None = Field(None, ge=0.0, le=1.0)


@dataclass(frozen=True, config=STRICT)
class MotionThresholds:
    """How clips may move, in diagonals of the frame a second.

    Attributes:
        floor: a clip that moves less is a still. Noise of a sensor reaches 0.0002 a pair, at 2 pairs a second 0.0004.
        ceiling: a clip that moves faster is torn about.
        variation: standard deviation over mean of the pairs' speeds; above it a cut is hidden in the clip.
    """

    floor: float | None = Field(0.001, ge=0.0)
    ceiling: float | None = Field(1.0, gt=0.0)
    variation: float | None = Field(2.0, gt=0.0)


@dataclass(frozen=True, config=STRICT)
class ConsistencyThresholds:
    """How alike the frames of a clip are, as cosines of their embeddings; the numbers suit CLIP, not every model.

    Attributes:
        low: two adjacent frames that are less alike lie on both sides of a cut.
        high: a clip whose adjacent frames are more alike on average is a still.
    """

    low: float | None = Field(0.6, ge=-1.0, le=1.0)
    high: float | None = Field(0.9995, ge=-1.0, le=1.0)


@dataclass(frozen=True, config=STRICT)
class JudgeThresholds:
    """The least of a judge's marks for clip and caption, each 0 to 1, and of their mean; None: any."""

    quality: float | None = Field(0.5, ge=0.0, le=1.0)
    relevance: float | None = Field(0.5, ge=0.0, le=1.0)
    consistency: float | None = Field(0.5, ge=0.0, le=1.0)
    mean: float | None = Field(0.6, ge=0.0, le=1.0)


@dataclass(frozen=True, config=STRICT)
class Thresholds:
    """What rows are dropped by, a section a stage."""

    quality: QualityThresholds = Field(default_factory=QualityThresholds)
    duplicates: DuplicateThresholds = Field(default_factory=DuplicateThresholds)
    captions: CaptionThresholds = Field(default_factory=CaptionThresholds)
    score: ScoreThresholds = Field(default_factory=ScoreThresholds)
    grounding: GroundingThresholds = Field(default_factory=GroundingThresholds)
    motion: MotionThresholds = Field(default_factory=MotionThresholds)
    consistency: ConsistencyThresholds = Field(default_factory=ConsistencyThresholds)
    judge: JudgeThresholds = Field(default_factory=JudgeThresholds)

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "Thresholds":
        for name, low, high in (
            ("motion.floor, motion.ceiling", self.motion.floor, self.motion.ceiling),
            ("consistency.low, consistency.high", self.consistency.low, self.consistency.high),
        ):
            if low is not None and high is not None and low >= high:
                raise ValueError(f"{name}: nothing lies between {low} and {high}")
        return self


class Rule(NamedTuple):
    """One comparison: a stored value of a stage against one threshold of a section.

    Attributes:
        least: True: the value must be at least the threshold; False: at most.
    """

    stage: str
    value: str
    section: str
    threshold: str
    least: bool
    reason: str


# in the order of the stages: the first that a row fails is its reason
RULES = (
    Rule("measure", "min_side", "quality", "min_side", True, "resolution is too low"),
    Rule("measure", "aspect", "quality", "max_aspect", False, "aspect ratio is abnormal"),
    Rule("measure", "smooth_laplacian", "quality", "min_smooth_laplacian", True, "image is blurred"),
    Rule("measure", "gray_entropy", "quality", "min_gray_entropy", True, "texture is too low"),
    Rule("measure", "edge_width", "quality", "max_edge_width", False, "image is blurred"),
    Rule("motion", "motion", "motion", "floor", True, "clip hardly moves"),
    Rule("motion", "motion", "motion", "ceiling", False, "clip moves too fast"),
    Rule("motion", "motion_variation", "motion", "variation", False, "motion is uneven"),
    Rule("consistency", "adjacent_min", "consistency", "low", True, "frames are inconsistent"),
    Rule("consistency", "adjacent_mean", "consistency", "high", False, "frames are all alike"),
    Rule("judge", "judge_quality", "judge", "quality", True, "judged of low quality"),
    Rule("judge", "judge_relevance", "judge", "relevance", True, "judged irrelevant"),
    Rule("judge", "judge_consistency", "judge", "consistency", True, "judged inconsistent"),
    Rule("judge", "judge_mean", "judge", "mean", True, "judged too low on average"),
    Rule("score", "alignment", "score", "min_alignment", True, "alignment is too low"),
    Rule("score", "overall", "score", "min_overall", True, "overall score is too low"),
    Rule("score", "better_share", "score", "top_fraction", False, "not in the top fraction"),
    Rule("ground", "grounding_recall", "grounding", "min_recall", True, "phrases are not found in the image"),
)


def decide(values: Mapping[str, Any], thresholds: Thresholds) -> Drop | None:
    """Return why a row is dropped, by the first stage that it fails, or None if it is kept.

    Args:
        values: all stored values of a row so far. Numbers are read under the names in `RULES`; further `fault` and
            `fault_detail` (its media is broken for good), `opt_out`, `dup_of` with `dup_kind` and `dup_distance`,
            `candidates`, and `best`, the index of the best one, None if none may be chosen. `error` or `errors`: a
            row that waits for another try is not dropped for want of a caption.
        thresholds: what they are held against.
    """
    if values.get("fault"):
        return Drop("measure", values["fault"], values.get("fault_detail"))
    if values.get("opt_out"):
        return Drop("measure", "owner opted out")
    return (
        _smooth(values, thresholds)
        or _first_failed(values, thresholds, "measure")
        or _duplicate(values, thresholds)
        or _first_failed(values, thresholds, "motion", "consistency", "judge")
        or _without_candidate(values)
        or _first_failed(values, thresholds, "score", "ground")
    )


def threshold_names() -> tuple[str, ...]:
    """Return all thresholds, as `section.name`."""
    sections = ((section.name, getattr(Thresholds(), section.name)) for section in fields(Thresholds))
    return tuple(f"{name}.{field.name}" for name, section in sections for field in fields(section))


def _first_failed(values: Mapping[str, Any], thresholds: Thresholds, *stages: str) -> Drop | None:
    for rule in RULES:
        value, threshold = values.get(rule.value), getattr(getattr(thresholds, rule.section), rule.threshold)
        if rule.stage not in stages or value is None or threshold is None:
            continue
        # a score that is no number passes no threshold
        if not (value >= threshold if rule.least else value <= threshold):
            return Drop(rule.stage, rule.reason, value, threshold)
    return None


def _smooth(values: Mapping[str, Any], thresholds: Thresholds) -> Drop | None:
    """Flat pictures and gradients. Entropy alone finds no gradient, and edges alone drop a soft sky."""
    quality, share = thresholds.quality, values.get("edge_share")
    if share is None or quality.min_edge_share is None or share >= quality.min_edge_share:
        return None
    if values["gray_entropy"] < quality.smooth_gray_entropy:
        return Drop("measure", "texture is too low", values["gray_entropy"], quality.smooth_gray_entropy)
    if values["smooth_laplacian"] < quality.smooth_laplacian:
        return Drop("measure", "texture is too low", values["smooth_laplacian"], quality.smooth_laplacian)
    return None


# by kind of duplicate: whose values decided, what such rows are counted by, and the section's threshold
DUPLICATES = {
    "exact": ("deduplicate", "exact duplicate", None),
    "near": ("deduplicate", "near duplicate", "phash_distance"),
    "known": ("deduplicate", "in an earlier run or an evaluation set", "phash_distance"),
    "semantic": ("score", "semantic duplicate", "semantic_similarity"),
}


def _duplicate(values: Mapping[str, Any], thresholds: Thresholds) -> Drop | None:
    if not values.get("dup_of"):
        return None
    stage, reason, threshold = DUPLICATES[values["dup_kind"]]
    limit = getattr(thresholds.duplicates, threshold) if threshold else None
    return Drop(stage, reason, values.get("dup_distance"), limit)


def _without_candidate(values: Mapping[str, Any]) -> Drop | None:
    """Rows without a caption are no pairs; where none are wanted there is no stage that makes candidates."""
    if "candidates" not in values or values.get("error") or values.get("errors"):
        return None
    candidates = values["candidates"] or ()
    if not candidates:
        return Drop("caption", "no caption")
    if values.get("best", 0) is not None:
        return None
    is_scored = any(candidate.get("overall") is not None for candidate in candidates)
    is_verified = any(candidate.get("verdict") is not None for candidate in candidates)
    stage = "score" if is_scored else "verify" if is_verified else "caption"
    return Drop(stage, "no candidate caption is left", f"of {len(candidates)} candidates")
