# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a pack holds, for whom, and where it is."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


Pack = Mapping[str, Any]

MODEL_SEED = "model_seed"
# what a pack holds for objectives, teachers and the training loop
NOT_FOR_MODELS = frozenset(
    {
        "kind",
        MODEL_SEED,
        "reader_state",
        "sample_keys",
        "superclass_ids",
        "teacher_features",
        "teacher_image_grid_thw",
        "teacher_pixel_values",
    }
)
# nearly all of a pack's bytes: they may wait on the host for the turn of their pack
PIXELS = ("pixel_values", "teacher_pixel_values")


def device_of(pack: Pack) -> torch.device:
    """The device of the model that a pack is for, wherever its pixels are."""
    return pack["image_grid_thw" if "image_grid_thw" in pack else "pixel_values"].device


def model_inputs(pack: Pack) -> dict[str, Any]:
    """What a model takes of a pack."""
    return {name: value for name, value in pack.items() if name not in NOT_FOR_MODELS}


def arrived(pack: Pack) -> Pack:
    """The pack with its pixels on the device of the model."""
    return {**pack, **{name: brought(pack[name], device_of(pack)) for name in PIXELS if name in pack}}


def brought(pixels: Tensor, device: torch.device) -> Tensor:
    """Pixels on a device; the same ones if that is where they were."""
    return pixels.to(device, non_blocking=True)
