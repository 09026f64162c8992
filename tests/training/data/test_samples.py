# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows become samples as the recipe says, the same ones every time; each kind of bad row has its reason."""

import dataclasses
import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.training.data_files import encoded, picture
from turingvit_hf.data.media import MAX_PIXELS, decode_image, image_size
from turingvit_hf.data.rows import TableRows
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.sources import Source
from turingvit_hf.errors import BadRowError
from turingvit_hf.processing.geometry import unpatchify
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.arguments import DataRecipe, ResolutionRecipe
from turingvit_hf.training.collators import MaskedImagePackCollator, pack_samples
from turingvit_hf.training.data.samples import SampleMaker


def source_of(columns=None, **options):
    recipe = SourceRecipe("test", **options)
    return Source(recipe, TableRows([]), ("image",), columns or {"caption": 1.0}, {"label": ["red_fox"]})


def maker_of(resolution=None, **options):
    return SampleMaker(DataRecipe(resolution=resolution or ResolutionRecipe()), 16, **options)


def sample_of(row, *, source=None, resolution=None, draw_key="0", **options):
    maker = maker_of(resolution, **options)
    return maker.make(maker.plan(source or source_of(), {"caption": "a"} | row, key="k", draw_key=draw_key))


def captions_of(source, row, num=200):
    row = {"image": picture(0)} | row
    return [maker_of().plan(source, row, key="k", draw_key=str(number)).caption for number in range(num)]


@pytest.mark.parametrize("mode", ["native", "bounded", "fixed"])
def test_a_sample_is_what_the_image_processor_makes(mode):
    resolution = ResolutionRecipe(mode, size=64, min_side=32, max_side=96)
    image = picture(9)
    packed = pack_samples(
        [sample_of({"image": encoded(image)}, resolution=resolution, is_random=False)], TuringViTImageProcessor()
    )
    options = {"size": {"height": 64, "width": 64}} if mode == "fixed" else {"min_side": 32, "max_side": 96}
    expected = TuringViTImageProcessor()([image], do_pack=True, resolution=mode, return_tensors="pt", **options)
    assert packed["image_grid_thw"].equal(expected["image_grid_thw"])
    assert packed["pixel_values"].equal(expected["pixel_values"])


def test_every_draw_depends_on_its_key_alone():
    resolution = ResolutionRecipe("bounded", min_side=32, max_side=128, crop_scale=(0.3, 1.0), flip=0.5)
    row = {"image": encoded(picture(5)), "caption": ["a", "b", "c"]}
    samples = [sample_of(row, resolution=resolution, draw_key=key) for key in ("0", "1", "0")]
    assert np.array_equal(samples[0].frames[0], samples[2].frames[0])
    assert samples[0].caption == samples[2].caption
    assert samples[0].frames[0].shape != samples[1].frames[0].shape


def test_the_longer_side_is_drawn_from_its_bounds():
    resolution = ResolutionRecipe("bounded", min_side=32, max_side=64)
    longest = {
        max(sample_of({"image": picture(3)}, resolution=resolution, draw_key=str(key)).frames[0].shape)
        for key in range(40)
    }
    assert longest == {32, 48, 64}


def test_a_flip_and_a_crop_take_a_part_of_the_picture():
    image = np.zeros((64, 96, 3), dtype=np.uint8)
    image[:, :, 0] = np.arange(96)  # the column
    image[:, :, 1] = np.arange(64)[:, None]  # the row
    resolution = ResolutionRecipe("fixed", size=16, crop_scale=(0.2, 0.5), flip=0.5)
    num_flipped = 0
    for key in range(60):
        crop = sample_of(
            {"image": Image.fromarray(image)}, resolution=resolution, draw_key=str(key), keep_crops=True
        ).crop
        height, width = crop.shape[1:]
        assert 0.19 < height * width / (64 * 96) < 0.51
        assert 0.7 < width / height < 1.4
        assert (np.diff(crop[1].astype(int), axis=0) == 1).all()
        steps = set(np.diff(crop[0].astype(int), axis=1).flatten())
        assert steps in ({1}, {-1})
        num_flipped += steps == {-1}
    assert 15 < num_flipped < 45


def test_a_crop_without_a_fixed_size_keeps_the_aspect():
    resolution = ResolutionRecipe("native", crop_scale=(0.2, 0.3))
    height, width = sample_of({"image": Image.new("RGB", (800, 400))}, resolution=resolution).frames[0].shape[1:]
    assert abs(width / height - 2) < 0.15
    assert 0.18 < width * height / (800 * 400) < 0.32


def test_captions_are_drawn_by_their_probability():
    source = source_of({"long": 0.75, "short": 0.25, "never": 0.0})
    captions = captions_of(source, {"long": ["l1", "l2", " "], "short": "s", "never": "n"})
    assert set(captions) == {"l1", "l2", "s"}
    assert 25 < captions.count("s") < 75
    assert captions.count("l1") > 50


def test_a_column_without_text_leaves_the_draw_to_the_others():
    source = source_of({"long": 0.5, "short": 0.5})
    assert set(captions_of(source, {"long": None, "short": "  a   b "}, 20)) == {"a b"}


def test_the_first_sentence_is_taken_by_probability():
    captions = captions_of(source_of(first_sentence=0.5), {"caption": "A fox, 3.5 m away. It runs! Far."})
    assert set(captions) == {"A fox, 3.5 m away.", "A fox, 3.5 m away. It runs! Far."}
    assert 70 < captions.count("A fox, 3.5 m away.") < 130


def test_a_class_is_a_caption():
    assert captions_of(source_of({"label": 1.0}), {"label": 0}, 1) == ["red fox"]
    with pytest.raises(BadRowError, match="caption is empty or no text"):
        captions_of(source_of({"label": 1.0}), {"label": -1}, 1)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_stand_upright_before_they_are_measured(orientation):
    image = Image.new("RGB", (64, 32))
    image.paste((255, 0, 0), (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    frame = sample_of({"image": encoded(image, "JPEG", exif=exif, quality=95)}).frames[0]
    assert frame.shape == ((3, 32, 64) if orientation in (1, 3) else (3, 64, 32))
    red_first = frame[0, :16, :16].mean() > 200
    assert red_first == (orientation in (1, 6))


def test_an_orientation_hidden_behind_the_pixels_of_a_png_is_found_in_time():
    image = Image.new("RGB", (64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, exif=exif)
    # move the chunk with the orientation behind the pixels, where the header does not show it
    start = data.index(b"eXIf") - 4
    (length,) = struct.unpack(">I", data[start : start + 4])
    chunk = data[start : start + 12 + length]
    moved = data[:start] + data[start + len(chunk) : -12] + chunk + data[-12:]
    assert image_size(moved) == (32, 64)
    assert sample_of({"image": moved}).frames[0].shape == (3, 64, 32)


def test_large_jpegs_are_decoded_at_a_fraction_of_their_size():
    image = picture(0).resize((1200, 800))
    data = encoded(image, "JPEG", quality=95)
    assert decode_image(data, reduction=4.5).shape == (3, 200, 300)
    resolution = ResolutionRecipe("bounded", min_side=64, max_side=64, crop_scale=(0.6, 0.7))
    reduced = sample_of({"image": data}, resolution=resolution).frames[0].astype(float)
    whole = sample_of({"image": image}, resolution=resolution).frames[0].astype(float)
    assert reduced.shape == whole.shape
    assert np.abs(reduced - whole).mean() < 3


def test_odd_pictures_are_no_bad_ones():
    gif = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    assert sample_of({"image": gif.getvalue()}).frames[0][:, 5, 5].tolist() == [255, 0, 0]
    assert sample_of({"image": encoded(Image.new("RGB", (1, 1)))}).frames[0].shape == (3, 16, 16)
    wide = sample_of({"image": encoded(Image.new("RGB", (30_000, 20)), "JPEG")}, is_random=False).frames[0]
    assert wide.shape[1] == 16
    assert wide.shape[2] // 16 <= 9216


def png_header(width, height):
    data = bytearray(encoded(Image.new("L", (1, 1))))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": None}, "row has no image"),
        ({"image": ""}, "row has no image"),
        ({"image": "nowhere.png"}, "file is missing"),
        ({"image": b""}, "image is empty"),
        ({"image": {"bytes": None, "path": None}}, "row has no image"),
        ({"image": b"no picture"}, "image cannot be read"),
        ({"image": encoded(picture(0), "JPEG")[:-200]}, "image cannot be read"),
        ({"image": png_header(30_000, 30_000)}, f"image is larger than {MAX_PIXELS} pixels"),
        ({"image": png_header(30_000, 4_000)}, f"image is larger than {MAX_PIXELS} pixels"),
        ({"image": picture(0), "caption": " "}, "caption is empty or no text"),
        ({"image": picture(0), "caption": 7}, "caption is empty or no text"),
        ({"image": picture(0), "caption": []}, "caption is empty or no text"),
    ],
)
def test_bad_rows_have_a_reason(row, reason):
    with pytest.raises(BadRowError) as caught:
        sample_of(row)
    assert caught.value.reason == reason


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(BadRowError, match=r"image is empty: .*a\.png"):
        sample_of({"image": "a.png"}, source=dataclasses.replace(source_of(), root=tmp_path))


def test_teacher_and_student_see_the_same_crop():
    seen = []

    def preprocess(crops):
        seen.extend(crops)
        return np.zeros(len(crops))

    resolution = ResolutionRecipe("fixed", size=48, crop_scale=(0.3, 0.9), flip=0.5)
    collate = MaskedImagePackCollator(TuringViTImageProcessor(), mask_ratio=0.4, preprocess=preprocess)
    maker = maker_of(resolution, keep_crops=collate.needs_crops)
    source = dataclasses.replace(source_of(), caption_columns={})
    plans = [maker.plan(source, {"image": picture(n)}, key=f"k{n}", draw_key=f"{n}") for n in range(3)]
    pack = collate([maker.make(plan) for plan in plans])
    assert pack["sample_keys"] == ["k0", "k1", "k2"]
    assert next(iter(pack)) == "image_grid_thw"
    for number, crop in enumerate(seen):
        mask = pack["bool_masked_pos"][9 * number : 9 * number + 9]
        assert mask.sum() == round(0.4 * 9)
        resized = np.asarray(Image.fromarray(np.ascontiguousarray(crop.transpose(1, 2, 0))).resize((48, 48), 3))
        student = unpatchify(pack["pixel_values"][9 * number : 9 * number + 9], (3, 3), 16) * 127.5 + 127.5
        np.testing.assert_allclose(student.numpy(), resized.transpose(2, 0, 1), atol=1e-3)
    again = collate([maker.make(plan) for plan in reversed(plans)])
    assert again["bool_masked_pos"].reshape(3, 9).flip(0).equal(pack["bool_masked_pos"].reshape(3, 9))


def test_crops_of_large_pictures_are_made_smaller():
    resolution = ResolutionRecipe("fixed", size=32)
    image = picture(0).resize((700, 400))
    for media in (image, encoded(image, "JPEG", quality=95)):
        crop = sample_of({"image": media}, resolution=resolution, keep_crops=True).crop
        assert 2 * 32 <= min(crop.shape[1:]) < 4 * 32
        assert abs(crop.shape[2] / crop.shape[1] - 7 / 4) < 0.05
        assert crop.flags.c_contiguous


def test_a_plan_holds_what_json_rows_hold(tmp_path):
    picture(1).save(tmp_path / "a.png")
    row = json.loads('{"image": "a.png", "caption": "text"}')
    plan = maker_of().plan(dataclasses.replace(source_of(), root=tmp_path), row, key="k", draw_key="0")
    assert plan.media == tmp_path / "a.png"
    assert plan.num_tokens == (plan.size[0] // 16) * (plan.size[1] // 16)
