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
from turingvit_hf.curation.stage_configs import (
    CaptionConfig,
    ConsistencyConfig,
    CutConfig,
    DeduplicateConfig,
    EmbedConfig,
    GroundConfig,
    JudgeConfig,
    MeasureConfig,
    MotionConfig,
    ScoreConfig,
    VerifyConfig,
)
from turingvit_hf.files.sections import STRICT, Switch


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
