# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Teachers of masked feature distillation: frozen models that give a feature for every patch of the student.

A teacher is no `nn.Module`: it stands outside of the student's checkpoint, optimizer and data parallelism.

    teacher = load_teacher(recipe.teacher, student_processor=processor, resolution=recipe.data.resolution)
    pack["teacher_pixel_values"] = teacher.preprocess(crops)  # in a loader worker
    features = teacher.features(pack, device)  # (T, Dt), in the order of the student's patches
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from turingvit_hf.errors import InputError
from turingvit_hf.processing.batching import scale_and_shift
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.processing.pixels import resize_pixels, write_normalized
from turingvit_hf.training.arguments import ResolutionRecipe, TeacherRecipe
from turingvit_hf.training.hog_teacher import HogTeacher
from turingvit_hf.training.teacher_cache import CachedTeacher, weights_digest
from turingvit_hf.training.teacher_networks import (
    TIMM_PREFIX,
    LoadedNetwork,
    load_config,
    load_network,
    load_vision_model,
    read_pixel_settings,
)


HOG = "hog"
# images that go through a teacher at a time: a pack of tiny images holds thousands of them
CHUNK = 64
# class and register tokens: more of them before the patches than any known model has is a misread grid
MAX_PREFIX_TOKENS = 16


@dataclass(frozen=True)
class SquarePreprocess:
    """Turns crops into a teacher's pixels: resized to a square, whatever their shape, and normalized.

    It holds numbers only, so that loader workers can carry it.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int

    def __call__(self, images: Sequence[np.ndarray]) -> Tensor:
        """Pixels (N, 3, S, S) float32 of N arrays (3, H, W) uint8, each of any size.

        Raises:
            ValueError: there is no image, or one is no (3, H, W) uint8 array.
        """
        if not images:
            raise ValueError("a teacher needs at least one image")
        options = {"rescale_factor": 1 / 255, "do_rescale": True, "do_normalize": True}
        scale, shift = scale_and_shift(3, options | {"image_mean": self.mean, "image_std": self.std})
        pixels = np.empty((len(images), 3, self.size, self.size), dtype=np.float32)
        for image, out in zip(images, pixels, strict=True):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != 3:
                raise ValueError(f"expected (3, H, W) uint8 pixels, got {image.shape} {image.dtype}")
            write_normalized(resize_pixels(image, (self.size, self.size), self.resample), scale, shift, out=out)
        return torch.from_numpy(pixels)


class Teacher(Protocol):
    """What gives every patch of a pack the feature that the student has to predict.

    Attributes:
        hidden_size: Dt, values in a feature.
        preprocess: makes `pack["teacher_pixel_values"]` of the student's crops, one for each row of the grid, in a
            loader worker; None where the teacher reads the student's own `pixel_values`.
        counts: what happened, by name.
    """

    hidden_size: int
    preprocess: SquarePreprocess | None
    counts: dict[str, int]

    def features(self, pack: Mapping[str, Any], device: torch.device | str) -> Tensor:
        """Features (T, Dt) float32 on `device` without graph, of all patches, in the student's packed order."""


class SquareTeacher:
    """A teacher that sees each image as a square of its own size and has a grid of its own.

    Its grid is resampled to the student's, per image, in float32, bilinear with aligned edges (not corners), where
    the two differ.

    Args:
        loaded: the network.

    Raises:
        InputError: its patches do not divide its input, or its tokens are no grid of patches.
    """

    def __init__(self, loaded: LoadedNetwork):
        if loaded.size % loaded.patch_size:
            raise InputError(
                f"teacher {loaded.name!r} has patches of {loaded.patch_size} pixels, which do not divide its input of "
                f"{loaded.size} pixels: teacher.size must be a multiple"
            )
        self.network = loaded.network.requires_grad_(False).eval()
        self.side = loaded.size // loaded.patch_size
        self.preprocess: SquarePreprocess | None = SquarePreprocess(
            loaded.size, loaded.pixels.mean, loaded.pixels.std, loaded.pixels.resample
        )
        self.counts: dict[str, int] = {}
        self.dtype = next(self.network.parameters()).dtype
        self.num_prefix_tokens, self.hidden_size = self._probe(loaded)

    def features(self, pack: Mapping[str, Any], device: torch.device | str) -> Tensor:
        """Features (T, Dt) of `teacher_pixel_values` (N, 3, S, S) on the grid `image_grid_thw`.

        Raises:
            ValueError: the pack has no teacher pixels, not one image for each row of the grid, or a clip.
        """
        grid = pack["image_grid_thw"].tolist()
        pixels = pack.get("teacher_pixel_values")
        if pixels is None or len(pixels) != len(grid):
            found = "none" if pixels is None else len(pixels)
            raise ValueError(f"image_grid_thw has {len(grid)} images, teacher_pixel_values has {found}")
        if any(frames != 1 for frames, _, _ in grid):
            raise ValueError(f"a teacher sees still images, image_grid_thw has clips: {grid}")
        self.network.to(device)
        features = []
        for start in range(0, len(grid), CHUNK):
            tokens = self._tokens(pixels[start : start + CHUNK].to(device))[:, self.num_prefix_tokens :]
            for image, (_, rows, columns) in zip(tokens.float(), grid[start : start + CHUNK], strict=True):
                features.append(_resample_grid(image, self.side, rows, columns))
        return torch.cat(features)

    @torch.no_grad()
    def _tokens(self, pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, enabled=False):
            return self.network(pixels.to(self.dtype))

    def _probe(self, loaded: LoadedNetwork) -> tuple[int, int]:
        """The number of tokens before the patches, and the size of a feature, from the tokens of a gray image."""
        where = f"teacher {loaded.name!r} at {loaded.size} x {loaded.size} pixels"
        try:
            tokens = self._tokens(torch.zeros(1, 3, loaded.size, loaded.size))
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"{where} fails: {reason}; teacher.size must be one that it can take") from error
        num_patches = self.side**2
        if tokens.dim() != 3 or not 0 <= tokens.shape[1] - num_patches <= MAX_PREFIX_TOKENS:
            shape = tuple(tokens.shape[1:])
            raise InputError(
                f"{where} gives tokens of shape {shape}, which cannot be mapped onto a grid: patches of "
                f"{loaded.patch_size} pixels make {self.side} x {self.side} = {num_patches}, with at most "
                f"{MAX_PREFIX_TOKENS} class and register tokens before them"
            )
        return tokens.shape[1] - num_patches, tokens.shape[2]


class PackedTeacher:
    """A TuringViT as teacher: it reads the student's own patches, so their grids agree.

    Args:
        model: the frozen tower, without a pooling head.
        student: mean and standard deviation of the student's pixels.
        teacher: of the teacher's; pixels are normalized anew where the two differ.
    """

    preprocess = None

    def __init__(
        self, model: PreTrainedModel, *, student: Sequence[Sequence[float]], teacher: Sequence[Sequence[float]]
    ):
        self.network: nn.Module = model
        self.dtype = model.dtype
        self.hidden_size = model.config.hidden_size
        self.counts: dict[str, int] = {}
        mean, std = torch.tensor(student, dtype=torch.float64)
        teacher_mean, teacher_std = torch.tensor(teacher, dtype=torch.float64)
        # x · std + mean are pixels in 0...1
        scale, shift = std / teacher_std, (mean - teacher_mean) / teacher_std
        values = model.config.patch_size**2
        self.scale, self.shift = (each.float().repeat_interleave(values) for each in (scale, shift))

    @torch.no_grad()
    def features(self, pack: Mapping[str, Any], device: torch.device | str) -> Tensor:
        """Features (T, Dt) of `pixel_values` (T, C·p·p) on the grid `image_grid_thw`.

        Raises:
            ValueError: the student's patches have another size than the teacher's.
        """
        patches = pack["pixel_values"].to(device)
        if patches.shape[1] != len(self.scale):
            raise ValueError(
                f"the student's patches hold {patches.shape[1]} values, the TuringViT teacher's {len(self.scale)}: a "
                "TuringViT teacher needs the student's patch size"
            )
        self.network.to(device)
        patches = patches.float() * self.scale.to(device) + self.shift.to(device)
        with torch.autocast(patches.device.type, enabled=False):
            outputs = self.network(patches.to(self.dtype), image_grid_thw=pack["image_grid_thw"].to(device))
        return outputs.last_hidden_state.float()


def load_teacher(
    recipe: TeacherRecipe, *, student_processor: TuringViTImageProcessor, resolution: ResolutionRecipe
) -> Teacher:
    """The recipe's teacher, on the CPU until it is first asked for features.

    Args:
        recipe: `"hog"` is computed here, a name that starts with `timm/` is looked up in timm (EVA02-CLIP gives
            projected features), any other is a transformers vision model, or model of images and texts, by name or
            folder.
        student_processor: says how the student's pixels are normalized, which a TuringViT teacher reads.
        resolution: how crops are made; a cache needs crops that repeat.

    Raises:
        InputError: the model cannot be loaded or has no grid of patch tokens, or the cache cannot be used.
    """
    if recipe.cache is not None:
        _check_crops_repeat(resolution)
    if recipe.model == HOG:
        if recipe.size is not None or recipe.cache is not None:
            raise InputError(
                f"teacher 'hog' reads the student's pixels and keeps nothing: size={recipe.size!r} and "
                f"cache={recipe.cache!r} must be null"
            )
        return HogTeacher(student_processor)
    teacher: SquareTeacher | PackedTeacher
    if not recipe.model.startswith(TIMM_PREFIX) and load_config(recipe.model).model_type == "turingvit":
        teacher = _load_packed(recipe, student_processor)
    else:
        teacher = SquareTeacher(load_network(recipe))
    if recipe.cache is None:
        return teacher
    identity = {
        "model": recipe.model,
        "weights": weights_digest(teacher.network),
        "dtype": recipe.dtype,
        "pixels": repr(teacher.preprocess),
    }
    dtype = torch.bfloat16 if recipe.dtype == "bfloat16" else torch.float16
    return CachedTeacher(teacher, recipe.cache, identity=identity, dtype=dtype)


def _load_packed(recipe: TeacherRecipe, student: TuringViTImageProcessor) -> PackedTeacher:
    if recipe.size is not None:
        raise InputError(
            f"teacher.size={recipe.size}: a TuringViT teacher sees the student's own pixels, at their size"
        )
    model = load_vision_model(recipe, vision_use_head=False)
    pixels = read_pixel_settings(recipe.model)
    if student.patch_size != model.config.patch_size:
        raise InputError(
            f"teacher {recipe.model!r} has patches of {model.config.patch_size} pixels, the student of "
            f"{student.patch_size}: a TuringViT teacher reads the student's patches"
        )
    return PackedTeacher(model, student=(student.image_mean, student.image_std), teacher=(pixels.mean, pixels.std))


def _check_crops_repeat(resolution: ResolutionRecipe) -> None:
    if resolution.crop_scale != (1.0, 1.0) or resolution.flip > 0 or resolution.mode == "bounded":
        raise InputError(
            f"teacher.cache needs crops that repeat: resolution.crop_scale={resolution.crop_scale}, "
            f"flip={resolution.flip}, mode={resolution.mode!r} must be (1.0, 1.0), 0 and 'native' or 'fixed'"
        )


def _resample_grid(tokens: Tensor, side: int, rows: int, columns: int) -> Tensor:
    """Tokens (side², Dt) of a square grid as (rows · columns, Dt) of another over the same image."""
    if (rows, columns) == (side, side):
        return tokens
    square = tokens.T.unflatten(1, (side, side))[None]
    return F.interpolate(square, (rows, columns), mode="bilinear", align_corners=False)[0].flatten(1).T
