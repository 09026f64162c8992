# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Embeddings of a run's images and captions as files that are mapped into memory, for work over the whole table."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np


class EmbeddingPart(NamedTuple):
    """Embeddings of some images, and of their captions in the order of the images.

    Attributes:
        keys: (n,) sample ids.
        images: (n, E).
        captions: (m, E).
        owners: (m,) which of the n images a caption belongs to, ascending.
        styles: (m,) what the captions' styles are called.
    """

    keys: list[str]
    images: np.ndarray
    captions: np.ndarray
    owners: np.ndarray
    styles: list[str]


@dataclass(frozen=True)
class EmbeddingTable:
    """Embeddings of N images and M captions.

    Attributes:
        keys: (N,) sample ids, each once.
        images: (N, E) float16 or float32, of length 1; possibly a file mapped into memory.
        captions: (M, E), likewise.
        owners: (M,) int64, number of each caption's image, ascending.
        styles: (M,) numbers or texts that tell captions' styles apart.
    """

    keys: np.ndarray
    images: np.ndarray
    captions: np.ndarray
    owners: np.ndarray
    styles: np.ndarray

    def __post_init__(self) -> None:
        if len(self.images) != len(self.keys) or not len(self.captions) == len(self.owners) == len(self.styles):
            raise ValueError(
                f"{len(self.keys)} keys for {len(self.images)} images; {len(self.owners)} owners and "
                f"{len(self.styles)} styles for {len(self.captions)} captions"
            )
        if len(self.owners) and (self.owners[0] < 0 or self.owners[-1] >= len(self.keys)):
            raise ValueError(f"owners must be in 0 to {len(self.keys) - 1}, got up to {self.owners[-1]}")
        if np.any(self.owners[1:] < self.owners[:-1]):
            raise ValueError("owners must ascend: captions stand in the order of their images")


def write_table(folder: Path, parts: Iterable[EmbeddingPart]) -> EmbeddingTable:
    """Write parts one after another into a folder, in float16, and return the table that maps the files.

    Raises:
        ValueError: parts differ in the width of their vectors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys: list[str] = []
    style_numbers: dict[str, int] = {}
    owners, styles, width = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], None
    with (folder / "images.f16").open("wb") as images, (folder / "captions.f16").open("wb") as captions:
        for part in parts:
            for vectors, file in ((part.images, images), (part.captions, captions)):
                if len(vectors):
                    width = _append(vectors, file, width)
            owners.append(np.asarray(part.owners, np.int64) + len(keys))
            styles.append(
                np.array([style_numbers.setdefault(style, len(style_numbers)) for style in part.styles], np.int32)
            )
            keys.extend(part.keys)
    np.save(folder / "owners.npy", np.concatenate(owners))
    np.save(folder / "styles.npy", np.concatenate(styles))
    index = {"keys": keys, "styles": list(style_numbers), "width": width or 0}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return open_table(folder)


def open_table(folder: Path) -> EmbeddingTable:
    """Return the table that `write_table` left in a folder; vectors stay on disk until they are used."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    keys, owners = np.array(index["keys"], dtype=np.str_), np.load(folder / "owners.npy")
    return EmbeddingTable(
        keys=keys,
        images=_mapped(folder / "images.f16", len(keys), index["width"]),
        captions=_mapped(folder / "captions.f16", len(owners), index["width"]),
        owners=owners,
        styles=np.load(folder / "styles.npy"),
    )


def _append(vectors: np.ndarray, file: BinaryIO, width: int | None) -> int:
    if width is not None and vectors.shape[1] != width:
        raise ValueError(f"embeddings of {vectors.shape[1]} numbers after such of {width}: not of one model")
    file.write(np.ascontiguousarray(vectors, np.float16).tobytes())
    return vectors.shape[1]


def _mapped(path: Path, rows: int, width: int) -> np.ndarray:
    # an empty file cannot be mapped
    return (
        np.memmap(path, np.float16, "r", shape=(rows, width)) if rows * width else np.zeros((rows, width), np.float16)
    )
