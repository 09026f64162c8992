# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""From (C, H, W) pixel arrays to one packed or padded batch, as the image and the video processor both need it.

`options` is a processor's keyword arguments after transformers has filled in the defaults.
"""

from typing import Any

import numpy as np
from PIL import Image
from transformers.image_utils import SizeDict

from turingvit_hf.processing.geometry import draw_longer_sides, target_size
from turingvit_hf.processing.pixels import height_and_width, resize_pixels, write_normalized
from turingvit_hf.processing.threads import map_in_threads


def resized_size(
    image_size: tuple[int, int], options: dict[str, Any], longer_side: int | None = None
) -> tuple[int, int]:
    """Return the (height, width) that the options give an image of (height, width) pixels."""
    size: SizeDict | None = options["size"]
    return target_size(
        *image_size,
        resolution=options["resolution"],
        size=None if size is None else (size["height"], size["width"]),
        patch_size=options["patch_size"],
        merge_size=options["merge_size"],
        min_side=options["min_side"],
        max_side=options["max_side"],
        max_patches=options["max_patches"],
        longer_side=longer_side,
    )


def resized_sizes(image_sizes: list[tuple[int, int]], options: dict[str, Any]) -> list[tuple[int, int]]:
    """Return `resized_size` of each, the longer sides being drawn where the options hold a seed."""
    longer_sides: list[int | None] = [None] * len(image_sizes)
    if options["resolution"] == "bounded" and options["seed"] is not None:
        bounds = {name: options[name] for name in ("patch_size", "merge_size", "min_side", "max_side")}
        longer_sides = [*draw_longer_sides(len(image_sizes), options["seed"], **bounds)]
    return [
        resized_size(*sides) for sides in zip(image_sizes, [options] * len(image_sizes), longer_sides, strict=True)
    ]


def resize_images(
    images: list[np.ndarray | Image.Image], sizes: list[tuple[int, int] | None], resample: int
) -> list[np.ndarray]:
    """Return the (C, H, W) pixels of each image at its (height, width), or at its own where that is None."""
    num_values = 3 * sum(height * width for height, width in map(height_and_width, images))
    return map_in_threads(resize_pixels, images, sizes, [resample] * len(images), num_values=num_values)


def check_images(names: list[str], images: list[np.ndarray], options: dict[str, Any]) -> None:
    """Refuse what no tower can take: sides that are no whole units, unlike channels, non-finite pixels on request.

    Raises:
        ValueError: naming the first such image by its entry in `names`.
    """
    unit = options["patch_size"] * options["merge_size"]
    for name, image in zip(names, images, strict=True):
        channels, height, width = image.shape
        if height % unit or width % unit:
            raise ValueError(
                f"{name} has {height} x {width} pixels, which are no multiples of {unit} (patch_size times "
                "merge_size); do_resize=True rounds them"
            )
        if channels != images[0].shape[0]:
            raise ValueError(f"{name} has {channels} channels, {names[0]} has {images[0].shape[0]}")
        if options["check_finite"] and image.dtype != np.uint8 and not np.isfinite(image).all():
            raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(image))} non-finite pixel values")


def scale_and_shift(channels: int, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the float32 (C,) scale and shift with x·scale + shift = (x·rescale_factor - mean) / std.

    Raises:
        ValueError: if the mean or the standard deviation has neither one value nor one per channel.
    """
    factor = options["rescale_factor"] if options["do_rescale"] else 1.0
    mean = np.atleast_1d(options["image_mean"] if options["do_normalize"] else 0.0).astype(np.float64)
    std = np.atleast_1d(options["image_std"] if options["do_normalize"] else 1.0).astype(np.float64)
    for name, values in (("image_mean", mean), ("image_std", std)):
        if len(values) not in (1, channels):
            raise ValueError(f"{name} has {len(values)} values for images of {channels} channels")
    scale, shift = np.broadcast_to(factor / std, channels), np.broadcast_to(-mean / std, channels)
    return scale.astype(np.float32), shift.astype(np.float32)


def pack(clips: list[list[np.ndarray]], options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return all patches one after the other, frame after frame, and a grid row (frames, rows, columns) per clip.

    Each clip is a list of frames (C, H, W) of one size; an image is a clip of one frame. The grids come first: Trainer
    takes the batch size from the first tensor it finds, and there it is the number of clips.
    """
    patch_size, channels = options["patch_size"], clips[0][0].shape[0]
    scale, shift = scale_and_shift(channels, options)
    grid = [(len(clip), clip[0].shape[1] // patch_size, clip[0].shape[2] // patch_size) for clip in clips]
    num_patches = sum(frames * rows * columns for frames, rows, columns in grid)
    patches = np.empty((num_patches, channels * patch_size**2), dtype=np.float32)
    frames = [frame for clip in clips for frame in clip]
    ends = np.cumsum([frame[0].size // patch_size**2 for frame in frames])
    parts = np.split(patches, ends[:-1])
    map_in_threads(
        lambda frame, part: write_normalized(frame, scale, shift, out=part, patch_size=patch_size),
        frames,
        parts,
        num_values=patches.size,
    )
    return {"image_grid_thw": np.array(grid, dtype=np.int64), "pixel_values": patches}


def stack(images: list[np.ndarray], options: dict[str, Any], *, with_sizes: bool) -> dict[str, np.ndarray]:
    """Return one (B, C, Hmax, Wmax) batch, zero where an image does not reach, and its true sizes if asked for."""
    channels = images[0].shape[0]
    scale, shift = scale_and_shift(channels, options)
    sizes = np.array([image.shape[1:] for image in images], dtype=np.int64)
    batch = np.zeros((len(images), channels, *sizes.max(axis=0)), dtype=np.float32)
    parts = [out[:, :height, :width] for out, (height, width) in zip(batch, sizes, strict=True)]
    map_in_threads(
        lambda image, part: write_normalized(image, scale, shift, out=part), images, parts, num_values=batch.size
    )
    return {"pixel_values": batch, "image_sizes": sizes} if with_sizes else {"pixel_values": batch}
