# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Sizes, patches and frame choice as plain arithmetic: how many pixels an image gets, and where each of them goes.

All sizes are (height, width) in pixels. A grid is counted in patches. A side is always a whole number of units, where
a unit is `patch_size * merge_size` pixels: a consumer that pools `merge_size`² tokens into one never meets a rest.
Everything is exact integer arithmetic: no side depends on how a floating-point number happened to round.
"""

from math import isqrt
from typing import Any, TypeVar

import numpy as np
import torch


RESOLUTIONS = ("native", "bounded", "fixed")

ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, torch.Tensor)


def native_size(
    height: int, width: int, *, patch_size: int = 16, merge_size: int = 1, max_patches: int = 9216
) -> tuple[int, int]:
    """Return the (height, width) an image is resized to when it keeps its own resolution and aspect ratio.

    Each side is rounded to the nearest whole unit, at least one. Only an image of more than `max_patches` patches is
    shrunk: both sides by the square root of the excess, rounded down, so that rows · columns <= `max_patches` holds
    for every input. Both sides stay within one unit of a common multiple of the original sides.

    Raises:
        ValueError: if a side is below one pixel or `max_patches` has no room for one unit.
    """
    unit = _unit(patch_size, merge_size)
    _check_image(height, width)
    rows = _round_to_units(height, unit)
    columns = _round_to_units(width, unit)
    rows, columns = _within_budget(rows, columns, (height, width), _budget(max_patches, merge_size))
    return rows * unit, columns * unit


def bounded_size(
    height: int,
    width: int,
    *,
    patch_size: int = 16,
    merge_size: int = 1,
    min_side: int = 256,
    max_side: int = 512,
    max_patches: int = 9216,
    longer_side: int | None = None,
) -> tuple[int, int]:
    """Return the (height, width) whose longer side lies in [`min_side`, `max_side`], with the aspect ratio kept.

    The longer side is `longer_side` where one was drawn (`draw_longer_sides`), else the image's own, either of them
    rounded to a unit and clamped. The shorter side follows by the aspect ratio, at least one unit. `max_patches` is a
    ceiling on memory and wins over `min_side`.

    Raises:
        ValueError: if a side is below one pixel, no multiple of a unit lies in [`min_side`, `max_side`], or
            `max_patches` has no room for one unit.
    """
    unit = _unit(patch_size, merge_size)
    _check_image(height, width)
    fewest, most = _bounds_in_units(unit, min_side, max_side)
    longer, shorter = max(height, width), min(height, width)
    long_units = min(max(_round_to_units(longer if longer_side is None else longer_side, unit), fewest), most)
    short_units = max(1, _divide_rounded(long_units * shorter, longer))
    rows, columns = (long_units, short_units) if height >= width else (short_units, long_units)
    rows, columns = _within_budget(rows, columns, (height, width), _budget(max_patches, merge_size))
    return rows * unit, columns * unit


def fixed_size(height: int, width: int, *, patch_size: int = 16, merge_size: int = 1) -> tuple[int, int]:
    """Return the given (height, width) after checking that it is whole units: a size asked for is not rounded.

    Raises:
        ValueError: if a side is not a positive multiple of `patch_size * merge_size`.
    """
    unit = _unit(patch_size, merge_size)
    if height < unit or width < unit or height % unit or width % unit:
        raise ValueError(
            f"a fixed size of {height} x {width} pixels does not divide into patches: both sides must be positive "
            f"multiples of {unit} ({patch_size=} times {merge_size=})"
        )
    return height, width


def target_size(
    height: int,
    width: int,
    *,
    resolution: str = "native",
    size: tuple[int, int] | None = None,
    patch_size: int = 16,
    merge_size: int = 1,
    min_side: int = 256,
    max_side: int = 512,
    max_patches: int = 9216,
    longer_side: int | None = None,
) -> tuple[int, int]:
    """Return the (height, width) an image is resized to under `resolution`, one of `RESOLUTIONS`.

    `"native"` is `native_size`, `"bounded"` is `bounded_size`, `"fixed"` is `fixed_size` of `size`; arguments of the
    other modes are ignored.

    Raises:
        ValueError: for an unknown `resolution`, a missing `size`, or what the mode's own function refuses.
    """
    if resolution == "native":
        return native_size(height, width, patch_size=patch_size, merge_size=merge_size, max_patches=max_patches)
    if resolution == "bounded":
        return bounded_size(
            height,
            width,
            patch_size=patch_size,
            merge_size=merge_size,
            min_side=min_side,
            max_side=max_side,
            max_patches=max_patches,
            longer_side=longer_side,
        )
    if resolution == "fixed":
        _check_image(height, width)
        if size is None:
            raise ValueError("resolution='fixed' needs size=(height, width)")
        return fixed_size(*size, patch_size=patch_size, merge_size=merge_size)
    raise ValueError(f"unknown {resolution=}; expected one of {RESOLUTIONS}")


def draw_longer_sides(
    num_images: int,
    seed: int,
    *,
    patch_size: int = 16,
    merge_size: int = 1,
    min_side: int = 256,
    max_side: int = 512,
) -> list[int]:
    """Return one longer side in pixels per image, drawn evenly from the whole units in [`min_side`, `max_side`].

    The same seed gives the same sides, on every platform and in every worker process.
    """
    unit = _unit(patch_size, merge_size)
    fewest, most = _bounds_in_units(unit, min_side, max_side)
    units = np.random.default_rng(seed).integers(fewest, most, size=num_images, endpoint=True)
    return [int(count) * unit for count in units]


def patchify(image: ArrayOrTensor, patch_size: int) -> ArrayOrTensor:
    """Return the patches of an image, (C, H, W) -> (rows · columns, C · p · p), row-major and flattened channel first.

    Takes a NumPy array or a torch tensor and gives back the same kind and dtype.

    Raises:
        ValueError: if the image is not (C, H, W) or a side is not a multiple of `patch_size`.
    """
    if image.ndim != 3 or 0 in image.shape or image.shape[1] % patch_size or image.shape[2] % patch_size:
        raise ValueError(
            f"expected (C, H, W) with sides that are multiples of {patch_size=}, got {tuple(image.shape)}"
        )
    channels, height, width = image.shape
    rows, columns = height // patch_size, width // patch_size
    blocks: Any = image.reshape(channels, rows, patch_size, columns, patch_size)
    # swapaxes is the one spelling that NumPy and torch share: (C, rows, p, columns, p) -> (rows, columns, C, p, p)
    return blocks.swapaxes(0, 1).swapaxes(1, 3).swapaxes(2, 3).reshape(rows * columns, channels * patch_size**2)


def unpatchify(patches: ArrayOrTensor, grid: tuple[int, int], patch_size: int) -> ArrayOrTensor:
    """Return the image that `patchify` cut up, (rows · columns, C · p · p) -> (C, H, W); `grid` is (rows, columns).

    Raises:
        ValueError: if the patches do not fill the grid or a patch is not a whole number of channels.
    """
    rows, columns = grid
    if patches.ndim != 2 or patches.shape[0] != rows * columns or patches.shape[1] % patch_size**2:
        raise ValueError(
            f"a grid of {rows} x {columns} needs patches of shape ({rows * columns}, C * {patch_size**2}), "
            f"got {tuple(patches.shape)}"
        )
    blocks: Any = patches.reshape(rows, columns, -1, patch_size, patch_size)
    channels = blocks.shape[2]
    blocks = blocks.swapaxes(2, 3).swapaxes(1, 3).swapaxes(0, 1)
    return blocks.reshape(channels, rows * patch_size, columns * patch_size)


def uniform_frame_indices(
    total_frames: int,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    source_fps: float | None = None,
) -> list[int]:
    """Return the frames to keep, ascending and without repeats: the middle one of equal stretches of the video.

    `num_frames` asks for that many, `fps` for that many a second of a video recorded at `source_fps`; without either
    all are kept. A shorter video gives all it has: a frame encoded twice costs time and adds nothing.

    Raises:
        ValueError: if there is no frame, both ways are given, a count or rate is not positive, or `fps` comes without
            `source_fps`.
    """
    if total_frames < 1:
        raise ValueError(f"a video needs at least one frame, got {total_frames=}")
    if num_frames is not None and fps is not None:
        raise ValueError(f"{num_frames=} and {fps=} are two ways to say how many frames: give one of them")
    if fps is not None:
        if source_fps is None or source_fps <= 0 or fps <= 0:
            raise ValueError(f"{fps=} needs a positive rate and the video's own positive rate, got {source_fps=}")
        num_frames = max(1, round(total_frames / source_fps * fps))
    if num_frames is None:
        num_frames = total_frames
    if num_frames < 1:
        raise ValueError(f"expected at least one frame, got {num_frames=}")
    num_frames = min(num_frames, total_frames)
    return [(2 * index + 1) * total_frames // (2 * num_frames) for index in range(num_frames)]


def _unit(patch_size: int, merge_size: int) -> int:
    if patch_size < 1 or merge_size < 1:
        raise ValueError(f"patch_size and merge_size must be at least 1, got {patch_size=} and {merge_size=}")
    return patch_size * merge_size


def _check_image(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height} x {width} pixels (height x width) has nothing in it")


def _budget(max_patches: int, merge_size: int) -> int:
    units = max_patches // merge_size**2
    if units < 1:
        raise ValueError(f"{max_patches=} has no room for one unit of {merge_size} x {merge_size} patches")
    return units


def _bounds_in_units(unit: int, min_side: int, max_side: int) -> tuple[int, int]:
    fewest, most = max(1, -(-min_side // unit)), max_side // unit
    if fewest > most:
        raise ValueError(f"no multiple of {unit} pixels lies between {min_side=} and {max_side=}")
    return fewest, most


def _divide_rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def _round_to_units(pixels: int, unit: int) -> int:
    return max(1, _divide_rounded(pixels, unit))


def _within_budget(rows: int, columns: int, aspect: tuple[int, int], budget: int) -> tuple[int, int]:
    """Return the grid, shrunk to at most `budget` units if it has more; `aspect` is (height, width) in any measure."""
    if rows * columns <= budget:
        return rows, columns
    height, width = aspect
    # floor(sqrt(budget · h/w)) · floor(sqrt(budget · w/h)) <= budget, exactly; a side that came out as 0 becomes 1,
    # then the other one alone has to respect the budget. `rows` and `columns` bound it too, for the case that rounding
    # up alone broke the budget: shrinking must not enlarge the other side.
    return (
        min(rows, budget, max(1, isqrt(budget * height // width))),
        min(columns, budget, max(1, isqrt(budget * width // height))),
    )
