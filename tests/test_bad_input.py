# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Bad input to configuration and model is answered with a sentence that names the value and what was allowed."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from tests.towers import make_image, make_model, pack, tiny_config
from turingvit_hf import TuringViTConfig, TuringViTForImageClassification, TuringViTModel
from turingvit_hf.kernels.linear_attention import use_linear_attention_backend


GRID = torch.tensor([[1, 3, 5], [1, 2, 2]])
PATCHES = torch.ones(19, 48)
BATCH = torch.ones(2, 3, 12, 20)


@pytest.fixture(scope="module", params=[TuringViTModel, TuringViTForImageClassification])
def model(request):
    return make_model(request.param)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        # channels
        ({"pixel_values": torch.ones(2, 1, 12, 20)}, "pixel_values has 1 channels, this tower takes 3"),
        ({"pixel_values": torch.ones(2, 4, 12, 20)}, "pixel_values has 4 channels, this tower takes 3"),
        ({"pixel_values": torch.ones(2, 12, 20, 3)}, "pixel_values has 12 channels, this tower takes 3"),
        (
            {"pixel_values": torch.ones(19, 16), "image_grid_thw": GRID},
            r"a packed patch holds num_channels \* patch_size \*\* 2 = 48 values, got 16",
        ),
        # a grid that does not match its patches
        ({"pixel_values": PATCHES[:-1], "image_grid_thw": GRID}, "describes 19 patches, pixel_values has 18"),
        ({"pixel_values": PATCHES, "image_grid_thw": GRID[:1]}, "describes 15 patches, pixel_values has 19"),
        (
            {"pixel_values": PATCHES, "image_grid_thw": torch.tensor([[1, 3, 5], [1, 0, 4]])},
            r"every entry of image_grid_thw must be at least 1, got \[\[1, 3, 5\], \[1, 0, 4\]\]",
        ),
        (
            {"pixel_values": PATCHES, "image_grid_thw": torch.tensor([[1, 3, 5], [-1, -2, 2]])},
            "every entry of image_grid_thw must be at least 1",
        ),
        ({"pixel_values": PATCHES, "image_grid_thw": GRID[:, 1:]}, r"image_grid_thw must be \(N, 3\).* got \(2, 2\)"),
        ({"pixel_values": PATCHES, "image_grid_thw": GRID[0]}, r"image_grid_thw must be \(N, 3\).* got \(3,\)"),
        ({"pixel_values": PATCHES, "image_grid_thw": GRID.float()}, "must hold whole numbers, got torch.float32"),
        # no image at all
        ({"pixel_values": PATCHES[:0], "image_grid_thw": GRID[:0]}, "a pack holds at least one image"),
        ({"pixel_values": BATCH[:0]}, "pixel_values holds no image"),
        ({"pixel_values": BATCH[:0], "image_sizes": torch.zeros(0, 2)}, "pixel_values holds no image"),
        # smaller than a patch, or no whole number of patches
        ({"pixel_values": torch.ones(1, 3, 3, 20)}, "images of 3x20 pixels cannot be cut into 4x4 patches"),
        ({"pixel_values": torch.ones(1, 3, 0, 20)}, "images of 0x20 pixels cannot be cut into 4x4 patches"),
        ({"pixel_values": torch.ones(1, 3, 12, 21)}, "images of 12x21 pixels .* multiples of patch_size"),
        ({"pixel_values": BATCH, "image_sizes": [[12, 20], [3, 20]]}, "images of 3x20 pixels cannot be cut"),
        ({"pixel_values": BATCH, "image_sizes": [[12, 20], [0, 0]]}, "images of 0x0 pixels cannot be cut"),
        # sizes that do not fit their pixels
        ({"pixel_values": BATCH, "image_sizes": [[12, 20]]}, "image_sizes describes 1 images, pixel_values holds 2"),
        (
            {"pixel_values": BATCH, "image_sizes": [[12, 20], [16, 20]]},
            r"image_sizes\[1\]=\(16, 20\) is larger than its frame \(12, 20\)",
        ),
        ({"pixel_values": BATCH, "image_sizes": [[12, 20], [-8, 20]]}, "image_sizes must be whole numbers of pixels"),
        ({"pixel_values": BATCH, "image_sizes": [[12, 20], [8.5, 20]]}, "image_sizes must be whole numbers of pixels"),
        # none of the three forms
        ({"pixel_values": PATCHES}, r"must be packed .* or images .* got \(19, 48\) beside nothing"),
        ({"pixel_values": BATCH[0]}, r"must be packed .* or images .* got \(3, 12, 20\) beside nothing"),
        ({"pixel_values": BATCH, "image_grid_thw": GRID}, r"got \(2, 3, 12, 20\) beside \['image_grid_thw'\]"),
        (
            {"pixel_values": PATCHES, "image_grid_thw": GRID, "image_sizes": [[12, 20], [8, 8]]},
            r"got \(19, 48\) beside \['image_grid_thw', 'image_sizes'\]",
        ),
    ],
)
def test_pixels_and_grids(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model(**inputs)


@pytest.mark.parametrize("sizes", [torch.tensor([12, 20]), torch.ones(2, 3), [[12], [12]]], ids=str)
def test_sizes_that_are_no_pairs(model, sizes):
    with pytest.raises(ValueError, match=r"image_sizes must be \(B, 2\)"):
        model(BATCH, image_sizes=sizes)


def test_an_unknown_backend(model):
    message = r"no linear-attention backend 'cuda'; this installation has \[.*'reference', 'torch'.*\]"
    with pytest.raises(ValueError, match=message):
        model.set_linear_attention_backend("cuda")
    with pytest.raises(ValueError, match=message), use_linear_attention_backend("cuda"):
        model(BATCH)


def test_an_unknown_attention_implementation(model):
    with pytest.raises((ValueError, KeyError), match="fastest"):
        model.set_attn_implementation("fastest")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_types": ["linear"] * 18}, "'linear'"),
        (
            {"layer_types": ["sliding_attention"] * 18},
            "a TuringViT layer is one of .'linear_attention', 'full_attention'",
        ),
        ({"layer_types": ["linear_attention"] * 17}, "num_hidden_layers.*18.*17"),
        ({"num_attention_heads": 640}, "the head size .* = 2 is not divisible by 4"),
        ({"num_attention_heads": 30}, "hidden_size=1280 is not a multiple of num_attention_heads=30"),
        ({"num_hidden_layers": 20}, "num_hidden_layers=20 is not a positive multiple of full_attention_interval=6"),
    ],
    ids=str,
)
def test_architectures(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        TuringViTConfig(**fields)


def test_labels_that_do_not_fit():
    model = make_model(TuringViTForImageClassification, tiny_config(num_labels=5))
    with pytest.raises(ValueError, match=r"batch_size \(2\) to match target batch_size \(3\)"):
        model(**pack([make_image(1, 1), make_image(2, 2)]), labels=torch.tensor([0, 1, 2]))
