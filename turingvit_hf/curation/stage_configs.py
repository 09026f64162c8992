# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The sections of a curation config that stages have, each with what its stage depends on."""

from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from turingvit_hf.curation.prompts import STYLES
from turingvit_hf.files.sections import STRICT, Switch


# a model: what kind it is, and the options of that kind, as `models/registry.py` has them
ModelSpec = dict[str, Any]


@dataclass(frozen=True, config=STRICT)
class CutConfig:
    """Videos cut into clips, each of which becomes a row.

    Attributes:
        adaptive_threshold: how much larger the change at a cut is than around it, as PySceneDetect counts.
        min_shot_frames: a shot is not cut before it has so many frames.
        min_seconds: a shorter shot gives no clip.
        max_seconds: a longer shot is cut into equal parts.
        batch_size: videos at a time.
    """

    adaptive_threshold: float = Field(3.0, gt=0.0)
    min_shot_frames: int = Field(8, ge=1)
    min_seconds: float = Field(1.0, gt=0.0)
    max_seconds: float = Field(10.0, gt=0.0)
    batch_size: int = Field(4, ge=1)


@dataclass(frozen=True, config=STRICT)
class MotionConfig:
    """Motion of clips, by optical flow.

    Attributes:
        rate: frames a second that are compared.
        max_frames: of a clip; a longer one is compared less often.
        batch_size: clips at a time.
    """

    enabled: Switch = True
    rate: float = Field(8.0, gt=0.0)
    max_frames: int = Field(33, ge=2)
    batch_size: int = Field(4, ge=1)


@dataclass(frozen=True, config=STRICT)
class ConsistencyConfig:
    """How alike the frames of a clip are, by the embeddings of `embed.scorer`.

    Attributes:
        batch_size: clips at a time.
    """

    enabled: Switch = True
    batch_size: int = Field(4, ge=1)


@dataclass(frozen=True, config=STRICT)
class JudgeConfig:
    """A model's marks for clips with their captions.

    Attributes:
        judge: the model, given as captioners are; none: nothing is judged.
        batch_size: clips at a time.
    """

    enabled: Switch = True
    judge: ModelSpec | None = None
    batch_size: int = Field(8, ge=1)


@dataclass(frozen=True, config=STRICT)
class MeasureConfig:
    """Reading, decoding and measuring images; it cannot be switched off, since all else stands on it.

    Attributes:
        batch_size: images in memory at a time.
        long_side: pixels that images are brought to before their sharpness is measured.
    """

    batch_size: int = Field(8, ge=1)
    long_side: int = Field(512, ge=16)


@dataclass(frozen=True, config=STRICT)
class DeduplicateConfig:
    """Duplicates, of which one is kept: the largest picture, then the sharpest. It takes over its copies' captions.

    Attributes:
        exact: by the hash of the file.
        near: by perceptual hashes; how near is `thresholds`' to say.
        against: run folders, or parquet files with the columns `sha256` and `phash`, whose pictures are to be left
            out: earlier runs, evaluation sets.
        max_copied_captions: different captions of its copies that become candidates of the row that is kept; 0: none.
    """

    enabled: Switch = True
    exact: Switch = True
    near: Switch = True
    against: tuple[str, ...] = ()
    max_copied_captions: int = Field(16, ge=0)


@dataclass(frozen=True, config=STRICT)
class CaptionConfig:
    """Candidate captions: those of the rows, and those of captioners, if there are any.

    Switched off, rows need none: what comes out are images alone. Switched on, rows that end without one are dropped.

    Attributes:
        captioners: models that write captions, such as `{kind: endpoint, model: Qwen/Qwen3-VL-8B-Instruct, base_url:
            "http://localhost:8000/v1"}`; none: the rows' own captions are the only candidates.
        styles: names out of `prompts.STYLES`, or descriptions of other styles. Clips have no styles: their frames and
            the whole are captioned, and these captions fused into one.
        fuser: the model that fuses captions of a clip; none: each captioner itself.
        num_frames: of a clip, that are shown to models.
        use_raw: whether the rows' own captions are candidates.
        tagger: of nouns: `{kind: lexicon}` needs no download, `{kind: spacy, model: en_core_web_sm}` is better.
        batch_size: images whose captions are asked for at a time.
    """

    enabled: Switch = True
    captioners: tuple[ModelSpec, ...] = ()
    styles: tuple[str, ...] = tuple(STYLES)
    fuser: ModelSpec | None = None
    num_frames: int = Field(8, ge=1)
    use_raw: Switch = True
    tagger: ModelSpec = Field(default_factory=lambda: {"kind": "lexicon"})
    batch_size: int = Field(16, ge=1)


@dataclass(frozen=True, config=STRICT)
class VerifyConfig:
    """Verification of candidates by further models, which should not be those that wrote them.

    Attributes:
        verifiers: models that judge, given as captioners are; none: nothing is verified.
        verify_raw: whether the rows' own captions are judged too.
        batch_size: images whose candidates are judged at a time.
    """

    enabled: Switch = True
    verifiers: tuple[ModelSpec, ...] = ()
    verify_raw: Switch = True
    batch_size: int = Field(16, ge=1)


@dataclass(frozen=True, config=STRICT)
class EmbedConfig:
    """Embeddings of images and candidates by a frozen CLIP-like model of transformers, or a dual encoder of ours.

    Attributes:
        scorer: the model.
        batch_size: images at a time.
    """

    enabled: Switch = True
    scorer: ModelSpec = Field(
        default_factory=lambda: {"kind": "transformers", "model": "openai/clip-vit-large-patch14"}
    )
    batch_size: int = Field(32, ge=1)


@dataclass(frozen=True, config=STRICT)
class ScoreConfig:
    """Scores of candidates, over the whole table.

    Attributes:
        tau: temperature of the ambiguity; None: the scorer's own logit scale.
        batch_size: images of a batch that captions are contrasted with.
        num_batchings: how often the table is cut into batches, over which the ambiguity is averaged.
        pool: whether captions are contrasted with all candidates, with those of the same style, or with one of each
            image.
        text_quality: `"affine"`: fixed ends of the entropy; `"minmax"`: percentiles of this run.
        scale: factor on alignment and ambiguity, 1 or CLIPScore's 2.5.
        text_weight, relevance_weight: of the overall score.
        semantic: whether pictures with nearly the same embedding are duplicates, as soon as
            `thresholds.duplicates.semantic_similarity` says how near that is.
    """

    enabled: Switch = True
    tau: float | None = Field(None, gt=0.0)
    batch_size: int = Field(32_768, ge=2)
    num_batchings: int = Field(10, ge=1)
    pool: Literal["all_candidates", "per_style", "one_per_image"] = "all_candidates"
    text_quality: Literal["affine", "minmax"] = "affine"
    scale: float = Field(1.0, gt=0.0)
    text_weight: float = Field(0.5, ge=0.0)
    relevance_weight: float = Field(0.5, ge=0.0)
    semantic: Switch = True


@dataclass(frozen=True, config=STRICT)
class GroundConfig:
    """Boxes of the best caption's noun phrases, by a zero-shot detector of transformers.

    Attributes:
        detector: the model.
        batch_size: images at a time.
    """

    enabled: Switch = False
    detector: ModelSpec = Field(
        default_factory=lambda: {"kind": "transformers", "model": "google/owlv2-base-patch16-ensemble"}
    )
    batch_size: int = Field(8, ge=1)
