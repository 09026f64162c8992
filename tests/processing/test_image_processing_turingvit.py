# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Laws of the image processor: its forms hold the same numbers, grids match pixels, a flag means one thing."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor
from transformers.trainer_pt_utils import find_batch_size

import turingvit_hf  # noqa: F401
from turingvit_hf.processing.geometry import native_size, patchify
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


MODES = ["RGB", "RGBA", "LA", "L", "1", "P", "CMYK", "YCbCr", "HSV"]
image_sizes = st.lists(
    st.one_of(st.tuples(st.integers(1, 80), st.integers(1, 80)), st.tuples(st.integers(1, 700), st.integers(1, 2000))),
    min_size=1,
    max_size=12,
)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(height, width, mode="RGB"):
    """A cheap picture: one color, so that large ones cost little."""
    return Image.new("RGB", (width, height), (10, 200, 120)).convert(mode)


def grid_of(encoding):
    return [tuple(row) for row in encoding["image_grid_thw"].tolist()]


@given(
    sizes=image_sizes,
    modes=st.lists(st.sampled_from(MODES), min_size=12, max_size=12),
    resolution=st.sampled_from(["native", "bounded", "fixed"]),
    patch_size=st.sampled_from([14, 16, 32]),
    merge_size=st.integers(1, 2),
    room=st.integers(1, 600),
    seed=st.one_of(st.none(), st.integers(0, 100)),
)
def test_grids_match_pixels(sizes, modes, resolution, patch_size, merge_size, room, seed):
    processor = TuringViTImageProcessor(
        patch_size=patch_size,
        merge_size=merge_size,
        resolution=resolution,
        size=4 * patch_size if resolution == "fixed" else None,
        max_patches=room * merge_size**2,
        seed=seed,
        do_pack=True,
    )
    images = [picture(*size, mode) for size, mode in zip(sizes, modes, strict=False)]
    encoding = processor(images, return_tensors="np")
    grid = grid_of(encoding)
    assert encoding["image_grid_thw"].dtype == np.int64
    assert encoding["pixel_values"].dtype == np.float32
    assert encoding["pixel_values"].shape == (sum(rows * columns for _, rows, columns in grid), 3 * patch_size**2)
    assert np.isfinite(encoding["pixel_values"]).all()
    unit = patch_size * merge_size
    for (frames, rows, columns), (height, width) in zip(grid, sizes, strict=True):
        assert frames == 1
        assert rows >= merge_size
        assert columns >= merge_size
        assert rows % merge_size == columns % merge_size == 0
        if resolution == "fixed":
            assert (rows, columns) == (4, 4)
            continue
        assert rows * columns <= room * merge_size**2
        target = (rows * patch_size, columns * patch_size)
        lowest = max((side - unit) / source for side, source in zip(target, (height, width), strict=True))
        highest = min((side + unit) / source for side, source in zip(target, (height, width), strict=True))
        assert lowest <= highest, f"{height} x {width} became {target}"
        if seed is None:
            assert processor.get_number_of_image_patches(height, width) == rows * columns


@given(sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=5))
def test_every_form_holds_the_same_numbers(sizes):
    images = [noise(*size, seed=index) for index, size in enumerate(sizes)]
    processor = TuringViTImageProcessor()
    alone = [processor(image, return_tensors="pt").pixel_values[0] for image in images]
    packed = processor(images, do_pack=True, return_tensors="pt")
    padded = processor(images, return_image_sizes=True, return_tensors="pt")

    assert grid_of(packed) == [(1, image.shape[1] // 16, image.shape[2] // 16) for image in alone]
    tokens = packed.pixel_values.split([rows * columns for _, rows, columns in grid_of(packed)])
    for image, patches, dense, size in zip(
        alone, tokens, padded.pixel_values, padded.image_sizes.tolist(), strict=True
    ):
        assert tuple(size) == tuple(image.shape[1:])
        torch.testing.assert_close(patchify(image, 16), patches, rtol=0, atol=0)
        torch.testing.assert_close(dense[:, : size[0], : size[1]], image, rtol=0, atol=0)
        outside = torch.ones_like(dense, dtype=torch.bool)
        outside[:, : size[0], : size[1]] = False
        assert (dense[outside] == 0).all()


def test_the_table_of_forms():
    agree, differ = [noise(40, 60), noise(40, 60, 1)], [noise(40, 60), noise(64, 30)]
    processor = TuringViTImageProcessor()
    table = [
        # flags, keys and shape where sizes agree, keys and shape where they differ
        ({}, {"pixel_values": (2, 3, 48, 64)}, {"image_grid_thw": (2, 3), "pixel_values": (20, 768)}),
        (
            {"do_pack": True},
            {"image_grid_thw": (2, 3), "pixel_values": (24, 768)},
            {"image_grid_thw": (2, 3), "pixel_values": (20, 768)},
        ),
        (
            {"do_pack": False},
            {"pixel_values": (2, 3, 48, 64)},
            {"pixel_values": (2, 3, 64, 64), "image_sizes": (2, 2)},
        ),
        (
            {"do_pack": False, "return_image_sizes": True},
            {"pixel_values": (2, 3, 48, 64), "image_sizes": (2, 2)},
            {"pixel_values": (2, 3, 64, 64), "image_sizes": (2, 2)},
        ),
        (
            {"return_image_sizes": True},
            {"pixel_values": (2, 3, 48, 64), "image_sizes": (2, 2)},
            {"pixel_values": (2, 3, 64, 64), "image_sizes": (2, 2)},
        ),
    ]
    for flags, *expected in table:
        for images, shapes in zip((agree, differ), expected, strict=True):
            for return_tensors, kind in (("pt", torch.Tensor), ("np", np.ndarray), (None, np.ndarray)):
                encoding = processor(images, return_tensors=return_tensors, **flags)
                assert {key: tuple(value.shape) for key, value in encoding.items()} == shapes, flags
                assert all(isinstance(value, kind) for value in encoding.values())
        stored = TuringViTImageProcessor(**flags)
        assert set(stored.model_input_names) == set(stored(agree))
        assert stored.model_input_names[0] == "pixel_values"


def test_trainer_counts_images_not_patches():
    images = [noise(40, 60), noise(64, 30)]
    assert find_batch_size(TuringViTImageProcessor()(images, return_tensors="pt")) == 2


def test_pixels_are_rescaled_normalized_and_resized_as_pillow_does():
    image = noise(40, 60)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    pixels = TuringViTImageProcessor(image_mean=mean, image_std=std)(image).pixel_values[0]
    resized = np.asarray(Image.fromarray(image).resize((64, 48), Image.Resampling.BICUBIC)).astype(np.float64)
    expected = (resized / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(pixels, np.moveaxis(expected, -1, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "low", "high"),
    [
        ({}, -1, 1),
        ({"do_normalize": False}, 0, 1),
        ({"do_rescale": False, "do_normalize": False}, 0, 255),
        ({"image_mean": 0.0, "image_std": 1.0}, 0, 1),
        ({"rescale_factor": 2 / 255}, -1, 3),
    ],
    ids=str,
)
def test_ranges(flags, low, high):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, 16:] = 255
    pixels = TuringViTImageProcessor(**flags)(image).pixel_values
    assert pixels.dtype == np.float32
    np.testing.assert_allclose((pixels.min(), pixels.max()), (low, high), atol=1e-6)


def test_kinds_of_input_agree():
    array = noise(40, 60)
    processor = TuringViTImageProcessor()
    expected = processor(Image.fromarray(array)).pixel_values
    for image in (array, array.transpose(2, 0, 1), torch.from_numpy(array), [[array]], array[None], np.stack([array])):
        np.testing.assert_array_equal(processor(image).pixel_values, expected)
    whole = noise(48, 64)  # bytes are rounded by resizing, floats are not: compare where nothing is resized
    floats = processor((whole / 255).astype(np.float32), do_rescale=False).pixel_values
    np.testing.assert_allclose(floats, processor(whole).pixel_values, atol=1e-6)


def test_vlm_nesting_comes_out_in_order():
    one, two, three = noise(16, 16), noise(32, 16), noise(48, 16)
    encoding = TuringViTImageProcessor()([[one, two], [], [three]], return_tensors="pt")
    assert grid_of(encoding) == [(1, 1, 1), (1, 2, 1), (1, 3, 1)]


def test_paths_keep_their_transparency(tmp_path):
    Image.new("RGBA", (32, 16), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    processor = TuringViTImageProcessor()
    for source in (tmp_path / "clear.png", str(tmp_path / "clear.png")):
        assert (processor(source).pixel_values == 1).all()
        assert [[image.mode for image in images] for images in processor.fetch_images([[source]])] == [["RGBA"]]


def test_bounded_draws_with_a_seed_and_clamps_without():
    images = [picture(1000, 500)] * 40
    processor = TuringViTImageProcessor(resolution="bounded", do_pack=True)
    assert grid_of(processor(images)) == [(1, 32, 16)] * 40
    drawn = grid_of(processor(images, seed=7))
    assert drawn == grid_of(processor(images, seed=7))
    assert drawn != grid_of(processor(images, seed=8))
    assert len(set(drawn)) > 5
    assert all(16 <= rows <= 32 and abs(columns - rows / 2) <= 0.5 for _, rows, columns in drawn)


def test_fixed_sizes_and_what_size_means():
    processor = TuringViTImageProcessor(resolution="fixed", size=64)
    assert dict(processor.size) == {"height": 64, "width": 64}
    image = noise(40, 60)
    assert processor(image).pixel_values.shape == (1, 3, 64, 64)
    assert processor(image, size={"height": 32, "width": 80}).pixel_values.shape == (1, 3, 32, 80)
    assert processor(image, size=(32, 80)).pixel_values.shape == (1, 3, 32, 80)
    assert processor(image, resolution="native").pixel_values.shape == (1, 3, 48, 64)
    assert processor.get_number_of_image_patches(40, 60) == 16
    assert processor.get_number_of_image_patches(40, 60, {"resolution": "native"}) == 12
    assert processor.get_number_of_image_patches(40, 60, {"resolution": "native", "patch_size": 8}) == 5 * 8
    assert TuringViTImageProcessor(do_resize=False).get_number_of_image_patches(32, 48) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 224}, "size is a height and a width for resolution='fixed'"),
        ({"resolution": "fixed", "size": {"longest_edge": 224}}, "longest_edge"),
        ({"resolution": "fixed", "size": {"shortest_edge": 224}}, "shortest_edge"),
        ({"resolution": "fixed"}, "needs size"),
        ({"resolution": "fixed", "size": 250}, "250 x 250"),
        ({"resolution": "huge"}, "'huge'"),
        ({"patch_size": 0}, "patch_size=0"),
        ({"merge_size": 0}, "merge_size=0"),
        ({"max_patches": 0}, "max_patches=0"),
        ({"resolution": "bounded", "min_side": 500, "max_side": 510}, "min_side=500"),
        ({"do_pack": True, "return_image_sizes": True}, "choose one"),
        ({"do_center_crop": True, "crop_size": {"height": 16, "width": 16}}, "not supported"),
        ({"do_pad": True}, "not supported"),
        ({"data_format": "channels_last"}, "channels_last"),
        ({"image_std": [0.5, 0.0, 0.5]}, "zero"),
        ({"image_mean": [0.5, 0.5]}, "2 values for images of 3 channels"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TuringViTImageProcessor()(noise(16, 16), **options)
    with pytest.raises(ValueError, match=message):
        TuringViTImageProcessor(**options)(noise(16, 16))


def test_unknown_and_mistyped_options_are_refused():
    with pytest.raises(TypeError, match="max_tokens"):
        TuringViTImageProcessor()(noise(16, 16), max_tokens=5)
    with pytest.raises(Exception, match="do_pack"):
        TuringViTImageProcessor()(noise(16, 16), do_pack="yes")


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "at least one image"),
        ([noise(16, 16), np.zeros((5, 16, 16), np.uint8)], {}, r"image 1: .*\(5, 16, 16\)"),
        ([noise(16, 16), np.zeros((0, 16, 3), np.uint8)], {}, "image 1: .*0 x 16"),
        ([noise(16, 16), noise(16, 17)], {"do_resize": False}, "image 1 has 16 x 17"),
        ([noise(32, 32), noise(16, 32)], {"do_resize": False, "merge_size": 2}, "image 1 has 16 x 32"),
        ([noise(16, 16), np.zeros((16, 16), np.uint8)], {"do_convert_rgb": False}, "image 1 has 1 channels"),
        ("no/such/file.png", {}, "no/such/file.png"),
    ],
    ids=["none", "channels", "empty", "no multiple", "no unit", "unlike channels", "missing"],
)
def test_images_that_cannot_be_are_refused_by_index(images, options, message):
    with pytest.raises(ValueError, match=message):
        TuringViTImageProcessor()(images, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels_are_refused_on_request(value):
    bad = np.full((3, 16, 32), 0.5, np.float32)
    bad[1, 2, 3] = value
    images = [noise(16, 16), torch.from_numpy(bad)]
    with pytest.raises(ValueError, match="image 1 has 1 non-finite"):
        TuringViTImageProcessor(check_finite=True)(images, do_rescale=False)
    TuringViTImageProcessor()(images, do_rescale=False)
    TuringViTImageProcessor(check_finite=True)(images[0])


def test_four_channels_without_conversion():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    pixels = TuringViTImageProcessor(do_convert_rgb=False, image_mean=[0.0] * 4, image_std=[1.0] * 4)(
        image
    ).pixel_values
    assert pixels.shape == (1, 4, 48, 64)
    with pytest.raises(ValueError, match="3 values for images of 4 channels"):
        TuringViTImageProcessor(do_convert_rgb=False)(image)


def test_floats_in_0_1_that_are_rescaled_again_are_warned_of(caplog):
    caplog.set_level(logging.WARNING)
    logger = logging.getLogger("turingvit_hf.processing.image_processing_turingvit")
    logger.warning_once.cache_clear()
    processor = TuringViTImageProcessor()
    processor(np.full((16, 16, 3), 127.0, np.float32))
    processor(noise(16, 16))
    processor(np.full((16, 16, 3), 0.5, np.float32), do_rescale=False)
    assert not caplog.records
    processor(np.full((16, 16, 3), 0.5, np.float32))
    assert "do_rescale=False" in caplog.text


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (1, 1)], ids=str)
def test_extreme_images(size):
    encoding = TuringViTImageProcessor(max_patches=64, do_pack=True)(np.zeros((*size, 3), np.uint8))
    rows, columns = (side // 16 for side in native_size(*size, max_patches=64))
    assert grid_of(encoding) == [(1, rows, columns)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_patches": 64},
        {"do_pack": False, "merge_size": 2},
        {"resolution": "fixed", "size": {"height": 32, "width": 64}, "image_mean": [0.1, 0.2, 0.3], "resample": 2},
        {"resolution": "bounded", "min_side": 32, "max_side": 64, "seed": 5},
    ],
    ids=str,
)
def test_saving_changes_nothing(options, tmp_path):
    processor = TuringViTImageProcessor(**options)
    processor.save_pretrained(tmp_path)
    images = [noise(40, 60), noise(64, 30)]
    expected = processor(images)
    for loaded in (TuringViTImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, TuringViTImageProcessor)
        assert loaded.to_dict() == processor.to_dict()
        assert loaded.model_input_names == processor.model_input_names
        encoding = loaded(images)
        assert encoding.keys() == expected.keys()
        for key in expected:
            np.testing.assert_array_equal(encoding[key], expected[key])


def test_packing_is_a_choice_of_the_call_and_not_saved(tmp_path):
    processor = TuringViTImageProcessor(do_pack=True, patch_size=8)
    processor.save_pretrained(tmp_path)
    assert processor.do_pack is True
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert loaded.do_pack is None
    assert loaded.patch_size == 8


def test_image_sizes_are_not_saved_with_an_image_processor_alone(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    logging.getLogger("turingvit_hf.processing.image_processing_turingvit").warning_once.cache_clear()
    TuringViTImageProcessor(patch_size=8).save_pretrained(tmp_path)
    assert not caplog.records
    processor = TuringViTImageProcessor(return_image_sizes=True, patch_size=8)
    for _ in range(2):
        (written,) = processor.save_pretrained(tmp_path)
    assert written == str(tmp_path / "preprocessor_config.json")
    assert ["return_image_sizes=True is not saved" in record.message for record in caplog.records] == [True]
    assert processor.return_image_sizes is True
    assert processor.to_dict()["return_image_sizes"] is True
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict() | {"return_image_sizes": False}
    assert loaded.model_input_names == ["pixel_values"]
    asked = AutoImageProcessor.from_pretrained(tmp_path, return_image_sizes=True)
    assert asked.to_dict() == processor.to_dict()


def test_calls_leave_input_and_processor_alone():
    processor, image = TuringViTImageProcessor(), noise(16, 16)
    before, settings = image.copy(), processor.to_dict()
    floats = image.astype(np.float32)
    processor([image, floats], do_pack=True, patch_size=8)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(floats, before)
    assert processor.to_dict() == settings
