# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Image-caption pairs from several sources as one `datasets.Dataset`, and a held-out split that nothing leaks into."""

import hashlib
import io
import itertools
import logging
import math
import random
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from turingvit_hf.data.columns import CAPTION_COLUMNS, IMAGE_COLUMNS
from turingvit_hf.data.shapes import generate_shapes
from turingvit_hf.errors import InputError
from turingvit_hf.processing.pixels import to_pixels
from turingvit_hf.training.data.stamps import fetch_stamps, iterate_stamps


FEATURES = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})

# what Pillow raises for files that are no pictures, are cut off, or claim absurd sizes
UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, struct.error, Image.DecompressionBombError)

logger = logging.getLogger(__name__)


def load_pairs(source: str, *, num_examples: int, max_pixels: int, seed: int) -> datasets.Dataset:
    """Pairs as a dataset in memory with the columns `image` (RGB, PNG bytes) and `caption`.

    Pictures that cannot be read and captions that are empty are left out, counted by reason and logged.

    Args:
        source: `"shapes"` (rendered here), `"stamps"` (from a Debian package), a folder of pictures with a
            `metadata.jsonl` or `metadata.csv`, a folder with one sub-folder a class, a parquet file or a folder of
            them, or the id of a dataset on the Hugging Face hub (its split `train`).
        num_examples: read at most so many pairs.
        max_pixels: larger pictures are shrunk to this area, aspect kept, so that they are decoded at full size only
            once.
        seed: for what is rendered or drawn.

    Raises:
        InputError: the source does not exist, lacks an image or caption column, or has fewer than 8 usable pairs.
    """
    skipped: Counter[str] = Counter()
    images, captions = [], []
    for raw_image, raw_caption in itertools.islice(_iterate_source(source, num_examples, seed), num_examples):
        caption = _clean_caption(raw_caption)
        if not caption:
            skipped["caption is empty or no text"] += 1
            continue
        image = _read_image(raw_image, max_pixels)
        if image is None:
            skipped["picture cannot be read"] += 1
            continue
        images.append({"bytes": _png(image), "path": None})
        captions.append(caption)
    num_read = len(captions) + sum(skipped.values())
    if num_read == num_examples and source != "shapes":
        logger.info("read the first %d pairs of %s", num_read, source)
    for reason, count in skipped.items():
        logger.warning("%d of %d pairs left out: %s", count, num_read, reason)
    if len(captions) < 8:
        raise InputError(f"{source!r} has {len(captions)} usable pairs of picture and caption; at least 8 are needed")
    return datasets.Dataset.from_dict({"image": images, "caption": captions}, features=FEATURES)


def split_pairs(pairs: datasets.Dataset, *, num_held_out: int, seed: int) -> datasets.DatasetDict:
    """The pairs as `train` and `test`, with no caption and no picture of one in the other.

    Pairs that share a caption (but for case and spaces) or a picture (byte for byte) form a family, and so on
    transitively; a family is held out as a whole or not at all. The same pairs and seed give the same split.

    Args:
        pairs: columns `image` and `caption`, pictures as PNG bytes.
        num_held_out: size of `test`; less where families do not fit.
        seed: chooses the families.

    Raises:
        InputError: no two families fit into `num_held_out`.
    """
    families = _families(pairs)
    order = list(families)
    random.Random(seed).shuffle(order)
    held_out: list[int] = []
    num_families = 0
    for family in order:
        if len(held_out) + len(families[family]) <= num_held_out:
            held_out.extend(families[family])
            num_families += 1
    if num_families < 2:
        raise InputError(
            f"{len(pairs)} pairs have only {len(families)} captions or pictures that differ: too few to hold any out"
        )
    held_out.sort()
    chosen = set(held_out)
    train = [row for row in range(len(pairs)) if row not in chosen]
    parts = {"train": pairs.select(train), "test": pairs.select(held_out)}
    return datasets.DatasetDict(parts)  # pyrefly: ignore[no-matching-overload]


def _families(pairs: datasets.Dataset) -> dict[int, list[int]]:
    """Rows by the first row of their family."""
    parents = list(range(len(pairs)))

    def find(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    first_with: dict[Any, int] = {}
    encoded = pairs.cast_column("image", datasets.Image(decode=False))
    for row, (image, caption) in enumerate(zip(encoded["image"], encoded["caption"], strict=True)):
        for key in (hashlib.sha256(image["bytes"]).digest(), " ".join(caption.lower().split())):
            parents[find(row)] = find(first_with.setdefault(key, row))
    families = defaultdict(list)
    for row in range(len(pairs)):
        families[find(row)].append(row)
    return dict(families)


def _iterate_source(source: str, num_examples: int, seed: int) -> Iterator[tuple[Any, Any]]:
    if source == "shapes":
        return generate_shapes(num_examples, seed=seed)
    if source == "stamps":
        return iterate_stamps(fetch_stamps())
    return _iterate_rows(_open_stream(source), source, seed)


def _open_stream(source: str) -> datasets.IterableDataset:
    """The rows of a folder, parquet file or hub dataset as a stream, so that only the rows that are used are read."""
    path = Path(source).expanduser()
    try:
        if path.is_file():
            if path.suffix != ".parquet":
                raise InputError(f"{source!r} is a {path.suffix or 'plain'} file; a file must be .parquet")
            return datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        if path.is_dir():
            parquet_files = sorted(str(file) for file in path.rglob("*.parquet"))
            if parquet_files:
                return datasets.load_dataset("parquet", data_files=parquet_files, split="train", streaming=True)
            return datasets.load_dataset("imagefolder", data_dir=str(path), split="train", streaming=True)
        if source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise InputError(f"there is no file or folder {source!r}")
        return datasets.load_dataset(source, split="train", streaming=True)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"cannot open {source!r} as shapes, stamps, a folder of pictures, a parquet file or a hub id: {reason}"
        ) from error


def _iterate_rows(rows: datasets.IterableDataset, source: str, seed: int) -> Iterator[tuple[Any, Any]]:
    features = rows.features or dict.fromkeys(next(iter(rows), {}))
    image_column = _find_column(features, IMAGE_COLUMNS, source, "picture")
    caption_column = _find_column(features, CAPTION_COLUMNS, source, "caption")
    caption_feature = features[caption_column]
    class_names = caption_feature.names if isinstance(caption_feature, datasets.ClassLabel) else None
    # undecoded: a broken picture must not end the stream
    rows = rows.cast_column(image_column, datasets.Image(decode=False)).shuffle(seed, buffer_size=1000)
    for row in rows:
        caption = row[caption_column]
        if class_names and caption is not None:
            caption = class_names[caption].replace("_", " ")
        yield row[image_column], caption


def _find_column(features: Iterable[str], allowed: tuple[str, ...], source: str, what: str) -> str:
    for name in allowed:
        if name in features:
            return name
    raise InputError(f"{source!r} has no {what} column: it has {sorted(features)}, looked for {list(allowed)}")


def _clean_caption(caption: Any) -> str:
    """The caption with single spaces; of several captions the first; empty if it is no text."""
    if isinstance(caption, list) and caption:
        caption = caption[0]
    return " ".join(caption.split()) if isinstance(caption, str) else ""


def _read_image(raw: Any, max_pixels: int) -> Image.Image | None:
    """The picture upright, in RGB on white and within `max_pixels`, or None if it cannot be read."""
    try:
        if isinstance(raw, dict):
            raw = io.BytesIO(raw["bytes"]) if raw.get("bytes") else raw["path"]
        if isinstance(raw, Image.Image):
            pixels = to_pixels(raw)
        else:
            with Image.open(raw) as picture:
                pixels = to_pixels(picture)
        image = Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)))
    except UNREADABLE as error:
        logger.debug("cannot read %s: %s", raw, error)
        return None
    if image.width * image.height > max_pixels:
        factor = math.sqrt(max_pixels / (image.width * image.height))
        size = (max(1, math.floor(image.width * factor)), max(1, math.floor(image.height * factor)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    return image


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
