# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The pictures of `tla_study.py`: the prepared ones, small enough to be read fast, and drawings in several sizes.

A picture's class, for nearest neighbors, is the folder that its collection keeps it in: `animals`, `food`, `vehicles`.
Drawings are drawn anew from their SVG files for every size, so that a larger one has more to see and not just more
pixels.
"""

import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from turingvit_hf.data.draws import draws
from turingvit_hf.data.media import decode_image
from turingvit_hf.errors import InputError
from turingvit_hf.files.whole_folder import written_whole
from turingvit_hf.processing.geometry import target_size
from turingvit_hf.processing.pixels import resize_pixels
from turingvit_hf.training.data.stamps import fetch_stamps, iterate_stamps


sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

from pretraining_sources.clip_art import choose_captions, draw, fetch_clip_art, read_description


# collections' folders that say nothing about what is in them
NO_CLASSES = ("special", "unsorted")
METADATA = "metadata.jsonl"
# names of the folders in the prepared data
STAMPS, CLIP_ART = "stamps", "clip_art"


@dataclass(frozen=True)
class Pictures:
    """Pictures with what belongs to each.

    Attributes:
        images: uint8 (3, H, W).
        captions: the caption of each.
        classes: the class of each, empty where its folder is none.
        swapped: of scenes, the number of the one with the same pictures in the other order; empty for other pictures.
    """

    images: list[np.ndarray]
    captions: list[str]
    classes: list[str]
    swapped: list[int] = field(default_factory=list)


def make_pictures(
    data: Path,
    target: Path,
    *,
    cache: Path,
    seed: int,
    bounds: tuple[int, int],
    sides: Sequence[int],
    num_drawings: int,
    patch_size: int,
) -> None:
    """Writes `train/`, `test/` and a folder of drawings for each side, all of them uncompressed and on white.

    Sides are whole patches, so that nothing has to be resized when a picture is read.

    Args:
        data: what `examples/prepare_pretraining_data.py` wrote.
        target: the folder, which appears whole or not at all.
        cache: where the downloads of that script are.
        seed: what it was called with.
        bounds: between which the longer side of each picture in `train` and `test` is drawn, in pixels; as many are
            between 128 and 256 as between 256 and 512.
        sides: the longer sides of the drawings.
        num_drawings: how many held-out drawings, at most.
        patch_size: side of a patch in pixels.

    Raises:
        InputError: the data is not there, or was made from something else than what is in the cache.
    """
    origins = Origins(cache, seed=seed)
    with written_whole(target) as folder:
        rows: list[dict[str, Any]] = []
        for split in ("train", "test"):
            rows = list(
                _copied(data / "images" / split, folder / split, origins, bounds=bounds, patch_size=patch_size)
            )
            write_metadata(folder / split, rows)
        # whoever has a class can be asked for its neighbors too
        wanted = [row for row in rows if row["drawing"] and row["class"]][:num_drawings]
        for side in sides:
            _write_drawings(wanted, folder / f"drawings{side}", side=side, patch_size=patch_size)


class Origins:
    """Where each prepared picture came from, by the number that its name begins with.

    Args:
        cache: where the downloads are.
        seed: what the data was prepared with.
    """

    def __init__(self, cache: Path, *, seed: int):
        self._roots = {STAMPS: fetch_stamps(cache), CLIP_ART: fetch_clip_art(cache)}
        drawings = sorted(self._roots[CLIP_ART].rglob("*.svg"))
        descriptions = [found for file in drawings if (found := read_description(file)) is not None]
        chosen, _ = choose_captions(descriptions, seed=seed)
        self._files = {
            STAMPS: [file for file, _ in iterate_stamps(self._roots[STAMPS])],
            CLIP_ART: [file for file, _ in chosen],
        }

    def find(self, name: str) -> tuple[Path, str]:
        """The file and the class of a prepared picture, such as `clip_art/0012_owl.png`; no class is empty.

        Raises:
            InputError: the collections have another file in this place.
        """
        collection, _, rest = name.partition("/")
        number, _, stem = Path(rest).stem.partition("_")
        files = self._files[collection]
        if int(number) >= len(files) or files[int(number)].stem != stem:
            raise InputError(f"{name} is not what the collections have in this place: prepare the data again")
        file = files[int(number)]
        folders = file.relative_to(self._roots[collection]).parts[:-1]
        is_class = bool(folders) and folders[0] not in NO_CLASSES
        return file, folders[0] if is_class else ""


def read_pictures(folder: Path, *, limit: int | None = None) -> Pictures:
    """The pictures of a folder of `make_pictures`, in memory; with a limit some, evenly spread over all.

    Raises:
        InputError: there is none.
    """
    if not (folder / METADATA).is_file():
        raise InputError(f"there are no pictures in {folder}")
    rows = [json.loads(line) for line in (folder / METADATA).read_text(encoding="utf-8").splitlines()]
    if limit is not None and limit < len(rows):
        rows = [rows[number * len(rows) // limit] for number in range(limit)]
    images = [decode_image(folder / row["file_name"]) for row in rows]
    return Pictures(images, [row["caption"] for row in rows], [row["class"] for row in rows])


def write_metadata(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows of a folder of pictures, a line each."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / METADATA).write_text("".join(lines), encoding="utf-8")


def _copied(
    source: Path, target: Path, origins: Origins, *, bounds: tuple[int, int], patch_size: int
) -> Iterator[dict[str, Any]]:
    """Copies the pictures of a split and yields their rows."""
    if not (source / METADATA).is_file():
        raise InputError(f"{source} has no {METADATA}: run examples/prepare_pretraining_data.py")
    target.mkdir()
    for number, line in enumerate((source / METADATA).read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        origin, class_name = origins.find(row["file_name"])
        name = f"{number:04d}.bmp"
        side = patch_size * _draw_patches(draws(source.name, number), [bound // patch_size for bound in bounds])
        _save(decode_image(source / row["file_name"]), target / name, side=side, patch_size=patch_size)
        drawing = str(origin) if origin.suffix == ".svg" else ""
        yield {"file_name": name, "caption": row["caption"], "class": class_name, "drawing": drawing}


def _draw_patches(rng: random.Random, bounds: Sequence[int]) -> int:
    """A number of patches within bounds; its logarithm is drawn evenly."""
    low, high = bounds
    return min(high, int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))))


def _write_drawings(rows: Sequence[Mapping[str, Any]], target: Path, *, side: int, patch_size: int) -> None:
    target.mkdir()
    for row in rows:
        content = draw(Path(row["drawing"]), side)
        assert content is not None, "it was drawn when the data was prepared"
        _save(decode_image(content), target / row["file_name"], side=side, patch_size=patch_size)
    write_metadata(target, rows)


def _save(pixels: np.ndarray, path: Path, *, side: int, patch_size: int) -> None:
    """Writes a picture (3, H, W) with this longer side, or with its own where that is smaller, in whole patches."""
    side = max(1, min(side, max(pixels.shape[1:])) // patch_size) * patch_size
    size = target_size(*pixels.shape[1:], resolution="bounded", patch_size=patch_size, min_side=side, max_side=side)
    resized = resize_pixels(pixels, size, Image.Resampling.BICUBIC)
    Image.fromarray(resized.transpose(1, 2, 0)).save(path)
