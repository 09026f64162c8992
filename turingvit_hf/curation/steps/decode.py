# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Media to pixels, once for all measurements of a batch."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from turingvit_hf.curation.steps.base import Batch, Step
from turingvit_hf.data.media import decode_image, image_size
from turingvit_hf.errors import BadRowError


class DecodeImages(Step):
    """Reads and decodes the images of a batch, each alone.

    New columns: `image`, RGB uint8 of shape (H, W, 3), upright, on white, the first frame of an animation, None where
    there is none to be had; `width` and `height` of the file in pixels, upright; `sha256` of the file in hex; `fault`
    and `fault_detail` where the file is broken for good, `error` where reading it failed for a reason that may pass,
    or where rows have a `sha256` already and the file has another one now.

    Args:
        long_side: a JPEG whose longer side is at least twice this is decoded at 1/2, 1/4 or 1/8 of its size, not
            below this; None decodes at full size.
    """

    name = "decode"
    reads = ("media",)
    drafts = ("image",)

    def __init__(self, *, long_side: int | None = None):
        self.long_side = long_side

    def __call__(self, batch: Batch) -> Batch:
        """Return the new columns; `fault` and `fault_detail` of the batch, where the reader set them, are kept."""
        faults = batch.get("fault") or [None] * len(batch["media"])
        details = batch.get("fault_detail") or [None] * len(batch["media"])
        columns: Batch = {
            name: [] for name in ("image", "width", "height", "sha256", "fault", "fault_detail", "error")
        }
        measured = [name for name in ("width", "height", "sha256") if name in batch]
        for index, (media, fault, detail) in enumerate(zip(batch["media"], faults, details, strict=True)):
            row = {name: batch[name][index] for name in measured}
            if fault is None:
                row |= _decode(media, self.long_side, row.get("sha256"))
            else:
                row |= {"fault": fault, "fault_detail": detail}
            for name, values in columns.items():
                values.append(row.get(name))
        return columns


def changed_text(first_stage: str) -> str:
    """Return what is said of a row whose media is not what that stage saw."""
    return f"its file has changed since it was measured; run with --from-stage {first_stage} takes it as it is now"


def media_hash(media: bytes | str) -> str:
    """Return the sha256 of encoded media in hex; a file that was not touched since the last time is not read again.

    Raises:
        OSError: the file cannot be read, or not now.
    """
    if isinstance(media, bytes):
        return hashlib.sha256(media).hexdigest()
    status = os.stat(media)
    return _file_hash(media, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _file_hash(path: str, size: int, changed_at: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_media(media: bytes | str) -> bytes:
    """Return the encoded bytes of media.

    Raises:
        OSError: the file cannot be read, or not now.
    """
    return media if isinstance(media, bytes) else Path(media).read_bytes()


def _decode(media: bytes | str | None, long_side: int | None, known_hash: str | None) -> dict[str, Any]:
    if media is None:
        return {"fault": "row has no image"}
    try:
        encoded = read_media(media)
    except OSError as error:
        return {"error": f"cannot read {media}: {error.strerror or error}"}
    found: dict[str, Any] = {"sha256": hashlib.sha256(encoded).hexdigest()}
    if known_hash not in (None, found["sha256"]):
        return {"error": changed_text("measure")}
    try:
        height, width = image_size(encoded)
        reduction = max(height, width) / long_side if long_side is not None else 1.0
        pixels = decode_image(encoded, reduction=max(1.0, reduction))
    except BadRowError as error:
        return found | {"fault": error.reason, "fault_detail": error.detail or None}
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if reduction < 2:
        # a PNG may hide its orientation behind its pixels, where its size was not read
        height, width = image.shape[:2]
    return found | {"image": image, "height": height, "width": width}
