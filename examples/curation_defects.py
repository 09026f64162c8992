# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Defects planted among good pictures, and how many of them a curation run found.

`prepare_curation_data.py` calls this; so do tests and `benchmarks/curation_planted.py`. Everything follows from the
seed. What is planted, and what is known of it, is the truth that `found` compares with:

- `blurred`: Gaussian blur of 3.5 to 6 pixels at a long side of 512; `tiny`: smaller than the least side; `flat`: one
  color, faint noise or a gradient; `aspect`: 20 to 1;
- `exact`: the same file again; `near`: encoded anew as JPEG or WebP and made smaller;
- `swapped`: the caption of another picture; `truncated`: a file that breaks off; `empty`: a file of no bytes.
"""

import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, UnidentifiedImageError


DEFECTS = ("blurred", "tiny", "flat", "aspect", "exact", "near", "swapped", "truncated", "empty")
# what is found together, and by which reasons of `turingvit_hf.curation.decisions`
GROUPS = {
    "quality": (
        ("blurred", "tiny", "flat", "aspect"),
        ("image is blurred", "resolution is too low", "texture is too low", "aspect ratio is abnormal"),
    ),
    "exact duplicates": (("exact",), ("exact duplicate",)),
    "near duplicates": (("near",), ("near duplicate",)),
    "files": (("truncated", "empty"), ("image cannot be read", "image is empty")),
}
MAX_ASPECT = 3.0
# two pictures whose 16 x 16 pixels differ by less on average, of 255, were in the collection twice before
LEAST_DIFFERENCE = 6.0


@dataclass(frozen=True)
class Planted:
    """One file and the truth about it.

    Attributes:
        file: its name in the folder.
        defect: one of `DEFECTS`; `"none"` for a good picture.
        caption: what the data says of it.
        true_caption: what it should say.
        of: of a duplicate, the file that it is a copy of; else empty.
    """

    file: str
    defect: str
    caption: str
    true_caption: str
    of: str = ""


def plant_defects(
    pictures: Sequence[tuple[Path, str]], folder: Path, *, seed: int, min_side: int = 64, share: float = 0.05
) -> list[Planted]:
    """Writes pictures and planted defects into a folder, with a `metadata.jsonl`, and returns the truth.

    Pictures that are small, long or broken by themselves are left out, and so are copies that the collection has of
    its own, told by their pixels: of these nobody has written down whether they are defects.

    Args:
        pictures: files, each with its caption.
        folder: where to write; it is made.
        seed: of everything that is drawn.
        min_side: pixels of the shorter side of good pictures; `tiny` ones have at most two thirds.
        share: of the good pictures, how many there are of each defect; at least one.

    Returns:
        One entry a file, in the order of the metadata, which is shuffled.

    Raises:
        ValueError: there are too few pictures to plant every defect.
    """
    rng = random.Random(seed)
    good = _distinct([(path, caption) for path, caption in pictures if _is_good(path, min_side)])
    rng.shuffle(good)
    number = max(1, round(len(good) * share))
    # pictures that are spoiled are not among the good ones as well: they would be near duplicates too
    spoilt = ("blurred", "tiny", "aspect", "truncated")
    num_spoilt = len(spoilt) * number
    if len(good) < num_spoilt + max(3, 3 * number):
        raise ValueError(f"{len(good)} good pictures are too few to plant {number} of each of {len(DEFECTS)} defects")
    folder.mkdir(parents=True)
    kept = good[num_spoilt:]
    swapped = _swapped_captions([caption for _, caption in kept[: number + 1]])
    truth = []
    for place, (path, caption) in enumerate(kept):
        name = f"{place:05d}{path.suffix.lower()}"
        (folder / name).write_bytes(path.read_bytes())
        said = swapped[place] if place < len(swapped) else caption
        truth.append(Planted(name, "none" if said == caption else "swapped", said, caption))
    originals = rng.sample(range(len(swapped), len(kept)), 2 * number)
    for place in range(number):
        for which, defect in enumerate(spoilt):
            path, caption = good[place * len(spoilt) + which]
            truth.append(_spoil(defect, path, caption, folder, place, rng, min_side))
        truth.append(_spoil("flat", None, f"A photo {place}", folder, place, rng, min_side))
        truth.append(_spoil("empty", None, f"An image {place}", folder, place, rng, min_side))
        for defect, original in (("exact", originals[2 * place]), ("near", originals[2 * place + 1])):
            truth.append(_copy(defect, truth[original], kept[original][0], folder, place, rng, min_side))
    rng.shuffle(truth)
    rows = ({"file_name": entry.file, "caption": entry.caption} for entry in truth)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return truth


def write_truth(truth: Sequence[Planted], path: Path) -> None:
    """Writes the truth as JSON lines. Not into the folder of the pictures, whose metadata a run reads."""
    path.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in truth), encoding="utf-8")


def read_truth(path: Path) -> list[Planted]:
    """Return what `write_truth` wrote."""
    return [Planted(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def found(truth: Sequence[Planted], reasons: Mapping[str, str | None]) -> dict[str, dict[str, float]]:
    """Return precision and recall for each of `GROUPS`.

    Args:
        truth: what was planted.
        reasons: for each file why it was dropped, None if it was not.

    Returns:
        For each group `planted`, `dropped`, `precision` and `recall`. A picture of a pair counts as found whichever of
        the two was dropped.
    """
    result = {}
    for group, (defects, of_group) in GROUPS.items():
        planted = [entry for entry in truth if entry.defect in defects]
        dropped = {file for file, reason in reasons.items() if reason in of_group}
        hits = [entry for entry in planted if dropped & {entry.file, entry.of}]
        explained = {file for entry in planted for file in (entry.file, entry.of)}
        right = len(dropped & explained)
        result[group] = {
            "planted": len(planted),
            "dropped": len(dropped),
            "precision": right / len(dropped) if dropped else 1.0,
            "recall": len(hits) / len(planted) if planted else 1.0,
        }
    return result


def _is_good(path: Path, min_side: int) -> bool:
    try:
        with Image.open(path) as picture:
            picture.load()
            return min(picture.size) >= min_side and max(picture.size) <= MAX_ASPECT * min(picture.size)
    except (OSError, UnidentifiedImageError):
        return False


def _on_white(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        rgba = picture.convert("RGBA")
    ground = Image.new("RGBA", rgba.size, "white")
    ground.alpha_composite(rgba)
    return ground.convert("RGB")


def _distinct(pictures: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """Those whose pixels differ from all before them."""
    thumbnails = np.zeros((len(pictures), 16 * 16 * 3), np.int16)
    kept: list[tuple[Path, str]] = []
    for path, caption in pictures:
        thumbnail = np.asarray(_on_white(path).resize((16, 16), Image.Resampling.BOX), np.int16).ravel()
        if not (np.abs(thumbnails[: len(kept)] - thumbnail).mean(1) < LEAST_DIFFERENCE).any():
            thumbnails[len(kept)] = thumbnail
            kept.append((path, caption))
    return kept


def _swapped_captions(captions: list[str]) -> list[str]:
    """Each one's neighbor, the last one's the first, as long as it differs."""
    return [captions[(place + 1) % len(captions)] for place in range(len(captions))]


def _spoil(
    defect: str, path: Path | None, caption: str, folder: Path, place: int, rng: random.Random, min_side: int
) -> Planted:
    picture = _on_white(path) if path is not None else None
    name = f"{defect}-{place:04d}.{rng.choice(('jpg', 'png'))}"
    if defect == "empty":
        (folder / name).write_bytes(b"")
    elif picture is None:
        _flat(rng, 2 * min_side).save(folder / name, quality=90)
    elif defect == "blurred":
        sigma = rng.uniform(3.5, 6) * max(1.0, max(picture.size) / 512)
        picture.filter(ImageFilter.GaussianBlur(sigma)).save(folder / name, quality=90)
    elif defect == "tiny":
        scale = rng.uniform(0.25, 0.66) * min_side / min(picture.size)
        size = (max(1, int(side * scale)) for side in picture.size)
        picture.resize(tuple(size), Image.Resampling.LANCZOS).save(folder / name, quality=90)
    elif defect == "aspect":
        size = (20 * min_side, min_side) if rng.random() < 0.5 else (min_side, 20 * min_side)
        picture.resize(size, Image.Resampling.LANCZOS).save(folder / name, quality=90)
    else:
        whole = io.BytesIO()
        picture.save(whole, "JPEG" if name.endswith("jpg") else "PNG", quality=90)
        (folder / name).write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * rng.uniform(0.2, 0.8))])
    return Planted(name, defect, caption, caption)


def _flat(rng: random.Random, side: int) -> Image.Image:
    """One color, that with faint noise, or a gradient between two colors."""
    first, second = (np.array([rng.randrange(256) for _ in range(3)], float) for _ in range(2))
    kind = rng.choice(("color", "noise", "gradient"))
    ramp = np.linspace(0, 1, side)[None, :, None] if kind == "gradient" else np.zeros((1, side, 1))
    pixels = np.broadcast_to(first + (second - first) * ramp, (side, side, 3))
    if kind == "noise":
        pixels = pixels + np.random.default_rng(rng.randrange(2**32)).normal(0, 1.5, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))


def _copy(
    defect: str, original: Planted, path: Path, folder: Path, place: int, rng: random.Random, min_side: int
) -> Planted:
    if defect == "exact":
        name = f"exact-{place:04d}{path.suffix.lower()}"
        (folder / name).write_bytes(path.read_bytes())
    else:
        name = f"near-{place:04d}.{rng.choice(('jpg', 'webp'))}"
        picture = _on_white(path)
        # it shall be found as a copy, not as too small
        scale = min(1.0, max(rng.uniform(0.5, 1.0), min_side / min(picture.size)))
        size = tuple(max(min_side, round(length * scale)) for length in picture.size)
        picture.resize(size, Image.Resampling.LANCZOS).save(folder / name, quality=rng.randint(40, 90))
    return Planted(name, defect, original.caption, original.true_caption, of=original.file)
