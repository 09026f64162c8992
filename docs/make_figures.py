# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Draws the figures of README and documentation as plain-text SVG: `python docs/make_figures.py`.

A white ground makes them readable on pages of any color. Fonts are the reader's own, so boxes leave room for wide
ones.
"""

from pathlib import Path
from xml.sax.saxutils import escape


ASSETS = Path(__file__).parent / "assets"

# fill and line of each kind of box
COLORS = {
    "linear": ("#dcebfb", "#3b78c3"),
    "norm": ("#fdf3cf", "#c19a1f"),
    "tla": ("#d3f0ec", "#178577"),
    "mha": ("#fde4d0", "#d3702a"),
    "mlp": ("#e8e3f8", "#7764bf"),
    "gate": ("#fbdfe6", "#c5486d"),
    "plain": ("#ffffff", "#52606d"),
    "panel": ("#f7f9fb", "#d9e0e6"),
    "zoom": ("#eef2f5", "none"),
}
TIMES = "\N{MULTIPLICATION SIGN}"
IMAGE_COLORS = ("#4c8fd6", "#e0884a", "#4fa98d", "#8f7ad1")

STYLE = """
text { font-family: Inter, "Segoe UI", "Helvetica Neue", Arial, sans-serif; font-size: 15px; fill: #1f2933; }
.title { font-size: 16px; font-weight: 700; }
.small { font-size: 13px; fill: #52606d; }
.code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 13px; }
.flow { fill: none; stroke: #3e4c59; stroke-width: 1.6; }
.skip { fill: none; stroke: #8a97a3; stroke-width: 1.6; }
"""


class Drawing:
    """SVG elements in the order they are painted, and a size."""

    def __init__(self, width: int, height: int, description: str):
        self.width, self.height, self.description = width, height, description
        self.elements: list[str] = []

    def add(self, tag: str, content: str = "", **attributes: object) -> None:
        """Paints one element; underscores in attribute names become hyphens."""
        named = "".join(f' {name.rstrip("_").replace("_", "-")}="{value}"' for name, value in attributes.items())
        self.elements.append(f"<{tag}{named}>{content}</{tag}>" if content else f"<{tag}{named}/>")

    def text(self, x: float, y: float, label: str, *, kind: str = "", anchor: str = "middle") -> None:
        """Writes a line around the height `y`."""
        kind_attribute = {"class_": kind} if kind else {}
        self.add("text", escape(label), x=_number(x), y=_number(y + 5), text_anchor=anchor, **kind_attribute)

    def rectangle(self, x: float, y: float, width: float, height: float, *, kind: str, radius: float = 7) -> None:
        """Paints a box whose top left corner is (x, y)."""
        fill, stroke = COLORS[kind]
        size = {"x": _number(x), "y": _number(y), "width": _number(width), "height": _number(height)}
        self.add("rect", **size, rx=radius, fill=fill, stroke=stroke, stroke_width=1.4)

    def box(
        self, x: float, y: float, width: float, *lines: str, kind: str, height: float = 36, note: str = ""
    ) -> None:
        """Paints a box with its name and a smaller note; x is its left side, y its middle."""
        self.rectangle(x, y - height / 2, width, height, kind=kind)
        labels = [(line, "") for line in lines] + ([(note, "small")] if note else [])
        for index, (label, label_kind) in enumerate(labels):
            self.text(x + width / 2, y - 9 * (len(labels) - 1) + 18 * index, label, kind=label_kind)

    def arrow(self, *points: tuple[float, float], kind: str = "flow", head: bool = True) -> None:
        """Draws a line with rounded corners through the points, with a head at its end."""
        attributes = {"marker_end": f"url(#{kind}-head)"} if head else {}
        self.add("path", d=_rounded(points), class_=kind, **attributes)

    def join(self, x: float, y: float, sign: str) -> None:
        """Paints a small circle where two streams are added ("+") or multiplied (TIMES)."""
        self.add("circle", cx=_number(x), cy=_number(y), r=11, fill="#ffffff", stroke="#3e4c59", stroke_width=1.6)
        reach = 5.5 if sign == "+" else 4.2
        ends = ((reach, 0), (0, reach)) if sign == "+" else ((reach, reach), (reach, -reach))
        for dx, dy in ends:
            self.arrow((x - dx, y - dy), (x + dx, y + dy), head=False)

    def patches(self, x: float, y: float, rows: int, columns: int, *, color: str, side: float, gap: float = 0) -> None:
        """Paints an image as its patches."""
        for row in range(rows):
            for column in range(columns):
                left, top = x + column * (side + gap), y + row * (side + gap)
                place = {"x": _number(left), "y": _number(top), "width": side, "height": side}
                self.add("rect", **place, fill=color, stroke="#ffffff", stroke_width=1)

    def svg(self) -> str:
        """The file's text."""
        heads = "".join(
            f'<marker id="{kind}-head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 1L9 5L0 9z" fill="{color}"/></marker>'
            for kind, color in (("flow", "#3e4c59"), ("skip", "#8a97a3"))
        )
        frame = f'width="{self.width}" height="{self.height}"'
        opening = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {frame} viewBox="0 0 {self.width} {self.height}" role="img">'
        )
        ground = f'<rect {frame} rx="12" fill="#ffffff"/>'
        title = f"<title>{escape(self.description)}</title>"
        return "\n".join(
            (opening, title, f"<style>{STYLE}</style>", f"<defs>{heads}</defs>", ground, *self.elements, "</svg>", "")
        )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _rounded(points: tuple[tuple[float, float], ...], radius: float = 8) -> str:
    """The path through the points, each corner cut to a curve."""
    path = [f"M{_number(points[0][0])} {_number(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = _towards(corner, before, radius), _towards(corner, after, radius)
        path.append(f"L{_number(start[0])} {_number(start[1])}")
        path.append("Q" + " ".join(_number(value) for value in (*corner, *end)))
    return "".join([*path, f"L{_number(points[-1][0])} {_number(points[-1][1])}"])


def _towards(start: tuple[float, float], goal: tuple[float, float], distance: float) -> tuple[float, float]:
    length = max(abs(goal[0] - start[0]), abs(goal[1] - start[1]))
    share = min(1.0, distance / length) if length else 0.0
    return start[0] + (goal[0] - start[0]) * share, start[1] + (goal[1] - start[1]) * share


def draw_architecture() -> Drawing:
    """The tower, one of its blocks, and the inside of Turing Linear Attention, each a closer look at the last."""
    drawing = Drawing(
        1000,
        850,
        "TuringViT: packed images, patch embedding, blocks of five linear-attention layers and one softmax layer, "
        "final norm, attention pooling; and the inside of Turing Linear Attention",
    )
    _draw_tower(drawing)
    _draw_block(drawing)
    _draw_linear_attention(drawing)
    return drawing


def _draw_tower(drawing: Drawing) -> None:
    middle = 116
    drawing.text(30, 30, "TuringViT", kind="title", anchor="start")
    drawing.patches(30, 60, 3, 5, color=IMAGE_COLORS[0], side=13)
    drawing.patches(115, 73, 2, 2, color=IMAGE_COLORS[1], side=13)
    drawing.patches(161, 47, 4, 3, color=IMAGE_COLORS[2], side=13)
    drawing.arrow((128, 105), (128, 124))
    for index, color in enumerate([IMAGE_COLORS[0]] * 15 + [IMAGE_COLORS[1]] * 4 + [IMAGE_COLORS[2]] * 12):
        drawing.patches(30 + index * 5.5, 128, 1, 1, color=color, side=5.5)
    drawing.text(30, 153, "images of any size, packed", kind="small", anchor="start")
    drawing.text(30, 170, "into one row without padding", kind="small", anchor="start")

    drawing.arrow((204, 131), (230, 131), (230, middle), (254, middle))
    drawing.box(256, middle, 104, "Patch", "embedding", kind="linear", height=64)
    drawing.arrow((360, middle), (396, middle))
    drawing.text(512, 36, f"{TIMES} 3 (18 layers) or {TIMES} 4 (24 layers)", kind="small")
    drawing.rectangle(398, 52, 228, 128, kind="panel")
    drawing.text(512, 71, "Turing block")
    for index in range(6):
        drawing.rectangle(414 + index * 33, 88, 30, 56, kind="tla" if index < 5 else "mha", radius=5)
    drawing.text(512, 163, "5 linear, 1 softmax", kind="small")
    drawing.arrow((626, middle), (660, middle))
    drawing.box(662, middle, 92, "RMSNorm", kind="norm")
    drawing.arrow((754, middle), (798, middle))
    drawing.box(800, middle, 104, "Attention", "pooling", kind="linear", height=64)
    drawing.arrow((774, middle), (774, 52), (802, 52))
    drawing.text(810, 43, "last_hidden_state", kind="code", anchor="start")
    drawing.text(810, 61, "one vector for each patch", kind="small", anchor="start")
    drawing.arrow((852, 148), (852, 164))
    drawing.text(852, 175, "pooler_output", kind="code")
    drawing.text(852, 192, "one vector for each image", kind="small")


def _draw_layer(drawing: Drawing, y: float, attention: str, *, kind: str, count: str, cost: str) -> None:
    """One layer from left to right, with its two residual streams above it."""
    drawing.text(62, y, count)
    drawing.arrow((92, y), (146, y))
    drawing.box(148, y, 92, "RMSNorm", kind="norm")
    drawing.arrow((240, y), (274, y))
    drawing.box(276, y, 96, attention, kind=kind)
    drawing.arrow((372, y), (416, y))
    drawing.arrow((440, y), (504, y))
    drawing.box(506, y, 92, "RMSNorm", kind="norm")
    drawing.arrow((598, y), (632, y))
    drawing.box(634, y, 96, "SwiGLU", kind="mlp")
    drawing.arrow((730, y), (774, y))
    drawing.arrow((798, y), (850, y))
    for start, stop in ((120, 428), (472, 786)):
        drawing.arrow((start, y), (start, y - 34), (stop, y - 34), (stop, y - 12), kind="skip")
        drawing.join(stop, y, "+")
    drawing.text(864, y, cost, kind="small", anchor="start")


def _draw_block(drawing: Drawing) -> None:
    drawing.add("path", d="M398 180L626 180L978 246L22 246z", fill=COLORS["zoom"][0])
    drawing.rectangle(20, 246, 960, 226, kind="panel", radius=10)
    # the closer look at the TLA box passes under the second layer
    drawing.add("path", d="M276 352L372 352L978 520L22 520z", fill=COLORS["tla"][1], opacity=0.09)
    drawing.text(40, 271, "Turing block", kind="title", anchor="start")
    drawing.text(168, 272, "MHA is plain softmax attention with the same 2-D RoPE", kind="small", anchor="start")
    _draw_layer(drawing, 338, "TLA", kind="tla", count=f"5 {TIMES}", cost="attention O(N)")
    _draw_layer(drawing, 432, "MHA", kind="mha", count=f"1 {TIMES}", cost="attention O(N²)")


def _draw_linear_attention(drawing: Drawing) -> None:
    drawing.rectangle(20, 520, 960, 310, kind="panel", radius=10)
    drawing.text(40, 545, "Turing Linear Attention (TLA)", kind="title", anchor="start")
    drawing.text(330, 546, "of one image of N patches, in each head of size d", kind="small", anchor="start")
    q, k, v, gate, state = 600, 660, 720, 786, 690
    drawing.text(54, state, "X")
    drawing.text(56, state + 18, "normed", kind="small")
    for name, y in (("Q", q), ("K", k), ("V", v), ("gate", gate)):
        drawing.arrow((70, state), (98, state), (98, y), (118, y))
        drawing.box(120, y, 102, f"Linear {name}", kind="linear")
    for y in (q, k, v):
        drawing.arrow((222, y), (246, y))
        drawing.box(248, y, 60, "SiLU", kind="plain")
    for y in (q, k):
        drawing.arrow((308, y), (332, y))
        drawing.box(334, y, 92, "2-D RoPE", kind="plain")
    drawing.arrow((222, gate), (246, gate))
    drawing.box(248, gate, 84, "sigmoid", kind="gate")

    drawing.box(478, state, 170, "S = KᵀV / (N·√d)", kind="tla", height=64, note=f"d {TIMES} d numbers")
    drawing.arrow((426, k), (450, k), (450, state - 12), (476, state - 12))
    drawing.arrow((308, v), (450, v), (450, state + 12), (476, state + 12))
    drawing.box(650, q, 92, "O = Q S", kind="tla")
    drawing.arrow((426, q), (648, q))
    drawing.arrow((648, state), (696, state), (696, q + 20))
    drawing.text(710, 652, "two products of cost N·d²,", kind="small", anchor="start")
    drawing.text(710, 670, f"no N {TIMES} N matrix anywhere", kind="small", anchor="start")

    drawing.arrow((742, q), (770, q))
    drawing.box(772, q, 92, "RMSNorm", kind="norm")
    drawing.text(818, q - 29, "over all heads", kind="small")
    drawing.arrow((864, q), (893, q))
    drawing.arrow((332, gate), (906, gate), (906, q + 13))
    drawing.join(906, q, TIMES)
    drawing.arrow((918, q), (944, q))
    drawing.text(957, q, "Y")


# (name, pixels, frames, rows of patches, columns of patches) of what the packing figure packs
SOURCES = (
    ("image 0", f"48 {TIMES} 80 pixels", 1, 3, 5),
    ("image 1", f"32 {TIMES} 32 pixels", 1, 2, 2),
    ("clip 2", f"2 frames of 32 {TIMES} 48 pixels", 2, 2, 3),
)


def draw_packing() -> Drawing:
    """Two images and a clip of two frames, the row they are packed into, and what padding them would have cost."""
    drawing = Drawing(
        1000,
        430,
        "Two images and a clip packed into one row of 31 tokens with cu_seqlens, and the padded batch of 60 tokens "
        "that it replaces",
    )
    lengths = [rows * columns for _, _, frames, rows, columns in SOURCES for _ in range(frames)]
    _draw_sources(drawing)
    _draw_packed_row(drawing, lengths)
    _draw_padded(drawing, lengths)
    return drawing


def _draw_sources(drawing: Drawing) -> None:
    segment = 0
    for (name, pixels, frames, rows, columns), x in zip(SOURCES, (110, 440, 690), strict=True):
        for frame in range(frames):
            left = x + frame * (columns * 20 + 8)
            drawing.patches(left, 96 - rows * 20, rows, columns, color=IMAGE_COLORS[segment], side=20)
            segment += 1
        drawing.text(x, 114, f"{name}: {pixels}", kind="small", anchor="start")
        drawing.text(x, 134, f"grid row [{frames}, {rows}, {columns}]", kind="code", anchor="start")


def _draw_packed_row(drawing: Drawing, lengths: list[int]) -> None:
    side, left, top, start = 27, 110, 196, 0
    drawing.text(left, 178, "packed: pixel_values (31, 768)", kind="code", anchor="start")
    drawing.text(left - 18, 260, "cu_seqlens", kind="code", anchor="end")
    for segment, length in enumerate(lengths):
        for token in range(start, start + length):
            drawing.patches(left + token * side, top, 1, 1, color=IMAGE_COLORS[segment], side=side)
        _draw_boundary(drawing, left + start * side, start)
        start += length
    _draw_boundary(drawing, left + start * side, start)


def _draw_boundary(drawing: Drawing, x: float, token: int) -> None:
    drawing.add("path", d=f"M{_number(x)} 190L{_number(x)} 248", stroke="#3e4c59", stroke_width=1.6)
    drawing.text(x, 260, str(token), kind="code")


def _draw_padded(drawing: Drawing, lengths: list[int]) -> None:
    side, left, top = 16, 110, 326
    for segment, length in enumerate(lengths):
        y = top + segment * (side + 4)
        drawing.patches(left, y, 1, length, color=IMAGE_COLORS[segment], side=side)
        drawing.patches(left + length * side, y, 1, max(lengths) - length, color="#dfe5ea", side=side)
    slots, used = len(lengths) * max(lengths), sum(lengths)
    drawing.text(left, 308, f"padded to the longest: {slots} slots, {slots - used} of them empty", anchor="start")
    drawing.text(440, 340, "Each frame is one segment of the row. Both kinds of attention stay", anchor="start")
    drawing.text(440, 362, "inside their segment, so an image gives the same numbers alone,", anchor="start")
    drawing.text(440, 384, "packed with others, and in any order.", anchor="start")


FIGURES = {"architecture.svg": draw_architecture, "packing.svg": draw_packing}


def main() -> None:
    """Writes every figure into `docs/assets`."""
    ASSETS.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (ASSETS / name).write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
