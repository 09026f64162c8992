# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Both processors, bit for bit, against a plain reference: one picture after the other, whole arrays, one thread."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from tests.processes import PATIENCE
from turingvit_hf import TuringViTImageProcessor, TuringViTVideoProcessor
from turingvit_hf.processing import pixels, threads


ODD_SIZES = [(16, 16), (17, 250), (301, 97), (1, 40), (333, 512), (640, 479)]
NORMALIZATIONS = {
    "one mean": {},
    "a mean for each channel": {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]},
    "a mean, one deviation": {"image_mean": [0.4, 0.5, 0.6], "image_std": 0.25},
    "rescaled only": {"do_normalize": False},
    "normalized only": {"do_rescale": False, "image_mean": 127.0, "image_std": [50.0]},
}


@pytest.fixture
def torch_threads(request, monkeypatch):
    """So many threads of torch, and no batch too small for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(threads, "LEAST_VALUES", 0)
    yield request.param
    torch.set_num_threads(before)


def photo(height, width, seed=0):
    """Smooth colors and noise, RGB."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def plain_patches(picture, size, options):
    """Resized by Pillow, as float32 times a scale and plus a shift, each rounded to float32, cut into patches."""
    patch, (height, width) = options.get("patch_size", 16), size
    if picture.size != (width, height):
        picture = picture.resize((width, height), options.get("resample", Image.Resampling.BICUBIC))
    values = np.asarray(picture).astype(np.float32)
    factor = 1 / 255 if options.get("do_rescale", True) else 1.0
    mean, std = np.array(options.get("image_mean", 0.5)), np.array(options.get("image_std", 0.5))
    if not options.get("do_normalize", True):
        mean, std = np.array(0.0), np.array(1.0)
    values = values * (factor / std).astype(np.float32)
    values = values + (-mean / std).astype(np.float32)
    blocks = values.reshape(height // patch, patch, width // patch, patch, 3).transpose(0, 2, 4, 1, 3)
    return torch.from_numpy(blocks.reshape(-1, 3 * patch * patch).copy())


def check(pictures, plain, options):
    """The pack that the processor makes of `pictures` is that of the RGB pictures `plain`."""
    packed = TuringViTImageProcessor(do_pack=True, **options)(pictures, return_tensors="pt")
    patch = options.get("patch_size", 16)
    sizes = [(rows * patch, columns * patch) for _, rows, columns in packed["image_grid_thw"].tolist()]
    expected = [plain_patches(picture, size, options) for picture, size in zip(plain, sizes, strict=True)]
    assert torch.equal(packed["pixel_values"], torch.cat(expected))
    return sizes


@pytest.mark.parametrize("torch_threads", [1, 3], indirect=True)
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_packs_are_those_of_the_reference(name, torch_threads):
    pictures = [photo(*size, seed) for seed, size in enumerate(ODD_SIZES)]
    check(pictures, pictures, {"max_patches": 200, **NORMALIZATIONS[name]})


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.NEAREST])
@pytest.mark.parametrize("patch_size", [7, 14, 32])
def test_filters_and_patch_sizes(resample, patch_size):
    pictures = [photo(*size, seed) for seed, size in enumerate(ODD_SIZES)]
    check(pictures, pictures, {"patch_size": patch_size, "resample": resample, "max_patches": 300})


def test_pictures_of_more_values_than_are_written_at_a_time():
    pictures = [photo(688, 1040), photo(672, 1056, seed=1)]
    for name, options in NORMALIZATIONS.items():
        (size, _) = check(pictures, pictures, options)
        assert 3 * size[0] * size[1] > 8 * pixels.VALUES_IN_CACHE, name


@pytest.mark.parametrize("torch_threads", [1, 3], indirect=True)
def test_modes_that_become_rgb_first(torch_threads):
    rng = np.random.default_rng(0)
    rgb = photo(90, 130)
    gray, alpha = rng.integers(0, 256, (2, 90, 130), dtype=np.uint8)
    transparent = Image.merge("RGBA", (*rgb.split(), Image.fromarray(alpha)))
    on_white = Image.new("RGB", rgb.size, (255, 255, 255))
    on_white.paste(transparent, mask=transparent.getchannel("A"))
    palette = rgb.quantize(16)
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    turned = photo(90, 130, seed=1)
    exif = turned.getexif()
    exif[pixels.EXIF_ORIENTATION] = 6
    sideways = turned.copy()
    sideways.info["exif"] = exif.tobytes()
    one_color_clear = photo(90, 130, seed=2)
    one_color_clear.info["transparency"] = one_color_clear.getpixel((3, 4))
    mask = np.all(np.asarray(one_color_clear) == np.array(one_color_clear.getpixel((3, 4))), axis=-1)
    filled = np.where(mask[..., None], np.uint8(255), np.asarray(one_color_clear))
    as_gray = Image.fromarray(gray).convert("RGB")
    pictures = [rgb, Image.fromarray(gray), transparent, palette, deep, sideways, one_color_clear]
    upright = turned.transpose(Image.Transpose.ROTATE_270)
    plain = [rgb, as_gray, on_white, palette.convert("RGB"), as_gray, upright, Image.fromarray(filled)]
    check(pictures, plain, {"max_patches": 30})


@pytest.mark.parametrize("torch_threads", [1, 3], indirect=True)
def test_arrays_tensors_and_one_picture_many_times(torch_threads):
    picture, other = photo(100, 210), photo(33, 47, seed=1)
    array = np.asarray(picture)
    channels_first = torch.from_numpy(array.copy()).permute(2, 0, 1)
    pictures = [picture, array, channels_first, channels_first.contiguous(), picture, other, picture]
    plain = [picture] * 5 + [other, picture]
    check(pictures, plain, {"max_patches": 40})


@pytest.mark.parametrize("torch_threads", [1, 3], indirect=True)
def test_clips_are_frames_of_the_reference(torch_threads):
    clips = [[photo(70, 90, seed) for seed in range(3)], [photo(200, 130, seed) for seed in range(2)]]
    for given in (clips, [np.stack([np.asarray(frame) for frame in clip]) for clip in clips]):
        packed = TuringViTVideoProcessor(max_patches=40)(given, return_tensors="pt")
        grid = packed["image_grid_thw"].tolist()
        assert [frames for frames, _, _ in grid] == [3, 2]
        expected = [
            plain_patches(frame, (16 * rows, 16 * columns), {})
            for clip, (_, rows, columns) in zip(clips, grid, strict=True)
            for frame in clip
        ]
        assert torch.equal(packed["pixel_values"], torch.cat(expected))


@pytest.mark.parametrize("torch_threads", [1, 3], indirect=True)
def test_dense_and_padded_batches_hold_the_same_pixels(torch_threads):
    pictures = [photo(64, 96), photo(80, 48, seed=1)]
    for name, options in NORMALIZATIONS.items():
        batch = TuringViTImageProcessor(do_pack=False, do_resize=False, **options)(pictures, return_tensors="pt")
        for picture, pixel_values in zip(pictures, batch["pixel_values"], strict=True):
            own = pixel_values[:, : picture.height, : picture.width]
            patches = own.unflatten(1, (-1, 16)).unflatten(3, (-1, 16)).permute(1, 3, 0, 2, 4).reshape(-1, 768)
            assert torch.equal(patches, plain_patches(picture, own.shape[1:], options)), name
        assert batch["pixel_values"][0, :, 64:].count_nonzero() == 0
        assert batch["pixel_values"][1, :, :, 48:].count_nonzero() == 0


def test_a_picture_that_is_rgb_already_is_kept():
    picture = photo(40, 60)
    processor = TuringViTImageProcessor()
    assert processor.process_image(picture, do_convert_rgb=True, as_picture=True) is picture
    assert isinstance(processor.process_image(picture, do_convert_rgb=True), np.ndarray)
    for other in (picture.convert("L"), picture.convert("RGBA"), np.asarray(picture)):
        assert isinstance(processor.process_image(other, do_convert_rgb=True, as_picture=True), np.ndarray)


@pytest.mark.parametrize("torch_threads", [3], indirect=True)
def test_threads_keep_the_order_name_the_first_error_and_end(torch_threads):
    barrier = threading.Barrier(3, timeout=PATIENCE)

    def wait_then_square(number):
        barrier.wait()  # passed only if three run at the same time
        return number**2

    assert threads.map_in_threads(wait_then_square, [3, 1, 2], num_values=0) == [9, 1, 4]
    with pytest.raises(ZeroDivisionError, match="division"):
        threads.map_in_threads(lambda number: 1 / number if number < 2 else int("x"), [1, 0, 2], num_values=0)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("turingvit-pictures")]


def test_few_values_or_one_thread_are_computed_where_they_are(monkeypatch):
    monkeypatch.setattr(threads, "ThreadPoolExecutor", None)
    assert threads.map_in_threads(abs, [-1, -2], num_values=1) == [1, 2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert threads.map_in_threads(abs, [-1, -2], num_values=2**40) == [1, 2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert threads.map_in_threads(abs, [-1], num_values=2**40) == [1]


def test_workers_of_a_loader_have_one_thread():
    class Threads(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return torch.get_num_threads()

    loader = torch.utils.data.DataLoader(Threads(), batch_size=None, num_workers=1)
    assert list(loader) == [1]
