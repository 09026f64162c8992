# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What is said of a source of rows, typed; sections of recipes and of curation's configs hold it."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from turingvit_hf.files.sections import STRICT, Switch


@dataclass(frozen=True, config=STRICT)
class SourceRecipe:
    """One source of rows: where it is, what its columns mean, and how often it is drawn.

    Attributes:
        path: hub id, folder, file, glob of files, `hf://` or `s3://` address, or `"shapes"` (rendered on the fly).
        kind: `"image"` or `"video"`.
        format: `"auto"` tells by the path; else `"hub"`, `"folder"`, `"parquet"`, `"webdataset"`, `"jsonl"` or
            `"shapes"`.
        split: of a hub dataset.
        streaming: read front to back without an index; None: for webdataset and hub sources.
        weight: how often the source is drawn, relative to the others of its kind.
        media_column: column of the image or video; None looks for the usual names.
        caption_columns: columns of captions and the probability of each; empty looks for the usual names. A column
            may hold a list of captions, of which one is drawn.
        first_sentence: probability that only a caption's first sentence is taken.
        max_samples: read no more rows than these, from the front; None: all.
    """

    path: str
    kind: Literal["image", "video"] = "image"
    format: Literal["auto", "hub", "folder", "parquet", "webdataset", "jsonl", "shapes"] = "auto"
    split: str = "train"
    streaming: Switch | None = None
    weight: float = Field(1.0, gt=0.0)
    media_column: str | None = None
    caption_columns: dict[str, float] = Field(default_factory=dict)
    first_sentence: float = Field(0.0, ge=0.0, le=1.0)
    max_samples: int | None = Field(None, ge=1)
