# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A folder with good and bad rows, and configs of runs over it that need no model."""

import io
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from turingvit_hf.curation.config import CurationConfig
from turingvit_hf.curation.config_files import config_from_dict


SIDE = 96
# of small pictures nothing else is asked than that they can be read
LENIENT = {
    "min_side": 32,
    "max_edge_width": None,
    "min_edge_share": None,
}


def picture(seed: int, side: int = SIDE) -> Image.Image:
    """Shapes on a colored ground, different for each seed."""
    rng = random.Random(seed)
    half = max(9, side // 2)
    image = Image.new("RGB", (side, side), tuple(rng.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = rng.randrange(side), rng.randrange(side)
        color = tuple(rng.randrange(256) for _ in range(3))
        draw.rectangle((x, y, x + rng.randrange(8, half), y + rng.randrange(8, half)), fill=color)
    return image


def write_pictures(folder: Path, number: int) -> list[dict[str, Any]]:
    """Write pictures and return their rows, not yet listed."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(number):
        picture(seed).save(folder / f"{seed:03d}.png")
        rows.append({"file_name": f"{seed:03d}.png", "caption": f"Picture {seed} of boats.", "license": "CC0"})
    return rows


def write_listing(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write `metadata.jsonl`."""
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_bad_rows(folder: Path) -> dict[str, str]:
    """Write files and rows that do harm to the careless, and return the reason that each ends with."""
    (folder / "empty.png").write_bytes(b"")
    whole = io.BytesIO()
    picture(1000).save(whole, format="JPEG")
    (folder / "cut.jpg").write_bytes(whole.getvalue()[:600])
    (folder / "text.png").write_text("no picture")
    (folder / "bomb.png").write_bytes(_bomb())
    frames = [picture(2000), picture(2001)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    (folder / "twice.png").write_bytes((folder / "000.png").read_bytes())
    picture(3000).save(folder.parent / "secret.png")
    picture(3001, side=16).save(folder / "tiny.png")
    return {
        "empty.png": "image is empty",
        "cut.jpg": "image cannot be read",
        "text.png": "image cannot be read",
        "bomb.png": "image is larger than 89478485 pixels",
        "moving.gif": "",
        "twice.png": "exact duplicate",
        "../secret.png": "file lies outside the folder of its source",
        "missing.png": "file is missing",
        "tiny.png": "resolution is too low",
    }


def _bomb() -> bytes:
    """A PNG of a few bytes whose header promises 60,000 x 60,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def make_config(
    folder: Path, *, log: Path | None = None, failing: Path | None = None, **values: Any
) -> CurationConfig:
    """A config over a folder: with a log, one captioner that writes what it is asked into it, and a scorer."""
    captioner = {"kind": "tests.curation.stand_ins:CountingCaptioner", "log": str(log)}
    if failing is not None:
        captioner["failing"] = str(failing)
    base: dict[str, Any] = {
        "sources": [{"path": str(folder), "name": "pictures"}],
        "shard_size": 8,
        "caption": {"captioners": [captioner] if log is not None else [], "batch_size": 2},
        "embed": {"scorer": {"kind": "tests.curation.stand_ins:HashScorer"}},
        "score": {"batch_size": 16, "num_batchings": 3},
        "thresholds": {"quality": LENIENT},
        "max_error_rate": 1.0,
    }
    return config_from_dict({**base, **values}, "test")
