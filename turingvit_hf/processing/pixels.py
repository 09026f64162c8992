# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""From whatever a person calls an image to a plain (C, H, W) array, and from that to normalized pixels of a size.

A picture becomes what a person would see: upright (EXIF), first frame, palette resolved, transparency laid over white,
more than 8 bits scaled down to 8 instead of clipped.
"""

import base64
import binascii
import io
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import httpx
from PIL import Image, ImageCms, ImageOps
from transformers.image_utils import ChannelDimension

from turingvit_hf.processing.geometry import patchify


EXIF_ORIENTATION = 0x0112
# modes whose values can be used as they are when no conversion to RGB is asked for
PLAIN_MODES = ("L", "RGB", "RGBA", "I", "F")
# what Pillow's readers raise for damaged files, found by damaging files of each type
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
# normalizing takes three passes; so many values at a time stay in the cache of a core, 256 KB as float32
VALUES_IN_CACHE = 2**16


def flatten_images(images: Any) -> list[Any]:
    """Return the images of any nesting as one flat list: a single image, a batch array, lists, lists per sample.

    Strings and paths are opened. Arrays of two or three dimensions are one image, more are a batch of images.

    Raises:
        ValueError: if there is no image at all, or something is neither an image nor a list.
    """
    flat = list(_leaves(images))
    if not flat:
        raise ValueError("expected at least one image, got none")
    return flat


def open_image(source: str | os.PathLike) -> Image.Image:
    """Return the loaded picture behind a path, an http(s) URL, a `data:image/` URI or a base64 string.

    Its mode is kept: an early conversion to RGB would lose transparency and the depth of 16-bit pictures.

    Raises:
        ValueError: if it cannot be found, fetched or decoded.
    """
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        try:
            file = io.BytesIO(httpx.get(source, follow_redirects=True).raise_for_status().content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ValueError(f"cannot fetch the image {source[:200]!r}: {error}") from error
    elif isinstance(source, os.PathLike) or os.path.isfile(source):
        file = source
    else:
        encoded = source.split(",", 1)[-1] if source.startswith("data:image/") else source
        try:
            file = io.BytesIO(base64.b64decode(encoded, validate=True))
        except binascii.Error as error:
            raise ValueError(f"{source[:200]!r} is no image file, http(s) URL, data URI or base64 string") from error
    try:
        with Image.open(file) as image:
            image.load()
    except DECODING_ERRORS as error:
        raise ValueError(f"cannot read the image {str(source)[:200]!r}: {error}") from error
    return image


def to_pixels(
    image: Image.Image | np.ndarray | torch.Tensor,
    *,
    do_convert_rgb: bool = True,
    input_data_format: str | ChannelDimension | None = None,
) -> np.ndarray:
    """Return one image as an array (C, H, W), uint8 in 0…255 or float32 as it came; with `do_convert_rgb`, C is 3.

    Integers of other widths become 8 bit: `uint16` is taken for the full 16-bit range, wider types for 16 bit only if
    they hold values above 255. The layout of an array is `input_data_format` if given, else read off the dimension
    that has 3 (or else 4, or else 1) entries; where both ends fit equally, channels are taken to come first.

    Raises:
        ValueError: for an empty or damaged image, a wrong number of channels, a mode that needs `do_convert_rgb`, or
            values that are no pixels.
    """
    if isinstance(image, Image.Image):
        image = _upright(_loaded(image))
        if do_convert_rgb:
            return np.moveaxis(_pil_to_rgb(image), -1, 0)
        if image.mode not in PLAIN_MODES and not image.mode.startswith("I;16"):
            raise ValueError(f"an image of mode {image.mode!r} needs do_convert_rgb=True")
        array, input_data_format = np.asarray(image), ChannelDimension.LAST
    elif isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        array = (image.float() if image.is_floating_point() else image).numpy()
    else:
        array = image
    pixels = _channels_first(_to_uint8_or_float32(array), input_data_format)
    _check_not_empty(*pixels.shape[1:])
    return _array_to_rgb(pixels) if do_convert_rgb else pixels


def keep_picture(image: Any) -> Image.Image | None:
    """Return the loaded picture if its RGB values are just what `to_pixels` gives with `do_convert_rgb`, else None.

    Such a picture can be resized as it is. An array of its pixels would only become a picture again for that.

    Raises:
        ValueError: if it is empty or damaged.
    """
    if not isinstance(image, Image.Image):
        return None
    image = _loaded(image)
    is_upright = image.getexif().get(EXIF_ORIENTATION, 1) == 1
    return image if image.mode == "RGB" and "transparency" not in image.info and is_upright else None


def height_and_width(image: Image.Image | np.ndarray) -> tuple[int, int]:
    """Return the sides in pixels of a picture or of (C, H, W) pixels."""
    return (image.height, image.width) if isinstance(image, Image.Image) else image.shape[1:]


def resize_pixels(image: np.ndarray | Image.Image, size: tuple[int, int] | None, resample: int) -> np.ndarray:
    """Return (C, H, W) pixels at `size` = (height, width), same dtype, resampled by Pillow with filter `resample`.

    Floats are resampled as floats and kept inside the range they had, as Pillow keeps bytes inside 0…255.

    Args:
        image: (C, H, W) pixels, uint8 or float32, or a picture in RGB (see `keep_picture`).
        size: None leaves the image at its own.
        resample: a number of `PIL.Image.Resampling`.
    """
    if isinstance(image, Image.Image):
        if size is not None and height_and_width(image) != tuple(size):
            image = image.resize(size[::-1], resample)
        return np.moveaxis(np.asarray(image), -1, 0)
    pixels = image
    if size is None or pixels.shape[1:] == tuple(size):
        return pixels
    height, width = size
    if pixels.dtype == np.uint8 and pixels.shape[0] == 3:
        picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)))
        return resize_pixels(picture, size, resample)
    # band by band: Pillow would weight the bands of an RGBA picture by the last one
    bands = [Image.fromarray(np.ascontiguousarray(band)).resize((width, height), resample) for band in pixels]
    resized = np.stack([np.asarray(band) for band in bands])
    return resized if pixels.dtype == np.uint8 else resized.clip(pixels.min(), pixels.max())


def write_normalized(
    pixels: np.ndarray, scale: np.ndarray, shift: np.ndarray, *, out: np.ndarray, patch_size: int | None = None
) -> None:
    """Write `pixels * scale + shift` into `out`: (C, H, W), or with `patch_size` patches (rows · columns, C · p · p).

    `pixels` is (C, H, W), `scale` and `shift` are (C,); `out` and they are float32. Patches are in the order of
    `geometry.patchify`. Bytes are put in order before they become floats: that moves a quarter of the memory. The
    product is rounded before the sum, wherever and in whatever portions it is computed.
    """
    if patch_size is None:
        for plane, plane_scale, plane_shift, plane_out in zip(pixels, scale, shift, out, strict=True):
            _write_rows(plane, plane_scale, plane_shift, plane_out)
    elif np.ptp(scale) == 0 and np.ptp(shift) == 0:
        _write_rows(patchify(pixels, patch_size), scale[0], shift[0], out)
    else:
        repeats = patch_size**2
        _write_rows(patchify(pixels, patch_size), np.repeat(scale, repeats), np.repeat(shift, repeats), out)


def _write_rows(values: np.ndarray, scale: Any, shift: Any, out: np.ndarray) -> None:
    """Write `values * scale + shift` into `out`, all (rows, columns), so many rows at a time as stay in the cache."""
    num_rows = max(1, VALUES_IN_CACHE // values.shape[1])
    for start in range(0, len(values), num_rows):
        block = out[start : start + num_rows]
        np.copyto(block, values[start : start + num_rows])
        np.multiply(block, scale, out=block)
        np.add(block, shift, out=block)


def _leaves(images: Any) -> Iterator[Any]:
    if isinstance(images, str | os.PathLike):
        yield open_image(images)
    elif isinstance(images, Image.Image):
        yield images
    elif isinstance(images, np.ndarray | torch.Tensor):
        if images.ndim < 2:
            raise ValueError(f"an array of shape {tuple(images.shape)} is no image")
        if images.ndim <= 3:
            yield images
        else:
            for image in images:
                yield from _leaves(image)
    elif isinstance(images, Iterable) and not isinstance(images, bytes | dict):
        for image in images:
            yield from _leaves(image)
    else:
        raise ValueError(f"expected images as PIL, NumPy, torch, paths or URLs, or lists of them, got {type(images)}")


def _check_not_empty(height: int, width: int) -> None:
    if height == 0 or width == 0:
        raise ValueError(f"an image of {height} x {width} pixels (height x width) has nothing in it")


def _loaded(image: Image.Image) -> Image.Image:
    _check_not_empty(image.height, image.width)
    try:
        image.load()
    except DECODING_ERRORS as error:
        raise ValueError(f"cannot read the {image.format} image: {error}") from error
    return image


def _upright(image: Image.Image) -> Image.Image:
    # exif_transpose copies the picture even when there is nothing to turn
    return ImageOps.exif_transpose(image) if image.getexif().get(EXIF_ORIENTATION, 1) != 1 else image


def _pil_to_rgb(image: Image.Image) -> np.ndarray:
    """Return a picture of any mode as (H, W, 3) uint8."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        gray = _float_to_uint8(values) if image.mode == "F" else _integer_to_uint8(values)
        if (transparent := image.info.get("transparency")) is not None:
            gray = np.where(values == transparent, np.uint8(255), gray)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if _has_transparency(image):
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return np.asarray(white)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return np.asarray(ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image))
    return np.asarray(image.convert("RGB"))


def _has_transparency(image: Image.Image) -> bool:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return True
    return image.palette is not None and image.palette.mode.endswith("A")


def _to_uint8_or_float32(array: np.ndarray) -> np.ndarray:
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32, copy=False)
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.integer):
        return _integer_to_uint8(array)
    raise ValueError(f"pixels must be integers, floats or booleans, got an array of {array.dtype}")


def _integer_to_uint8(values: np.ndarray) -> np.ndarray:
    is_16_bit = values.dtype.kind == "u" and values.dtype.itemsize == 2
    lowest, highest = (0, 65535) if is_16_bit or values.size == 0 else (values.min(), values.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(f"integer pixels must lie in 0...255 or 0...65535, got {lowest}...{highest}")
    if highest <= 255:
        return values.astype(np.uint8)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _float_to_uint8(values: np.ndarray) -> np.ndarray:
    """Return the values of a float picture, which may lie in 0…1 or in 0…255, as bytes."""
    lowest, highest = values.min(), values.max()
    if not (lowest >= 0 and highest <= 255):
        raise ValueError(f"the pixels of a mode 'F' image must lie in 0...1 or 0...255, got {lowest}...{highest}")
    return np.rint(values * 255 if highest <= 1 else values).astype(np.uint8)


def _channels_first(array: np.ndarray, data_format: str | ChannelDimension | None) -> np.ndarray:
    if array.ndim == 2:
        return array[None]
    if data_format is None:
        first, last = array.shape[0], array.shape[2]
        preference = next((count for count in (3, 4, 1) if count in (first, last)), None)
        if preference is None:
            raise ValueError(
                f"an array of shape {array.shape} has 1, 3 or 4 channels neither first nor last; "
                "input_data_format='channels_first' or 'channels_last' says where they are"
            )
        data_format = ChannelDimension.FIRST if first == preference else ChannelDimension.LAST
    return np.moveaxis(array, -1, 0) if ChannelDimension(data_format) == ChannelDimension.LAST else array


def _array_to_rgb(pixels: np.ndarray) -> np.ndarray:
    channels = pixels.shape[0]
    if channels == 3:
        return pixels
    if channels == 1:
        return np.repeat(pixels, 3, axis=0)
    if channels != 4:
        raise ValueError(f"expected 1, 3 or 4 channels (gray, RGB, RGBA), got {channels} in an image {pixels.shape}")
    if pixels.dtype == np.uint8:
        picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)))
        return np.moveaxis(_pil_to_rgb(picture), -1, 0)
    white = np.float32(255 if pixels.max() > 1 else 1)
    alpha = pixels[3:] / white
    return pixels[:3] * alpha + white * (1 - alpha)
