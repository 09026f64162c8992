# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""From a row to a sample: which caption, which part of the picture, how large; decided first, decoded last.

A sample's size is known from the header of its image, so that it can be given a place in a pack before it is decoded.
Every random draw is keyed by seed, source, row and epoch: it is the same whenever and wherever the row is read.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from turingvit_hf.data.draws import draws, seed_of
from turingvit_hf.data.media import DRAFT_MARGIN, Media, decode_image, find_media, image_size
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.sources import Source, iterate_rows, open_source
from turingvit_hf.errors import BadRowError
from turingvit_hf.processing.geometry import draw_longer_sides, target_size
from turingvit_hf.processing.pixels import resize_pixels
from turingvit_hf.training.arguments import DataRecipe
from turingvit_hf.training.data.captions import choose_caption
from turingvit_hf.training.data.clips import ClipError, read_clip
from turingvit_hf.training.data.crops import Box, cut, draw_box, is_reduced, is_turned, reduced
from turingvit_hf.training.data.fitting import least_patches, smaller_grid


BICUBIC = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What will become of a row.

    Attributes:
        key: names the sample in every run: its source and row.
        draw_key: what its random draws are keyed by; also has the seed and the epoch.
        kind: `"image"` or `"video"`.
        caption: the chosen caption; empty where none is wanted.
        image_size: (height, width) of the whole picture in pixels.
        box: the part that is taken.
        size: (height, width) in pixels that this is resized to: whole patches.
        flip: whether left and right change places.
        num_tokens: patches of all frames.
        least_tokens: what `smaller` may make of them.
        media: an image yet to be decoded, or None for a clip.
        frames: a clip's frames, ready.
        notes: what is to be counted about it.
    """

    key: str
    draw_key: str
    kind: str
    caption: str
    image_size: tuple[int, int]
    box: Box
    size: tuple[int, int]
    flip: bool
    num_tokens: int
    least_tokens: int
    media: Media | None = None
    frames: tuple[np.ndarray, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Sample:
    """An image or clip, ready to be packed, and its caption.

    Attributes:
        key: names the sample in every run: its source and row.
        draw_key: what its random draws are keyed by; also has the seed and the epoch.
        kind: `"image"` or `"video"`.
        frames: each (3, H, W) uint8, one for an image; H and W are whole patches.
        caption: empty where none is wanted.
        crop: (3, h, w) uint8, the picture after crop and flip, where it is asked for: not resized, but divided by a
            whole number where it is at least four times as high and as wide as the frame.
    """

    key: str
    draw_key: str
    kind: str
    frames: Sequence[np.ndarray]
    caption: str = ""
    crop: np.ndarray | None = None


@dataclass(frozen=True)
class SampleMaker:
    """Plans samples from rows and makes them.

    Args:
        data: resolution, number of frames, budget of a pack.
        patch_size: side of a patch in pixels.
        resample: Pillow's filter for resizing.
        is_random: False takes the whole image, unflipped, the longer side clamped and not drawn, and the first caption
            of the likeliest column: for evaluation.
        keep_crops: whether samples carry their crop.
    """

    data: DataRecipe
    patch_size: int
    resample: int = BICUBIC
    is_random: bool = True
    keep_crops: bool = False

    def plan(self, source: Source, row: dict[str, Any], *, key: str, draw_key: str) -> Plan:
        """Return the plan for a row. An image is not decoded, a clip is.

        Raises:
            BadRowError: the row cannot be used.
        """
        kind = source.recipe.kind
        rng = draws(draw_key) if self.is_random else None
        caption = choose_caption(source, row, rng) if source.caption_columns else ""
        values = (row.get(column) for column in source.media_columns)
        value = next((value for value in values if value is not None), None)
        media = find_media(value, kind, root=source.root, is_confined=source.is_confined)
        frames: list[np.ndarray] = []
        if kind == "video":
            frames = _read_clip(media, self.data.num_frames)
        height, width = frames[0].shape[1:] if frames else image_size(media)
        box = draw_box(height, width, self.data.resolution, rng=rng)
        flip = rng is not None and rng.random() < self.data.resolution.flip
        size = self._size(box, draw_key, kind)
        grid = self._grid(size)
        num_tokens = max(1, len(frames)) * grid[0] * grid[1]
        can_shrink = self.is_random and kind == "image" and self.data.resolution.mode == "native"
        least = least_patches(grid, self.data.max_shrink) if can_shrink else num_tokens
        plan = Plan(key, draw_key, kind, caption, (height, width), box, size, flip, num_tokens, least)
        if not frames:
            return replace(plan, media=media)
        notes = () if len(frames) == self.data.num_frames else (f"clip has fewer than {self.data.num_frames} frames",)
        ready = tuple(resize_pixels(cut(frame, box, flip), size, self.resample) for frame in frames)
        return replace(plan, frames=ready, notes=notes)

    def smaller(self, plan: Plan, room: int) -> Plan:
        """Return the plan with as many patches as fit, itself if all of its own do.

        Raises:
            ValueError: if `room` is below its `least_tokens`.
        """
        if room >= plan.num_tokens:
            return plan
        rows, columns = smaller_grid(self._grid(plan.size), room, self.data.max_shrink)
        size = (rows * self.patch_size, columns * self.patch_size)
        return replace(plan, size=size, num_tokens=rows * columns)

    def make(self, plan: Plan) -> Sample:
        """Return the sample of a plan.

        Raises:
            BadRowError: its image cannot be decoded, or has another size than its header says.
        """
        if plan.media is None:
            return Sample(plan.key, plan.draw_key, plan.kind, plan.frames, plan.caption)
        scale = min(plan.box[2] / plan.size[0], plan.box[3] / plan.size[1])
        pixels = decode_image(plan.media, reduction=scale / DRAFT_MARGIN)
        (height, width), (top, left, box_height, box_width), size = plan.image_size, plan.box, plan.size
        if is_turned(pixels.shape[1:], plan.image_size):
            height, width, top, left, box_height, box_width = width, height, left, top, box_width, box_height
            size = (size[1], size[0])
        elif not is_reduced(pixels.shape[1:], plan.image_size):
            raise BadRowError(
                "image has another size than its header says", f"{plan.key}: {pixels.shape[1:]}, {plan.image_size}"
            )
        y, x = pixels.shape[1] / height, pixels.shape[2] / width
        box = (round(top * y), round(left * x), max(1, round(box_height * y)), max(1, round(box_width * x)))
        part = cut(pixels, box, plan.flip)
        frames = (resize_pixels(part, size, self.resample),)
        crop = (
            reduced(part, int(min(part.shape[1] / size[0], part.shape[2] / size[1]) / DRAFT_MARGIN))
            if self.keep_crops
            else None
        )
        return Sample(plan.key, plan.draw_key, plan.kind, frames, plan.caption, crop)

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] // self.patch_size, size[1] // self.patch_size

    def _size(self, box: Box, draw_key: str, kind: str) -> tuple[int, int]:
        resolution = self.data.resolution
        bounds = {"patch_size": self.patch_size, "min_side": resolution.min_side, "max_side": resolution.max_side}
        longer_side = None
        if resolution.mode == "bounded" and self.is_random:
            (longer_side,) = draw_longer_sides(1, seed_of(draw_key, "side"), **bounds)
        return target_size(
            *box[2:],
            resolution=resolution.mode,
            size=(resolution.size, resolution.size),
            max_patches=max_patches_of(self.data, kind),
            longer_side=longer_side,
            **bounds,
        )


def max_patches_of(data: DataRecipe, kind: str) -> int:
    """Return how many patches a frame may have: of clips no more than what leaves room for all frames."""
    if kind == "image":
        return data.resolution.max_patches
    limit = data.frame_max_patches or data.resolution.max_patches
    return max(1, min(limit, data.tokens_per_pack // data.num_frames))


def iterate_samples(
    source: SourceRecipe, data: DataRecipe, *, patch_size: int, num_samples: int, captions: bool = True
) -> Iterator[Sample]:
    """Yield up to `num_samples` samples for evaluation: rows in order, whole images, nothing drawn.

    Rows that cannot be used are left out; how many and why is logged at the end.

    Args:
        source: where the rows are.
        data: resolution, frames and the budget of a pack, which bounds a clip's size; its sources are not read.
        patch_size: side of a patch in pixels.
        num_samples: at most so many.
        captions: whether each needs a caption.
    """
    opened = open_source(source, captions=captions)
    maker = SampleMaker(data, patch_size, is_random=False)
    skipped: Counter[str] = Counter()
    left = num_samples
    for row, name in iterate_rows(opened, shuffled=False):
        if left == 0:
            break
        try:
            if isinstance(row, BadRowError):
                raise row
            key = f"{source.path}/{name}"
            yield maker.make(maker.plan(opened, row, key=key, draw_key=key))
            left -= 1
        except BadRowError as error:
            skipped[error.reason] += 1
    for reason, count in skipped.items():
        logger.warning("%d rows of %s left out: %s", count, source.path, reason)


def _read_clip(media: Media, num_frames: int) -> list[np.ndarray]:
    if not isinstance(media, bytes | Path):
        raise BadRowError("row has no video", f"{media!r:.100}")
    try:
        return read_clip(media, num_frames=num_frames)
    except ClipError as error:
        raise BadRowError(error.reason, str(error)) from error
