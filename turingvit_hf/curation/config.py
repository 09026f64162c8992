# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a curation run is told, typed: one frozen dataclass a section, checked by pydantic, unknown keys refused.

A config is a value. It is read from YAML by `config_files.py`. The section `thresholds` holds what rows are dropped
by, and nothing else does: a run whose thresholds change measures nothing anew.
"""

import dataclasses
import hashlib
import json
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from turingvit_hf.curation.decisions import Thresholds
from turingvit_hf.curation.prompts import STYLES
from turingvit_hf.files.sections import STRICT, Switch


# a model: what kind it is, and the options of that kind, as `models/registry.py` has them
ModelSpec = dict[str, Any]


@dataclass(frozen=True, config=STRICT)
class SourceConfig:
    """One source of rows.

    Attributes:
        path: folder, file, glob of files, hub id, `hf://` or `s3://` address, or `"shapes"` (rendered on the fly).
        name: of the source in sample ids; empty: the last part of its path. Two sources must not share one.
        kind: `"image"` or `"video"`; all sources of a run have the same.
        format: `"auto"` tells by the path; else `"hub"`, `"folder"`, `"parquet"`, `"webdataset"`, `"jsonl"` or
            `"shapes"`.
        split: of a hub dataset.
        media_column: column of the image or video; None looks for the usual names.
        caption_columns: columns of raw captions, each of which is a candidate; empty looks for the usual names, and
            there may be none.
        license_column: column of the license; None looks for `license`.
        opt_out_column: column that says that the owner does not want the row used; None looks for `opt_out`.
        key_column: column whose value names the row; None: the file's path or the key in the tar, else its number.
        allow_outside: whether paths in rows may leave the folder of their source.
        max_samples: read no more rows than these, from the front; None: all.
    """

    path: str
    name: str = ""
    kind: Literal["image", "video"] = "image"
    format: Literal["auto", "hub", "folder", "parquet", "webdataset", "jsonl", "shapes"] = "auto"
    split: str = "train"
    media_column: str | None = None
    caption_columns: tuple[str, ...] = ()
    license_column: str | None = None
    opt_out_column: str | None = None
    key_column: str | None = None
    allow_outside: Switch = False
    max_samples: int | None = Field(None, ge=1)


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


@dataclass(frozen=True, config=STRICT)
class CurationConfig:
    """Everything that decides the result of a run. Engines, workers and folders decide nothing and stand elsewhere.

    Attributes:
        sources: where rows come from.
        seed: of whatever is drawn.
        shard_size: rows a shard, the unit of work; tars and shards of streams stay whole.
        thresholds: what rows are dropped by.
        limit: rows that are read at all, from the front; None: all.
        sample: share of the rows that are read, drawn by their ids.
        max_attempts: how often a row that ended as an error is tried, `retry` included.
        max_error_rate: the run ends with exit code 3 where more than this share of the rows are errors.
    """

    sources: tuple[SourceConfig, ...] = ()
    seed: int = 0
    shard_size: int = Field(1000, ge=1, le=10_000)
    limit: int | None = Field(None, ge=1)
    sample: float = Field(1.0, gt=0.0, le=1.0)
    cut: CutConfig = Field(default_factory=CutConfig)
    measure: MeasureConfig = Field(default_factory=MeasureConfig)
    deduplicate: DeduplicateConfig = Field(default_factory=DeduplicateConfig)
    motion: MotionConfig = Field(default_factory=MotionConfig)
    consistency: ConsistencyConfig = Field(default_factory=ConsistencyConfig)
    caption: CaptionConfig = Field(default_factory=CaptionConfig)
    verify: VerifyConfig = Field(default_factory=VerifyConfig)
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    embed: EmbedConfig = Field(default_factory=EmbedConfig)
    score: ScoreConfig = Field(default_factory=ScoreConfig)
    ground: GroundConfig = Field(default_factory=GroundConfig)
    thresholds: Thresholds = Field(default_factory=Thresholds)
    max_attempts: int = Field(3, ge=1)
    max_error_rate: float = Field(0.05, ge=0.0, le=1.0)

    @property
    def is_of_videos(self) -> bool:
        """Whether the sources are videos, so that rows are clips."""
        return bool(self.sources) and self.sources[0].kind == "video"

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "CurationConfig":
        kinds = {source.kind for source in self.sources}
        if len(kinds) > 1:
            raise ValueError("sources: images and videos are curated in runs of their own")
        if self.cut.min_seconds > self.cut.max_seconds:
            raise ValueError(f"cut.min_seconds={self.cut.min_seconds} is above cut.max_seconds={self.cut.max_seconds}")
        if self.is_of_videos and self.ground.enabled:
            raise ValueError("ground.enabled is for images: clips have no one picture in which phrases are found")
        if self.score.enabled and not self.caption.enabled:
            raise ValueError("score.enabled needs caption.enabled: scores are of captions; switch off both for images")
        if self.score.enabled and not self.embed.enabled:
            raise ValueError("score.enabled needs embed.enabled: scores are made of embeddings")
        return self

    def to_dict(self) -> dict[str, Any]:
        """The config as plain values, as it is written into the run folder."""
        return dataclasses.asdict(self)

    def hash(self) -> str:
        """What tells configs apart: 16 hex digits of sha256 over all values."""
        return hash_of(self.to_dict())


def hash_of(values: Any) -> str:
    """Return 16 hex digits of sha256 over plain values; the order of keys does not matter."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
