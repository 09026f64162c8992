# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Features of whole data sets, kept in shards, with what belongs to each image."""

import glob
import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from turingvit_hf.errors import BadRowError, InputError
from turingvit_hf.evaluation.classes import Classes
from turingvit_hf.evaluation.datasets import EvaluationData
from turingvit_hf.evaluation.encoders import Encoder
from turingvit_hf.evaluation.processes import Processes
from turingvit_hf.evaluation.shards import Shard, make_shards, name_of, read_shard
from turingvit_hf.evaluation.tokens import TOKEN_DTYPES, TokenFiles


# of one file of features; batches never reach over it, so that neither resuming nor more processes change a figure
IMAGES_PER_SHARD = 256
TEXTS_PER_SHARD = 2048
# what an evaluation writes into its folder
OUTPUTS = ("features", "results", "table.md")
# images are decoded while the model works, so many at a time
DECODERS = 4
DECODED_AT_ONCE = 64


class ImageFeatures(NamedTuple):
    """What became of the images of a data set.

    Attributes:
        features: (N, D) float32 of those that could be read; in processes other than the first one none, (0, 0).
        texts: of each the class, a number, or its captions, a list.
        left_out: how many could not be used, by reason.
    """

    features: Tensor
    texts: list[Any]
    left_out: dict[str, int]

    @property
    def num_images(self) -> int:
        """How many could be used."""
        return len(self.texts)

    @property
    def labels(self) -> Tensor:
        """The classes (N,) int64."""
        return torch.tensor(self.texts, dtype=torch.int64)


class FeatureStore:
    """Features of one model, each computed once and kept in a folder.

    Args:
        encoder: the model.
        identity: everything that its features depend on, as JSON has it.
        folder: where they are kept.
        processes: which of how many this is.
    """

    def __init__(self, encoder: Encoder, identity: Mapping[str, Any], folder: Path, processes: Processes):
        self._encoder = encoder
        self._identity = dict(identity)
        self._folder = folder
        self._processes = processes

    @property
    def is_main(self) -> bool:
        """Whether this is the process that makes figures of the features."""
        return self._processes.is_main

    @property
    def folder(self) -> Path:
        """Where the features are kept."""
        return self._folder

    def images(self, data: EvaluationData, kind: str, classes: Classes | None = None) -> ImageFeatures:
        """The features of all images, with their classes, or with captions where no classes are given. Collective.

        All processes learn the classes or captions; the features are read by the first one.

        Raises:
            InputError: none of the images can be used, or features are not finite or cannot be kept.
        """

        def encode(pictures: list[np.ndarray]) -> dict[str, Tensor]:
            return {"features": self._finite(self._encoder.image_features(pictures, kind))}

        paths = self._shards_of_images(data, classes, self._spec_of_images(data, kind, classes), encode)
        shards = [read_shard(path, with_tensors=self.is_main) for path in paths]
        texts, left_out = _texts_of(shards, data)
        features = [shard.tensors["features"] for shard in shards if shard.tensors]
        return ImageFeatures(torch.cat(features) if features else torch.empty(0, 0), texts, left_out)

    def tokens(self, data: EvaluationData, classes: Classes, dtype: str) -> TokenFiles:
        """The patch tokens of all images, with their classes, left in their files. Collective.

        Args:
            data: the images.
            classes: which there are.
            dtype: in which tokens are kept, one of TOKEN_DTYPES.

        Raises:
            InputError: none of the images can be used, a token is too large for the dtype, or the disk would not hold
                the files.
        """

        def encode(pictures: list[np.ndarray]) -> dict[str, Tensor]:
            images = self._encoder.patch_tokens(pictures)
            kept = torch.cat(images).to(TOKEN_DTYPES[dtype])
            if not bool(torch.isfinite(kept).all()):
                raise InputError(f"tokens are too large for {dtype}, or not finite: take --token-dtype bfloat16")
            return {"tokens": kept, "lengths": torch.tensor([len(image) for image in images])}

        spec = self._spec_of_images(data, f"tokens in {dtype}", classes)
        paths = self._shards_of_images(data, classes, spec, encode)
        shards = [read_shard(path, with_tensors=False) for path in paths]
        labels, left_out = _texts_of(shards, data)
        used = [path for path, shard in zip(paths, shards, strict=True) if shard.notes["texts"]]
        return TokenFiles(used, torch.tensor(labels, dtype=torch.int64), left_out, name_of(spec))

    def texts(self, texts: Sequence[str]) -> Tensor:
        """The features (M, E) of texts, at least one; in processes other than the first one none. Collective."""

        def make(number: int) -> Shard:
            start = number * TEXTS_PER_SHARD
            found = self._encoder.text_features(texts[start : start + TEXTS_PER_SHARD])
            return Shard({"features": self._finite(found)}, {})

        digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
        spec = self._identity | {"texts": digest, "texts_per_shard": TEXTS_PER_SHARD}
        num_shards = -(-len(texts) // TEXTS_PER_SHARD)
        paths = make_shards(self._folder, num_shards, make, spec=spec, processes=self._processes)
        if not self.is_main:
            return torch.empty(0, 0)
        return torch.cat([read_shard(path).tensors["features"] for path in paths])

    def _finite(self, features: Tensor) -> Tensor:
        """The features, if they are numbers, which those of a model in float16 need not be."""
        if not bool(torch.isfinite(features).all()):
            raise InputError(f"features are not finite in {self._identity.get('dtype')}: take another dtype")
        return features

    def _spec_of_images(self, data: EvaluationData, kind: str, classes: Classes | None) -> dict[str, Any]:
        about = identity_of_data(data, but=self._folder.parent)
        spec = self._identity | {"kind": kind, "images_per_shard": IMAGES_PER_SHARD, "data": about}
        return spec | {"classes": None if classes is None else [classes.keys, classes.names]}

    def _shards_of_images(
        self,
        data: EvaluationData,
        classes: Classes | None,
        spec: Mapping[str, Any],
        encode: Callable[[list[np.ndarray]], dict[str, Tensor]],
    ) -> list[Path]:
        """The files with what `encode` makes of images, and in their notes the texts and what was left out."""

        numbers = None if classes is None else data.numbers_of_own_classes(classes)

        def make(number: int) -> Shard:
            start = number * IMAGES_PER_SHARD
            pictures, texts, left_out = [], [], Counter()
            parts: list[dict[str, Tensor]] = []
            for found in _decoded(data, range(start, min(start + IMAGES_PER_SHARD, len(data))), classes, numbers):
                if isinstance(found, BadRowError):
                    left_out[found.reason] += 1
                    continue
                pictures.append(found[0])
                texts.append(found[1])
                if len(pictures) == DECODED_AT_ONCE:
                    parts.append(encode(pictures))
                    pictures = []
            if pictures:
                parts.append(encode(pictures))
            tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}
            return Shard(tensors, {"texts": texts, "left_out": dict(left_out)})

        num_shards = -(-len(data) // IMAGES_PER_SHARD)
        return make_shards(self._folder, num_shards, make, spec=spec, processes=self._processes)


def _texts_of(shards: Sequence[Shard], data: EvaluationData) -> tuple[list[Any], dict[str, int]]:
    """The classes or captions of all images, and how many were left out, by reason.

    Raises:
        InputError: none is left.
    """
    texts = [text for shard in shards for text in shard.notes["texts"]]
    left_out = dict(sum((Counter(shard.notes["left_out"]) for shard in shards), Counter()))
    if not texts:
        raise InputError(f"none of the {len(data)} images of {data.source.recipe.path!r} can be used: {left_out}")
    return texts, left_out


def identity_of_data(data: EvaluationData, *, but: Path) -> dict[str, Any]:
    """What tells data from others: where they are and how they are read, and of a local file or folder its age.

    Args:
        data: the images.
        but: see `identity_of_files`.
    """
    recipe = data.source.recipe
    return {
        "path": recipe.path,
        "split": recipe.split,
        "media_columns": data.source.media_columns,
        "text_column": data.text_column,
        "root": str(data.source.root),
        "num_rows": len(data),
        "crop_border": data.crop_border,
        "class_names": data.source.class_names.get(data.text_column),
        "files": identity_of_files(recipe.path, but=but),
    }


def identity_of_files(path: str, *, but: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a local file, or of the files that lie in a folder or match; nothing of others.

    Args:
        path: of the file or folder, or a pattern of files.
        but: the output, which may lie in the folder or be it, and which every run changes.
    """
    place, out = Path(path).expanduser(), but.resolve()
    # a pattern, or an id on the hub, which nothing matches
    found = sorted(place.iterdir()) if place.is_dir() else map(Path, sorted(glob.glob(str(place), recursive=True)))
    files = [place] if place.is_file() else found
    written = {out, *out.parents, *(out / name for name in OUTPUTS)}
    others = [file for file in files if file.resolve() not in written]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in others]


def _decoded(
    data: EvaluationData, indices: range, classes: Classes | None, numbers: Sequence[int | None] | None
) -> Iterator[tuple[np.ndarray, Any] | BadRowError]:
    """Each image with its class or captions, or why it cannot be used, in order; decoded some images ahead."""

    def read(index: int) -> tuple[np.ndarray, Any] | BadRowError:
        try:
            row = data.rows[index]
            text = data.captions(row) if classes is None else classes.index_of(row.get(data.text_column), numbers)
            return data.image(row), text
        except BadRowError as error:
            return error

    with ThreadPoolExecutor(DECODERS) as pool:
        waiting: deque[Future[tuple[np.ndarray, Any] | BadRowError]] = deque()
        for index in indices:
            waiting.append(pool.submit(read, index))
            if len(waiting) > 2 * DECODERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
