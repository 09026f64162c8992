# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The networks behind teachers: pretrained vision models from transformers and timm, each as pixels in, tokens out.

Every network takes square images (N, 3, S, S) float and gives all its tokens (N, L, Dt), leading class and register
tokens included; `teachers.py` finds out how many those are. All are frozen, in eval mode, and in the recipe's dtype.
"""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BaseImageProcessor, PreTrainedConfig, PreTrainedModel

from turingvit_hf.errors import InputError
from turingvit_hf.training.arguments import TeacherRecipe


TIMM_PREFIX = "timm/"
# CLIP gives its patches before its last norm, which it applies to the class token alone
NORM_LEFT_OUT = {"clip_vision_model": "post_layernorm"}


@dataclass(frozen=True)
class PixelSettings:
    """How a model wants its pixels, as its own files say.

    Args:
        size: side of the square input in pixels; None where the files do not say.
        mean: of pixels in 0...1, one for each channel.
        std: the same.
        resample: Pillow's number of the filter.
    """

    size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with what has to be known to use it; `name` is the recipe's and goes into error messages."""

    name: str
    network: nn.Module
    patch_size: int
    pixels: PixelSettings
    size: int


class TransformersNetwork(nn.Module):
    """A transformers vision model; tokens are its `last_hidden_state`, after its final norm."""

    def __init__(self, model: PreTrainedModel, size: int):
        super().__init__()
        self.model = model
        self.norm = getattr(model, NORM_LEFT_OUT.get(model.config.model_type, ""), nn.Identity())
        accepted = inspect.signature(model.forward).parameters
        wants_interpolation = "interpolate_pos_encoding" in accepted and size != getattr(model.config, "image_size", 0)
        self.arguments = {"interpolate_pos_encoding": True} if wants_interpolation else {}

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens (N, L, Dt) of images (N, 3, S, S); whatever else the model gives comes out as it is."""
        tokens = self.model(pixels, **self.arguments).last_hidden_state
        return self.norm(tokens) if tokens.dim() == 3 else tokens


class NaFlexNetwork(nn.Module):
    """A SigLIP 2 vision model of the NaFlex kind, which takes patches flattened channel last."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens (N, L, Dt) of images (N, 3, S, S)."""
        patch_size = self.model.config.patch_size
        # (N, 3, S, S) -> (N, 3, g, p, g, p) -> (N, g, g, p, p, 3)
        grid = pixels.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size)).permute(0, 2, 4, 3, 5, 1)
        patches = grid.flatten(3).flatten(1, 2)
        shapes = torch.tensor([grid.shape[1:3]] * len(pixels), device=pixels.device)
        mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=pixels.device)
        return self.model(patches, pixel_attention_mask=mask, spatial_shapes=shapes).last_hidden_state


class TimmNetwork(nn.Module):
    """A timm vision transformer; tokens after its norm, and for CLIP towers through the projection into CLIP's space.

    EVA-02 distills from the projected feature of every patch: timm calls the projection `head`, and `fc_norm` stands
    before it where the final norm does not stand before the pooling.
    """

    def __init__(self, model: Any, *, is_projected: bool):
        super().__init__()
        self.model = model
        self.project = nn.Sequential(model.fc_norm, model.head) if is_projected else nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens (N, L, Dt) of images (N, 3, S, S)."""
        return self.project(self.model.forward_features(pixels))


def load_network(recipe: TeacherRecipe) -> LoadedNetwork:
    """The recipe's network for square images.

    Raises:
        InputError: the model cannot be found or is incomplete, its files lack what is needed, or its patches do not
            divide the size; for timm names: timm is not installed.
    """
    if recipe.model.startswith(TIMM_PREFIX):
        return _load_timm(recipe)
    model = load_vision_model(recipe)
    pixels = read_pixel_settings(recipe.model)
    config = model.config
    patch_size = getattr(config, "patch_size", None)
    if isinstance(patch_size, list | tuple) and len(set(patch_size)) == 1:
        patch_size = patch_size[0]
    if not isinstance(patch_size, int):
        raise InputError(
            f"teacher {recipe.model!r} is a {config.model_type!r} model with patch_size={patch_size}: patches must be "
            "square, and its config must say how large they are"
        )
    if config.model_type == "siglip2_vision_model":
        size = recipe.size or math.isqrt(config.num_patches) * patch_size
        return LoadedNetwork(recipe.model, NaFlexNetwork(model), patch_size, pixels, size)
    size = recipe.size or pixels.size or getattr(config, "image_size", None)
    if not isinstance(size, int):
        raise InputError(f"the files of teacher {recipe.model!r} do not say its input size: give teacher.size")
    return LoadedNetwork(recipe.model, TransformersNetwork(model, size), patch_size, pixels, size)


def load_config(name: str) -> PreTrainedConfig:
    """The config of a transformers model; of a model of images and texts, that of its vision part.

    Raises:
        InputError: there is none.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot load the teacher {name!r}: {_first_line(error)}") from error
    return getattr(config, "vision_config", config)


def load_vision_model(recipe: TeacherRecipe, **overrides: Any) -> PreTrainedModel:
    """The pretrained transformers model, frozen and in eval mode; `overrides` are values of its config.

    Raises:
        InputError: it cannot be loaded, or the checkpoint lacks weights: those would be random.
    """
    config = load_config(recipe.model)
    for name, value in overrides.items():
        setattr(config, name, value)
    try:
        model, report = AutoModel.from_pretrained(
            recipe.model, config=config, dtype=getattr(torch, recipe.dtype), output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot load the teacher {recipe.model!r}: {_first_line(error)}") from error
    # poolers come after the patch tokens, which is all that a teacher gives
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(("pooler.", "head.")))
    if missing:
        raise InputError(
            f"the checkpoint of teacher {recipe.model!r} lacks {len(missing)} weights of {type(model).__name__}, such "
            f"as {missing[0]}: they would be random"
        )
    return model.requires_grad_(False).eval()


def read_pixel_settings(name: str) -> PixelSettings:
    """What `preprocessor_config.json` of a transformers model says of pixels.

    Raises:
        InputError: there is no such file, or it lacks mean or standard deviation.
    """
    try:
        settings, _ = BaseImageProcessor.get_image_processor_dict(name)
    except (OSError, ValueError) as error:
        raise InputError(f"teacher {name!r} has no image processor: {_first_line(error)}") from error
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if not settings.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    if not (mean and std and len(mean) == len(std) == 3 and all(std)):
        raise InputError(f"the image processor of teacher {name!r} has image_mean={mean} and image_std={std}")
    resample = settings.get("resample")
    return PixelSettings(
        size=_size(settings),
        mean=tuple(mean),
        std=tuple(std),
        resample=int(Image.Resampling.BICUBIC if resample is None else resample),
    )


def _size(settings: dict[str, Any]) -> int | None:
    """The side of what reaches the model: of the center crop where there is one, else of the resized image."""
    for name, is_used in (("crop_size", "do_center_crop"), ("size", "do_resize")):
        size = settings.get(name)
        if not size or not settings.get(is_used, True):
            continue
        if isinstance(size, int):
            return size
        return size.get("height") or size.get("shortest_edge")
    return None


def _load_timm(recipe: TeacherRecipe) -> LoadedNetwork:
    try:
        import timm  # pyrefly: ignore[missing-import]
        from timm.data import resolve_model_data_config  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise InputError(f"teacher {recipe.model!r} needs timm: pip install 'turingvit_hf[teachers]'") from error
    name = recipe.model.removeprefix(TIMM_PREFIX)
    options = {} if recipe.size is None else {"img_size": recipe.size}
    try:
        model = timm.create_model(name, pretrained=True, **options)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"cannot load the teacher {recipe.model!r} through timm: {_first_line(error)}") from error
    if not hasattr(model, "patch_embed") or not hasattr(model, "num_prefix_tokens"):
        raise InputError(f"teacher {recipe.model!r} is a {type(model).__name__}, which has no patch tokens")
    settings = resolve_model_data_config(model)
    size = recipe.size or settings["input_size"][-1]
    pixels = PixelSettings(
        size=size,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        resample=int(getattr(Image.Resampling, settings["interpolation"].upper(), Image.Resampling.BICUBIC)),
    )
    is_projected = "_clip_" in model.pretrained_cfg["architecture"]
    model = model.to(getattr(torch, recipe.dtype)).requires_grad_(False).eval()
    network = TimmNetwork(model, is_projected=is_projected)
    patch_size = model.patch_embed.patch_size[0]
    return LoadedNetwork(recipe.model, network, patch_size, pixels, size)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
