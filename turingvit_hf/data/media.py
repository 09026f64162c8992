# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Images as rows hold them: found, measured by their header, decoded; what cannot be used is a `BadRowError`."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from turingvit_hf.data.rows import ShapesPicture
from turingvit_hf.errors import BadRowError
from turingvit_hf.processing.pixels import DECODING_ERRORS, EXIF_ORIENTATION, to_pixels


# where Pillow begins to warn of decompression bombs; decoded, such an image takes 268 MB
MAX_PIXELS = 89_478_485
# a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves so many times the pixels wanted, on each side
DRAFT_MARGIN = 2
# Pillow's names of formats that can be decoded so
DRAFTABLE = ("JPEG", "MPO")
# the entries of EXIF_ORIENTATION with which height and width change places
QUARTER_TURNS = (5, 6, 7, 8)

Media = bytes | Path | Image.Image | ShapesPicture


def find_media(value: Any, kind: str, *, root: Path | None, is_confined: bool) -> Media:
    """Return what a row's media column holds: bytes, the path of a file that exists, or a picture.

    Args:
        value: a path, absolute or relative to `root`; bytes; a picture; or a dict with `bytes` or `path` as `datasets`
            has it.
        kind: `"image"` or `"video"`, for messages.
        root: where relative paths start.
        is_confined: whether a path must stay inside `root`.

    Raises:
        BadRowError: there is nothing, no such file, or the path leads out of `root`.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, Image.Image | ShapesPicture | bytes):
        if value == b"":
            raise BadRowError(f"{kind} is empty")
        return value
    if not isinstance(value, str) or not value:
        raise BadRowError(f"row has no {kind}", f"{value!r:.100}")
    path = Path(value)
    try:
        path = path.expanduser() if path.parts[:1] == ("~",) else path
        path = root / path if root is not None else path
        if is_confined and root is not None and not path.resolve().is_relative_to(root.resolve()):
            raise BadRowError("file lies outside the folder of its source", str(path))
        if not path.is_file():
            raise BadRowError("file is missing", str(path))
        if path.stat().st_size == 0:
            raise BadRowError(f"{kind} is empty", str(path))
    except BadRowError:
        raise
    except (OSError, ValueError) as error:  # too long, or with characters that no name has
        raise BadRowError("file is missing", f"{value!r:.100}: {error}") from error
    return path


def image_size(media: Media) -> tuple[int, int]:
    """Return the (height, width) of an image when upright, from its header alone.

    A PNG that hides its orientation behind its pixels is taken for upright; `decode_image` may turn out turned.

    Raises:
        BadRowError: it is no image, or has more than `MAX_PIXELS` pixels and cannot be decoded at a smaller size.
    """
    if isinstance(media, ShapesPicture):
        return media.size[1], media.size[0]
    with _opened(media) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS and picture.format not in DRAFTABLE:
            raise BadRowError(f"image is larger than {MAX_PIXELS} pixels", f"{width} x {height}, {media!r:.100}")
        # getexif() of a PNG without such an entry would decode all of it to look behind its pixels
        has_exif = picture.format != "PNG" or "exif" in picture.info
        if has_exif and picture.getexif().get(EXIF_ORIENTATION, 1) in QUARTER_TURNS:
            width, height = height, width
    if not height or not width:
        raise BadRowError("image is empty", f"{width} x {height}")
    return height, width


def decode_image(media: Media, *, reduction: float = 1.0) -> np.ndarray:
    """Return an image as (3, H, W) uint8, upright, on white, the first frame of an animation.

    Args:
        media: what `find_media` returned.
        reduction: how many times smaller each side may be at most; only a JPEG makes use of it, being decoded at 1/2,
            1/4 or 1/8 of its size.

    Raises:
        BadRowError: it cannot be decoded, or has more than `MAX_PIXELS` pixels even so.
    """
    if isinstance(media, ShapesPicture):
        return to_pixels(media.render())
    with _opened(media) as picture:
        width, height = picture.size
        if reduction >= 2:
            picture.draft("RGB", (int(width / reduction) + 1, int(height / reduction) + 1))
        if picture.width * picture.height > MAX_PIXELS:
            raise BadRowError(f"image is larger than {MAX_PIXELS} pixels", f"{width} x {height}, {media!r:.100}")
        return to_pixels(picture)


@contextmanager
def _opened(media: bytes | Path | Image.Image) -> Iterator[Image.Image]:
    """The picture, closed afterwards if it was opened here. Pillow's complaints about it become one `BadRowError`."""
    with warnings.catch_warnings():
        # of odd metadata and of large pictures, which are judged here
        warnings.simplefilter("ignore")
        try:
            if isinstance(media, Image.Image):
                yield media
            else:
                with Image.open(io.BytesIO(media) if isinstance(media, bytes) else media) as picture:
                    yield picture
        except BadRowError:
            raise
        except Image.DecompressionBombError as error:
            raise BadRowError(f"image is larger than {MAX_PIXELS} pixels", str(error)) from error
        except DECODING_ERRORS as error:
            name = f"{len(media)} bytes" if isinstance(media, bytes) else str(media)
            # Pillow's own text of this names an object by its address, another one in each process
            is_unknown = isinstance(error, UnidentifiedImageError)
            why = "it is no picture that Pillow knows" if is_unknown else error
            raise BadRowError("image cannot be read", f"{name}: {why}") from error
