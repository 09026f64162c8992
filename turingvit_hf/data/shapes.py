# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Colored shapes with captions: an endless image-text dataset that needs no download.

A scene is one or two groups of equal shapes on a background. Everything the caption says can be seen in the picture
(how many, how large, which color, which shape, where, on what), and pictures come in many sizes and aspect ratios, so
that a tower that reads them has to use position, count and native resolution. The grammar has tens of millions of
captions; `generate_shapes` never repeats one.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageDraw


COLORS = {
    "red": (214, 39, 40),
    "orange": (255, 140, 20),
    "yellow": (246, 214, 30),
    "green": (38, 150, 60),
    "blue": (35, 80, 210),
    "purple": (128, 50, 160),
    "pink": (250, 120, 180),
    "brown": (120, 72, 35),
    "black": (20, 20, 22),
    "white": (252, 252, 252),
}
BACKGROUNDS = {
    "gray": (150, 152, 156),
    "cream": (250, 238, 205),
    "mint": (190, 238, 210),
    "sky": (175, 215, 250),
    "lavender": (218, 205, 245),
    "rose": (247, 205, 210),
    "teal": (0, 120, 125),
    "slate": (74, 88, 108),
}
TEXTURES = ("plain", "striped", "dotted", "checkered", "shaded")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")
PLURALS = ("circles", "squares", "triangles", "stars", "hearts", "crosses", "rings", "diamonds")
COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}
SIZES = {"small": 0.5, "large": 0.92}
# the rectangle that a group may use, as fractions (left, top, right, bottom) of the picture
REGIONS = {
    "at the top left": (0.0, 0.0, 0.5, 0.5),
    "at the top right": (0.5, 0.0, 1.0, 0.5),
    "at the bottom left": (0.0, 0.5, 0.5, 1.0),
    "at the bottom right": (0.5, 0.5, 1.0, 1.0),
    "in the middle": (0.2, 0.2, 0.8, 0.8),
    "on the left": (0.0, 0.0, 0.5, 1.0),
    "on the right": (0.5, 0.0, 1.0, 1.0),
    "at the top": (0.0, 0.0, 1.0, 0.5),
    "at the bottom": (0.0, 0.5, 1.0, 1.0),
}
PAIRS_OF_REGIONS = (("on the left", "on the right"), ("at the top", "at the bottom"))
MIN_SIDE, MAX_SIDE, MAX_ASPECT = 48, 192, 2.0
SUPERSAMPLING = 2


@dataclass(frozen=True)
class Group:
    """Equal shapes that stand together in one region of the picture."""

    count: int
    size: str
    color: str
    shape: str
    region: str

    def describe(self) -> str:
        """The group in words, for example `three small red stars at the top left`."""
        noun = self.shape if self.count == 1 else PLURALS[SHAPES.index(self.shape)]
        return f"{COUNTS[self.count]} {self.size} {self.color} {noun} {self.region}"


@dataclass(frozen=True)
class Scene:
    """What a picture shows; `wording` chooses between sentences that mean the same."""

    groups: tuple[Group, ...]
    background: str
    texture: str
    wording: int = 0

    def describe(self) -> str:
        """The caption: a sentence that names everything in the scene."""
        groups = " and ".join(group.describe() for group in self.groups)
        background = f"a {self.texture} {self.background} background"
        return (f"{groups} on {background}", f"{background} with {groups}")[self.wording]


def sample_scene(rng: random.Random) -> Scene:
    """A random scene with one group (anywhere) or two (left and right, or top and bottom)."""
    regions = rng.choice(PAIRS_OF_REGIONS) if rng.random() < 0.5 else (rng.choice(tuple(REGIONS)),)
    groups = tuple(
        Group(
            count=rng.choice(tuple(COUNTS)),
            size=rng.choice(tuple(SIZES)),
            color=rng.choice(tuple(COLORS)),
            shape=rng.choice(SHAPES),
            region=region,
        )
        for region in regions
    )
    return Scene(groups, rng.choice(tuple(BACKGROUNDS)), rng.choice(TEXTURES), rng.randrange(2))


def render_scene(scene: Scene, *, width: int, height: int, rng: random.Random) -> Image.Image:
    """The picture of a scene: RGB, `width` x `height` pixels; `rng` varies what the caption leaves open."""
    scale = SUPERSAMPLING
    canvas = _draw_background(scene, width * scale, height * scale, rng)
    draw = ImageDraw.Draw(canvas)
    for group in scene.groups:
        color = _jitter(COLORS[group.color], 12, rng)
        for x, y, radius in _place(group, canvas.width, canvas.height, rng):
            _draw_shape(draw, group.shape, (x, y, radius), color)
    return canvas.resize((width, height), Image.Resampling.BOX)


def sample_size(rng: random.Random) -> tuple[int, int]:
    """A random (width, height) in pixels, each side in [48, 192] and neither more than twice the other."""
    longer = MIN_SIDE * (MAX_SIDE / MIN_SIDE) ** rng.random()
    shorter = max(longer / MAX_ASPECT ** rng.random(), MIN_SIDE)
    width, height = (longer, shorter) if rng.random() < 0.5 else (shorter, longer)
    return round(width), round(height)


def generate_shapes(num_examples: int, *, seed: int) -> Iterator[tuple[Image.Image, str]]:
    """Pairs of picture and caption, no caption twice; the same seed gives the same pairs."""
    rng = random.Random(seed)
    captions: set[str] = set()
    while len(captions) < num_examples:
        scene = sample_scene(rng)
        if scene.describe() in captions:
            continue
        captions.add(scene.describe())
        width, height = sample_size(rng)
        yield render_scene(scene, width=width, height=height, rng=rng), scene.describe()


def alternatives(caption: str, attribute: str) -> list[tuple[str, str]]:
    """The caption and its variants with another color, shape or background, as (word, caption) with the true one
    first.

    Args:
        caption: a caption written by `Scene.describe`.
        attribute: `"color"`, `"shape"` (both of the group named first) or `"background"`.

    Raises:
        ValueError: if the caption has no such word, so did not come from this module.
    """
    vocabularies = {"color": (tuple(COLORS),), "shape": (SHAPES, PLURALS), "background": (tuple(BACKGROUNDS),)}
    words = caption.split()
    for position, word in enumerate(words):
        for vocabulary in vocabularies[attribute]:
            if word in vocabulary:
                values = (word, *(other for other in vocabulary if other != word))
                return [(value, " ".join([*words[:position], value, *words[position + 1 :]])) for value in values]
    raise ValueError(f"no {attribute} in {caption!r}: not a caption of the shapes data")


def _jitter(color: tuple[int, int, int], amount: int, rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, channel + rng.randint(-amount, amount))) for channel in color)
    return red, green, blue


def _blend(color: tuple[int, int, int], other: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


def _draw_background(scene: Scene, width: int, height: int, rng: random.Random) -> Image.Image:
    base = _jitter(BACKGROUNDS[scene.background], 6, rng)
    accent = _blend(base, (255, 255, 255) if sum(base) < 384 else (0, 0, 0), 0.16)
    image = Image.new("RGB", (width, height), base)
    draw = ImageDraw.Draw(image)
    step = rng.randint(16, 26)
    match scene.texture:
        case "striped":
            for left in range(-height, width, 2 * step):
                draw.line([(left, height), (left + height, 0)], fill=accent, width=round(step * 0.7))
        case "dotted":
            for y in range(step // 2, height, step):
                for x in range(step // 2, width, step):
                    draw.ellipse([x - step / 5, y - step / 5, x + step / 5, y + step / 5], fill=accent)
        case "checkered":
            for row, y in enumerate(range(0, height, step)):
                for x in range(step * (row % 2), width, 2 * step):
                    draw.rectangle([x, y, x + step - 1, y + step - 1], fill=accent)
        case "shaded":
            mask = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((width, height))
            image.paste(Image.new("RGB", (width, height), _blend(base, (0, 0, 0), 0.45)), mask=mask)
    return image


def _place(group: Group, width: int, height: int, rng: random.Random) -> Iterator[tuple[float, float, float]]:
    """Center and radius, in pixels, of each shape of a group: cells of a grid over its region."""
    left, top, right, bottom = REGIONS[group.region]
    region_width, region_height = (right - left) * width, (bottom - top) * height
    columns = min(range(1, group.count + 1), key=lambda n: -_cell_side(group.count, n, region_width, region_height))
    rows = math.ceil(group.count / columns)
    radius = _cell_side(group.count, columns, region_width, region_height) / 2 * SIZES[group.size] * 0.92
    for index in range(group.count):
        row, column = divmod(index, columns)
        in_row = min(columns, group.count - row * columns)
        x = left * width + region_width * (column + 0.5) / in_row
        y = top * height + region_height * (row + 0.5) / rows
        slack_x = max(0.0, region_width / in_row / 2 - radius) * 0.5
        slack_y = max(0.0, region_height / rows / 2 - radius) * 0.5
        yield x + rng.uniform(-slack_x, slack_x), y + rng.uniform(-slack_y, slack_y), radius


def _cell_side(count: int, columns: int, width: float, height: float) -> float:
    return min(width / columns, height / math.ceil(count / columns))


def _draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, place: tuple[float, float, float], color: tuple[int, int, int]
) -> None:
    x, y, r = place
    outline = _blend(color, (255, 255, 255) if sum(color) < 150 else (0, 0, 0), 0.35)
    match shape:
        case "circle":
            draw.ellipse([x - r, y - r, x + r, y + r], fill=color, outline=outline)
        case "ring":
            draw.ellipse([x - r, y - r, x + r, y + r], outline=color, width=max(2, round(r * 0.38)))
        case _:
            draw.polygon([(x + r * u, y + r * v) for u, v in OUTLINES[shape]], fill=color, outline=outline)


def _star() -> list[tuple[float, float]]:
    angles = [math.pi * (corner / 5 - 0.5) for corner in range(10)]
    return [(math.cos(a) * (1.0, 0.42)[i % 2], math.sin(a) * (1.0, 0.42)[i % 2]) for i, a in enumerate(angles)]


def _heart() -> list[tuple[float, float]]:
    angles = [2 * math.pi * step / 48 for step in range(48)]
    return [
        (math.sin(a) ** 3, -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 16.5)
        for a in angles
    ]


# corners of each polygon in a square from -1 to 1, y downwards
OUTLINES = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0.0, -0.95), (1.0, 0.8), (-1.0, 0.8)],
    "diamond": [(0.0, -1.0), (0.7, 0.0), (0.0, 1.0), (-0.7, 0.0)],
    "cross": [
        *[(-0.32, -1.0), (0.32, -1.0), (0.32, -0.32), (1.0, -0.32), (1.0, 0.32), (0.32, 0.32)],
        *[(0.32, 1.0), (-0.32, 1.0), (-0.32, 0.32), (-1.0, 0.32), (-1.0, -0.32), (-0.32, -0.32)],
    ],
    "star": _star(),
    "heart": _heart(),
}
