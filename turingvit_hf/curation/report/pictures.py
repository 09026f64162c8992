# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Small pictures of samples for reports: read again from the sources, boxes drawn, as data URIs."""

import base64
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from turingvit_hf.curation.rows import is_of_sample, read_samples
from turingvit_hf.curation.state import RunFolder, source_name
from turingvit_hf.data.media import decode_image
from turingvit_hf.errors import BadRowError
from turingvit_hf.processing.video_files import ClipError, read_frames


SIDE = 168
BOX_COLORS = ("#e6550d", "#3182bd", "#31a354", "#756bb1", "#d6278a", "#8c6d31")


def read_pictures(run: RunFolder, sample_ids: Iterable[str]) -> dict[str, Image.Image]:
    """Return the pictures of samples, RGB; of a clip its middle frame. What cannot be read any more is left out.

    Only the shards that hold them are read.
    """
    wanted = set(sample_ids)
    pictures: dict[str, Image.Image] = {}
    for shard in run.shards:
        if not wanted:
            break
        rows = {row["sample_id"]: row for row in run.read_shard(shard.number, ids=wanted)}
        if not rows:
            continue
        wanted -= set(rows)
        pictures |= _of_shard(run, shard, rows)
    return pictures


def _of_shard(run: RunFolder, shard: Any, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Image.Image]:
    by_position: dict[int, list[str]] = defaultdict(list)
    for name, row in rows.items():
        by_position[row["position"]].append(name)
    source = run.config.sources[shard.source]
    found = {}
    samples = read_samples(
        source,
        name=source_name(run.config, shard.source),
        listing=run.listing_of(shard),
        unit=shard.unit,
        start=shard.start,
        stop=shard.stop,
        repeats=shard.repeats,
        wanted=set(by_position),
    )
    for sample in samples:
        for name in by_position[sample["position"]]:
            media = sample["media"] if is_of_sample(rows[name], sample) else None
            picture = _picture(media, source.kind, rows[name])
            if picture is not None:
                found[name] = picture
    return found


def _picture(media: bytes | str | None, kind: str, row: Mapping[str, Any]) -> Image.Image | None:
    if media is None:
        return None
    try:
        if kind == "video":
            middle = (row.get("first_frame") or 0) + (row.get("num_frames") or 1) // 2
            frames, _ = read_frames(media, lambda metadata: [min(middle, metadata.total_num_frames - 1)])
            return Image.fromarray(np.ascontiguousarray(frames[0]))
        encoded = media if isinstance(media, bytes) else _read(media)
        return Image.fromarray(np.ascontiguousarray(decode_image(encoded).transpose(1, 2, 0)))
    except (BadRowError, ClipError, OSError):
        return None  # shown as a row without a picture


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def draw_boxes(picture: Image.Image, boxes: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Return a copy with a frame and a label for each box, whose corners are in the picture's pixels."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    width = max(2, round(max(picture.size) / 150))
    font_size = max(10, round(max(picture.size) / 28))
    phrases = list(dict.fromkeys(box["phrase"] for box in boxes))
    for box in boxes:
        color = BOX_COLORS[phrases.index(box["phrase"]) % len(BOX_COLORS)]
        corners = [box[corner] for corner in ("x0", "y0", "x1", "y1")]
        draw.rectangle(corners, outline=color, width=width)
        label = f"{box['phrase']} {box['score']:.2f}"
        place = draw.textbbox((corners[0] + width, corners[1] + width), label, font_size=font_size)
        draw.rectangle(place, fill=color)
        draw.text((corners[0] + width, corners[1] + width), label, fill="white", font_size=font_size)
    return picture


def thumbnail(picture: Image.Image, side: int = SIDE) -> str:
    """Return a picture, its longer side at most `side` pixels, as a data URI of a JPEG."""
    picture = picture.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
