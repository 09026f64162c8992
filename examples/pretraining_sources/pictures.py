# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures with captions: Tux Paint's stamps, and how all pictures are split and written.

A tenth is held out; captions and pictures of `test` do not occur in `train`, and its captions differ from one another.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets

from turingvit_hf.training.data.stamps import iterate_stamps
from turingvit_hf.training.datasets import split_pairs


HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Picture:
    """A picture on disk, its caption, and where it comes from."""

    file: Path
    caption: str
    source: str


def copy_stamps(folder: Path, target: Path) -> list[Picture]:
    """The stamps with captions, copied."""
    target.mkdir()
    pictures = []
    for number, (file, caption) in enumerate(iterate_stamps(folder)):
        copy = target / f"{number:04d}_{file.stem}.png"
        shutil.copyfile(file, copy)
        pictures.append(Picture(copy, caption, "stamps"))
    return pictures


def write_images(pictures: Sequence[Picture], folder: Path, *, seed: int) -> dict[str, Counter[str]]:
    """Splits the pictures into `train` and `test`, moves their files there, and counts them by source."""
    pairs = {
        # only what tells pictures apart is needed to split them
        "image": [{"bytes": hashlib.sha256(picture.file.read_bytes()).digest(), "path": None} for picture in pictures],
        "caption": [picture.caption for picture in pictures],
        "index": list(range(len(pictures))),
    }
    features = {"image": datasets.Image(), "caption": datasets.Value("string"), "index": datasets.Value("int64")}
    pairs = datasets.Dataset.from_dict(pairs, features=datasets.Features(features))
    parts = split_pairs(pairs, num_held_out=round(HELD_OUT_SHARE * len(pictures)), seed=seed)
    counts = {}
    for split in ("train", "test"):
        chosen = [pictures[index] for index in parts[split]["index"]]
        if split == "test":
            chosen = list({picture.caption.lower(): picture for picture in chosen}.values())
        rows = []
        for picture in chosen:
            name = f"{picture.source.replace(' ', '_')}/{picture.file.name}"
            (folder / split / name).parent.mkdir(parents=True, exist_ok=True)
            picture.file.rename(folder / split / name)
            rows.append({"file_name": name, "caption": picture.caption, "source": picture.source})
        write_metadata(rows, folder / split)
        counts[split] = Counter(row["source"] for row in rows)
    return counts


def write_metadata(rows: Sequence[dict[str, str]], folder: Path) -> None:
    """Writes `metadata.jsonl`."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
