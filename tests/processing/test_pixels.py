# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Whatever a person calls an image shows what that person sees: every mode, file type, depth, layout and nesting."""

import base64
import contextlib
import http.server
import threading
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from turingvit_hf.processing.pixels import flatten_images, open_image, resize_pixels, to_pixels


MODES = (
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "LA",
    "La",
    "PA",
    "P",
    "L",
    "1",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I;16",
    "I",
    "F",
)


def gradient(height=20, width=28):
    """A smooth color picture, so that neither JPEG nor palettes move a pixel far."""
    down, across = np.mgrid[0:height, 0:width]
    picture = np.stack([down * 255 / (height - 1), across * 255 / (width - 1), np.full((height, width), 90)], axis=-1)
    return picture.astype(np.uint8)


def in_mode(mode):
    """The gradient as a picture of `mode`, and the (H, W, 3) a person sees in it."""
    rgb = Image.fromarray(gradient())
    gray = np.asarray(rgb.convert("L"))
    gray_rgb = np.repeat(gray[:, :, None], 3, axis=2)
    if mode in ("RGBA", "RGBX", "RGBa", "LA", "La", "PA"):
        # opaque here; transparency has its own tests
        image = {"La": rgb.convert("LA"), "RGBa": rgb.convert("RGBA")}.get(mode, rgb).convert(mode)
        return image, np.asarray(image.convert("RGBA").convert("RGB")) if mode == "PA" else (
            gray_rgb if mode in ("LA", "La") else np.asarray(rgb)
        )
    if mode == "LAB":
        return Image.merge("LAB", [Image.new("L", rgb.size, value) for value in (255, 128, 128)]), np.full_like(
            gray_rgb, 255
        )
    if mode == "I;16":
        return Image.fromarray(gray.astype(np.uint16) * 257), gray_rgb
    if mode in ("L", "I", "F"):
        return rgb.convert("L").convert(mode), gray_rgb
    image = rgb.convert(mode)
    return image, np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_what_a_person_sees(mode):
    image, seen = in_mode(mode)
    assert image.mode == mode
    pixels = to_pixels(image)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 20, 28)
    assert np.abs(np.moveaxis(pixels, 0, -1).astype(int) - seen).max() <= 2


def transparent_pictures():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, :2] = (200, 0, 0, 255)  # left half red, right half transparent black
    picture = Image.fromarray(rgba)
    palette = picture.convert("P", palette=Image.Palette.ADAPTIVE)
    with_alpha = picture.convert("RGB").convert("P").convert("PA")
    with_alpha.putalpha(picture.getchannel("A"))
    gray = Image.fromarray(rgba[:, :, 0])
    deep = Image.fromarray(rgba[:, :, 0].astype(np.uint16) * 257)
    return {
        "RGBA": picture,
        "RGBa": picture.convert("RGBa"),
        "LA": picture.convert("LA"),
        "La": picture.convert("LA").convert("La"),
        "PA": with_alpha,
        "P": palette,
        "L": gray,
        "RGB": picture.convert("RGB"),
        "1": gray.convert("1"),
        "I;16": deep,
    }


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA"])
def test_alpha_is_laid_over_white(mode):
    pixels = to_pixels(transparent_pictures()[mode])
    assert (pixels[:, :, 2:] == 255).all()
    assert pixels[1:, :, :2].max() < 120


def test_a_picture_that_cannot_be_fetched_is_a_value_error():
    # nothing answers on port 9 of this machine; the second has no such port at all
    for url in ("http://127.0.0.1:9/picture.png", "http://127.0.0.1:99999/picture.png"):
        with pytest.raises(ValueError, match=f"cannot fetch the image '{url}'"):
            open_image(url)


@pytest.mark.parametrize(
    ("mode", "transparency"), [("P", "index"), ("L", 0), ("RGB", (0, 0, 0)), ("1", 0), ("I;16", 0)], ids=str
)
def test_a_transparent_color_is_laid_over_white(mode, transparency, tmp_path):
    picture = transparent_pictures()[mode]
    if transparency == "index":
        transparency = picture.getpixel((3, 3))
    picture.save(tmp_path / "picture.png", transparency=transparency)
    pixels = to_pixels(open_image(tmp_path / "picture.png"))
    assert (pixels[:, :, 2:] == 255).all()
    if mode != "1":
        assert pixels[1:, :, :2].max() in (0, 200)


def test_half_transparent_is_mixed_with_white_the_same_way_everywhere():
    rgba = np.full((6, 7, 4), (0, 100, 200, 128), np.uint8)
    expected = np.array([127, 177, 227])
    for image in (Image.fromarray(rgba), rgba, rgba.transpose(2, 0, 1), torch.from_numpy(rgba)):
        pixels = to_pixels(image)
        assert pixels.dtype == np.uint8
        assert np.abs(pixels[:, 0, 0].astype(int) - expected).max() <= 1
    for scale in (1, 255):
        mixed = to_pixels((rgba / 255 * scale).astype(np.float32))
        np.testing.assert_allclose(mixed[:, 0, 0] / scale * 255, expected, atol=1)


FILE_TYPES = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "GIF": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "TIFF": {},
    "PPM": {},
    "ICO": {"sizes": [(28, 20)]},
    "TGA": {},
    "JPEG2000": {},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_every_file_type(file_type, tmp_path):
    Image.init()
    if file_type not in Image.SAVE:
        pytest.skip(f"this Pillow was built without {file_type}")
    path = tmp_path / f"picture.{file_type.lower()}"
    Image.fromarray(gradient()).save(path, format=file_type, **FILE_TYPES[file_type])
    pixels = to_pixels(open_image(path)).astype(int)
    assert pixels.shape == (3, 20, 28)
    assert np.abs(np.moveaxis(pixels, 0, -1) - gradient()).mean() < 6


def test_sixteen_bit_png_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 20 * 28).reshape(20, 28).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    expected = np.rint(values / 257)
    for image in (open_image(tmp_path / "deep.png"), values, values.astype(np.int64), values.astype(">u2")):
        pixels = to_pixels(image)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, np.broadcast_to(expected, (3, 20, 28)))


def test_cmyk_jpeg(tmp_path):
    Image.fromarray(gradient()).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    image = open_image(tmp_path / "print.jpg")
    assert image.mode == "CMYK"
    assert np.abs(np.moveaxis(to_pixels(image), 0, -1).astype(int) - gradient()).mean() < 6


@pytest.mark.parametrize("file_type", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(file_type, orientation, tmp_path):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # white in the upper left corner only
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.img"
    Image.fromarray(np.ascontiguousarray(turn(upright))).save(path, format=file_type, exif=exif)
    for image in (open_image(path), Image.open(path)):
        pixels = to_pixels(image)
        assert pixels.shape == (3, 16, 32)
        assert np.abs(pixels.astype(int) - np.moveaxis(upright, -1, 0)).mean() < 5
        image.close()


def test_animated_gif_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(to_pixels(open_image(tmp_path / "film.gif"))[:, 0, 0], (255, 0, 0))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_layouts_of_arrays(channels, as_tensor):
    last = np.random.default_rng(0).integers(0, 256, (10, 12, channels), dtype=np.uint8)
    first = np.ascontiguousarray(np.moveaxis(last, -1, 0))
    arrays = [last, first] + ([last[:, :, 0]] if channels == 1 else [])
    expected = to_pixels(Image.fromarray(last.squeeze()))
    for array in arrays:
        np.testing.assert_array_equal(to_pixels(torch.from_numpy(array) if as_tensor else array), expected)


def test_tiny_arrays_have_their_channels_where_three_of_them_are():
    assert to_pixels(np.zeros((1, 1, 3), np.uint8)).shape == (3, 1, 1)
    assert to_pixels(np.zeros((3, 1, 1), np.uint8)).shape == (3, 1, 1)
    assert to_pixels(np.zeros((4, 5, 3), np.uint8)).shape == (3, 4, 5)
    assert to_pixels(np.zeros((1, 1), np.uint8)).shape == (3, 1, 1)
    assert to_pixels(np.zeros((3, 5, 3), np.uint8)).shape == (3, 5, 3)
    assert to_pixels(np.zeros((3, 5, 3), np.uint8), input_data_format="channels_last").shape == (3, 3, 5)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.int64, torch.uint8]
)
def test_dtypes_of_tensors(dtype):
    tensor = torch.ones(3, 4, 5, dtype=dtype).requires_grad_(dtype.is_floating_point)
    pixels = to_pixels(tensor)
    assert pixels.dtype == (np.float32 if dtype.is_floating_point else np.uint8)
    assert (pixels == (255 if dtype == torch.bool else 1)).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 8, 9), np.uint8), r"\(5, 8, 9\)"),
        (np.zeros((8, 9, 2), np.uint8), r"\(8, 9, 2\)"),
        (np.zeros((0, 9, 3), np.uint8), "0 x 9"),
        (np.zeros((0, 0), np.uint8), "0 x 0"),
        (Image.new("RGB", (0, 7)), "7 x 0"),
        (np.full((4, 4, 3), -1), "-1"),
        (np.full((4, 4, 3), 70_000), "70000"),
        (np.zeros((4, 4, 3), complex), "complex128"),
        (np.full((4, 4), "a"), "<U1"),
        (Image.fromarray(np.full((4, 4), 300, np.float32)), "300"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "nan"),
        (Image.fromarray(np.full((4, 4), -5, np.int32)), "-5"),
    ],
)
def test_what_is_no_image_is_refused_by_its_value(image, message):
    with pytest.raises(ValueError, match=message):
        to_pixels(image)


def test_wrong_channels_with_a_given_layout():
    with pytest.raises(ValueError, match="got 5"):
        to_pixels(np.zeros((8, 9, 5), np.uint8), input_data_format="channels_last")
    assert to_pixels(np.zeros((8, 9, 5), np.uint8), input_data_format="channels_last", do_convert_rgb=False).shape == (
        5,
        8,
        9,
    )


def test_without_conversion_plain_modes_keep_their_bands_and_others_are_refused():
    assert to_pixels(in_mode("L")[0], do_convert_rgb=False).shape == (1, 20, 28)
    assert to_pixels(in_mode("I;16")[0], do_convert_rgb=False).dtype == np.uint8
    assert to_pixels(in_mode("RGBA")[0], do_convert_rgb=False).shape == (4, 20, 28)
    assert to_pixels(in_mode("F")[0], do_convert_rgb=False).dtype == np.float32
    with pytest.raises(ValueError, match="'P' needs do_convert_rgb"):
        to_pixels(in_mode("P")[0], do_convert_rgb=False)


def test_nesting_comes_out_flat_and_in_order():
    one, two = np.zeros((4, 5), np.uint8), np.zeros((6, 7, 3), np.uint8)
    batch = np.zeros((2, 3, 8, 9), np.uint8)
    images = flatten_images([one, [two, [], (batch,)], torch.zeros(2, 2, 3, 4, 4)])
    assert [tuple(image.shape) for image in images] == [(4, 5), (6, 7, 3)] + [(3, 8, 9)] * 2 + [(3, 4, 4)] * 4
    assert len(flatten_images(one)) == 1
    assert len(flatten_images(image for image in [one, two])) == 2


@pytest.mark.parametrize("images", [[], [[]], (), np.zeros((0, 3, 4, 4))], ids=str)
def test_no_images_are_refused(images):
    with pytest.raises(ValueError, match="at least one image"):
        flatten_images(images)


@pytest.mark.parametrize("images", [5, None, [None], b"raw", {"image": 1}, [[1, 2], [3, 4]], np.zeros(3)], ids=repr)
def test_what_is_no_list_of_images_is_refused(images):
    with pytest.raises(ValueError, match=r"expected images|is no image"):
        flatten_images(images)


def test_sources_of_images(tmp_path):
    path = tmp_path / "picture.png"
    rgba = np.dstack([gradient(), np.full((20, 28), 128, np.uint8)])
    Image.fromarray(rgba).save(path)
    expected = to_pixels(Image.fromarray(rgba))
    encoded = base64.b64encode(path.read_bytes()).decode()

    handler = partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/picture.png"
        for source in (path, str(path), encoded, f"data:image/png;base64,{encoded}", url):
            np.testing.assert_array_equal(to_pixels(open_image(source)), expected)
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word on standard error."""

    def log_message(self, *args):
        """Say nothing."""


def test_sources_that_hold_no_image(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    cut = tmp_path / "cut.png"
    Image.fromarray(gradient(200, 200)).save(cut)
    cut.write_bytes(cut.read_bytes()[:-300])
    for path in (text, cut, tmp_path / "missing.png"):
        with pytest.raises(ValueError, match=f"cannot read the image .*{path.name}"):
            open_image(path)
    with Image.open(cut) as lazy, pytest.raises(ValueError, match="cannot read the PNG image"):
        to_pixels(lazy)
    for source in ("no/such/file.png", "data:image/png;base64,%%%"):
        with pytest.raises(ValueError, match="is no image file"):
            open_image(source)
    with pytest.raises(ValueError, match="cannot read the image"):
        open_image(base64.b64encode(b"no picture").decode())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resizing_treats_bands_alike_and_keeps_the_range(dtype, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 30, 40), dtype=np.uint8).astype(dtype)
    if channels == 4:
        pixels[3] = 0  # what Pillow would take for transparency
    resized = resize_pixels(pixels, (17, 61), Image.Resampling.BICUBIC)
    assert resized.shape == (channels, 17, 61)
    assert resized.dtype == dtype
    assert pixels.min() <= resized.min()
    assert resized.max() <= pixels.max()
    for band, result in zip(pixels, resized, strict=True):
        alone = np.asarray(Image.fromarray(band).resize((61, 17), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(result, alone.clip(pixels.min(), pixels.max()), atol=1e-3)
    assert resize_pixels(pixels, (30, 40), Image.Resampling.BICUBIC) is pixels


def test_resizing_floats_agrees_with_bytes():
    pixels = np.moveaxis(gradient(60, 80), -1, 0)
    as_bytes = resize_pixels(pixels, (32, 48), Image.Resampling.BICUBIC)
    as_floats = resize_pixels(pixels.astype(np.float32), (32, 48), Image.Resampling.BICUBIC)
    assert np.abs(as_bytes - as_floats).max() <= 1.01


@pytest.mark.filterwarnings("ignore:::PIL")  # Pillow's remarks on the damage
@pytest.mark.parametrize("file_type", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA"])
def test_damaged_files_open_or_are_refused(file_type, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # damage may claim any size: do not allocate it
    path, rng = tmp_path / "damaged", np.random.default_rng(0)
    Image.fromarray(gradient()).save(path, format=file_type)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        damaged = whole.copy()
        damaged[rng.integers(0, min(len(whole), 120), 6)] = rng.integers(0, 256, 6)
        path.write_bytes(damaged.tobytes())
        with contextlib.suppress(ValueError):  # the one way to refuse
            assert to_pixels(open_image(path)).ndim == 3


def test_a_picture_too_large_to_be_meant_is_refused(tmp_path, monkeypatch):
    Image.new("1", (300, 300)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="decompression bomb"):
        open_image(tmp_path / "bomb.png")
