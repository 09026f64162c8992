# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Open Clip Art from a Debian package: drawings with captions out of what their authors wrote about them.

A caption is the title and up to three keywords. Where a title is missing, or the drawings of a whole collection share
it, the file's name stands in for it: "togo, flag, africa, sign". Of drawings with the same caption a few are kept.
"""

import io
import os
import random
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pretraining_sources.pictures import Picture
from turingvit_hf.training.data.stamps import fetch_debian_package


PACKAGE, FOLDER = "openclipart-svg", Path("usr/share/openclipart/svg")
INSTEAD = "the Debian packages tuxpaint-stamps-default and openclipart-svg have to be unpacked into the cache by hand"
# a title that more pictures have is the name of a collection, not of what is seen
MAX_SAME_TITLE = 5
# 1,375 stars with other numbers of points, 208 playing cards: enough is enough
MAX_SAME_CAPTION = 5
EMPTY_KEYWORDS = {
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
    "mapsym",
    "magick",
    "examples",
    "lemon theme icon",
}
# abbreviations of themes that files' names begin with
EMPTY_NAMES = {"aiga", "bb", "fc", "fs", "gnome", "mime", "plastik"}
# in place of an author's name; also words that files are named with
NO_AUTHORS = {"and", "art", "based", "clip", "library", "open", "the", "work"}
PIXELS_PER_UNIT = {"": 1.0, "px": 1.0, "pt": 96 / 72, "pc": 16.0, "in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4}
SHORTEST, LONGEST = 128, 768


@dataclass(frozen=True)
class Description:
    """What a drawing says of itself: title, keywords, and the words of its author's name."""

    file: Path
    title: str
    keywords: tuple[str, ...]
    author: frozenset[str]


def fetch_clip_art(cache: Path) -> Path:
    """The folder with the drawings, downloaded by apt-get if it is not in the cache yet."""
    return fetch_debian_package(PACKAGE, cache, instead=INSTEAD) / FOLDER


def clean(text: str) -> str:
    """The text with single spaces, without underscores, mentions of the collection and numbers that only count."""
    text = text.replace("_", " ").strip()
    text = re.sub(r"^clip ?art by [^-]*- |^0\d+\s|\s*\bopenclipart\b", "", text, flags=re.IGNORECASE)
    return " ".join(re.sub(r"[\s\d.]+$", "", text).split())


def read_description(file: Path) -> Description | None:
    """What a drawing says of itself; None if it is no XML or says nothing."""
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, ValueError):
        return None
    work = next((element for element in root.iter() if element.tag.endswith("}Work")), None)
    if work is None:
        return None
    titles, keywords, author = [], [], []
    for element in work:
        inside = list(element.iter())
        if element.tag.endswith("}title"):
            titles.append(clean(element.text or ""))
        elif element.tag.endswith("}subject"):
            keywords += [clean(word.text or "").lower() for word in inside if word.tag.endswith("}li")]
        elif element.tag.endswith("}creator"):
            for agent in inside:
                if agent.tag.endswith("}title"):
                    author += re.findall(r"[^\W\d_]{3,}", (agent.text or "").lower())
    names = frozenset(author) - NO_AUTHORS
    # some authors are among the keywords
    keywords = [keyword for keyword in keywords if len(names.intersection(keyword.split())) < 2]
    return Description(file, titles[0] if titles else "", tuple(keywords), names)


def words_of_name(stem: str, author: frozenset[str]) -> str:
    """The words of a file's name without numbers, up to the name of the author, who may sign there."""
    words = []
    for word in re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem).lower()):
        word = word.rstrip("0123456789")
        # names of files are cut off at a length, and so is the author's in them
        if len(word) > 2 and any(name.startswith(word) or word.startswith(name) for name in author):
            break
        if len(word) > 1 and not re.search(r"\d", word) and word not in EMPTY_NAMES:
            words.append(word)
    return " ".join(words)


def make_caption(title: str, keywords: Sequence[str]) -> str:
    """Title and up to three keywords that add a word to it; empty if the title names nothing."""
    if not re.search(r"[^\W\d_]{3}", title):
        return ""
    words, parts = set(title.lower().split()), [title]
    for keyword in keywords:
        is_word = bool(keyword) and not re.search(r"\d", keyword) and keyword not in EMPTY_KEYWORDS
        if is_word and not words.issuperset(keyword.split()) and len(parts) < 4:
            parts.append(keyword)
            words.update(keyword.split())
    return ", ".join(parts)


def choose_captions(descriptions: Sequence[Description], *, seed: int) -> tuple[list[tuple[Path, str]], Counter[str]]:
    """Drawings with captions in the order in which they are to be used, and how many were left out by reason.

    Those with a title of their own come first: what a name of a file says is less.
    """
    left_out: Counter[str] = Counter()
    titles = Counter(description.title for description in descriptions)
    titled, named = [], []
    for description in descriptions:
        caption = make_caption(description.title, description.keywords)
        if caption and titles[description.title] <= MAX_SAME_TITLE:
            titled.append((description.file, caption))
            continue
        caption = make_caption(words_of_name(description.file.stem, description.author), description.keywords)
        if len(re.findall(r"[^\W\d_]{3,}", caption)) > 1:
            named.append((description.file, caption))
        else:
            left_out["without words"] += 1
    rng = random.Random(seed)
    rng.shuffle(titled)
    rng.shuffle(named)
    chosen, same = [], Counter()
    for file, caption in titled + named:
        same[caption.lower()] += 1
        if same[caption.lower()] <= MAX_SAME_CAPTION:
            chosen.append((file, caption))
        else:
            left_out["captioned like others"] += 1
    return chosen, left_out


def draw_clip_art(folder: Path, target: Path, *, num_pictures: int, seed: int) -> tuple[list[Picture], Counter[str]]:
    """At most `num_pictures` drawings as PNG files, and how many were left out by reason."""
    target.mkdir()
    files = sorted(folder.rglob("*.svg"))
    descriptions = [description for file in files if (description := read_description(file)) is not None]
    chosen, left_out = choose_captions(descriptions, seed=seed)
    left_out["without a description"] += len(files) - len(descriptions)
    rng = random.Random(seed)
    sides = [rng.randint(SHORTEST, LONGEST) for _ in chosen]

    def draw_one(number: int) -> Picture | None:
        file, caption = chosen[number]
        content = draw(file, sides[number])
        if content is None:
            return None
        path = target / f"{number:04d}_{file.stem}.png"
        path.write_bytes(content)
        return Picture(path, caption, "clip art")

    pictures: list[Picture] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        start = 0
        while start < len(chosen) and len(pictures) < num_pictures:
            end = min(start + num_pictures - len(pictures), len(chosen))
            drawn = list(pool.map(draw_one, range(start, end)))
            pictures.extend(picture for picture in drawn if picture is not None)
            left_out["cannot be drawn"] += drawn.count(None)
            start = end
    return pictures, left_out


def draw(file: Path, longer_side: int) -> bytes | None:
    """The drawing as RGBA in PNG on a transparent ground; None if it has no size or shows nothing on white."""
    import resvg_py

    root = ElementTree.parse(file).getroot()
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
