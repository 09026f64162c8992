# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The towers that are measured beside each other: how each is built, and what it takes for square images.

Sizes are those of the checkpoints' configurations; weights are random. Every tower has patches of 16 x 16 pixels, so
that all of them see the same number of patches.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import (
    DINOv3ViTConfig,
    DINOv3ViTModel,
    Qwen3VLVisionConfig,
    Qwen3VLVisionModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.activations import ACT2FN
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

from turingvit_hf.errors import InputError
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel


PATCH = 16
PATCH_VALUES = 3 * PATCH**2
# sides of images are whole groups of 2 x 2 patches, which Qwen3-VL merges
SIDE_STEP = 2 * PATCH


@dataclass(frozen=True)
class TowerSize:
    """Layers, width, heads, and the width inside the MLP."""

    layers: int
    width: int
    heads: int
    mlp_width: int


@dataclass(frozen=True)
class Tower:
    """A tower that can be measured.

    Attributes:
        name: what the command line calls it.
        text: what it is, in a few words.
        size: of it.
        build: the model of a size, for images of a side in pixels.
        inputs: its arguments for (side, batch, device); on the meta device so that nothing reads a value.
        package: what has to be installed for it, beyond this package's own requirements; None is nothing.
    """

    name: str
    text: str
    size: TowerSize
    build: Callable[[TowerSize, int], nn.Module]
    inputs: Callable[[int, int, torch.device], dict[str, Any]]
    package: str | None = None

    def missing(self) -> str | None:
        """Why the tower cannot be built here, or None."""
        if self.package is None or importlib.util.find_spec(self.package) is not None:
            return None
        return f"{self.package} is not installed"

    def resized(self, size: TowerSize) -> "Tower":
        """The same architecture in another size."""
        return replace(self, size=size)


class TwoMatrixMLP(nn.Module):
    """down(gelu(up(x))), with biases."""

    def __init__(self, width: int, mlp_width: int):
        super().__init__()
        self.up_proj = nn.Linear(width, mlp_width)
        self.down_proj = nn.Linear(mlp_width, width)
        self.act = ACT2FN["gelu"]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The MLP of each token, (..., D) -> (..., D)."""
        return self.down_proj(self.act(self.up_proj(hidden_states)))


def _turingvit_config(size: TowerSize, **changes: Any) -> TuringViTConfig:
    return TuringViTConfig(
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.mlp_width,
        **changes,
    )


def build_turingvit(size: TowerSize, side: int) -> nn.Module:
    """Five layers of linear attention, one of softmax attention, and so on."""
    return TuringViTModel(_turingvit_config(size))


def build_seed_like(size: TowerSize, side: int) -> nn.Module:
    """This package's own layers of softmax attention with 2-D RoPE, each with an MLP of two matrices."""
    model = TuringViTModel(_turingvit_config(size, layer_types=["full_attention"] * size.layers))
    for layer in model.layers:
        layer.mlp = TwoMatrixMLP(size.width, size.mlp_width)
    return model


def _transformers_size(size: TowerSize) -> dict[str, Any]:
    return {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.mlp_width,
        "patch_size": PATCH,
    }


def build_siglip2_naflex(size: TowerSize, side: int) -> nn.Module:
    """SigLIP2 for images of any size: sequences of patches with a mask, a table of positions resized for each."""
    return Siglip2VisionModel(Siglip2VisionConfig(**_transformers_size(size)))


def build_siglip2_fixed(size: TowerSize, side: int) -> nn.Module:
    """SigLIP2 for images of one size, which transformers runs as SigLIP; its table of positions is that long."""
    return SiglipVisionModel(SiglipVisionConfig(**_transformers_size(size), image_size=side))


def build_dinov3(size: TowerSize, side: int) -> nn.Module:
    """DINOv3's ViT with a class token and four registers."""
    return DINOv3ViTModel(DINOv3ViTConfig(**_transformers_size(size), image_size=side, num_register_tokens=4))


def build_qwen3_vl(size: TowerSize, side: int) -> nn.Module:
    """The vision tower of Qwen3-VL with its mergers of 2 x 2 tokens."""
    config = Qwen3VLVisionConfig(
        hidden_size=size.width,
        depth=size.layers,
        num_heads=size.heads,
        intermediate_size=size.mlp_width,
        patch_size=PATCH,
        deepstack_visual_indexes=[index for index in (8, 16, 24) if index < size.layers],
    )
    return Qwen3VLVisionModel(config)


def build_naflexvit(size: TowerSize, side: int) -> nn.Module:
    """timm's NaFlexVit as its SigLIP2 models are configured: learned positions, attention pooling."""
    naflexvit = importlib.import_module("timm.models.naflexvit")
    config = naflexvit.NaFlexVitCfg(
        patch_size=PATCH,
        embed_dim=size.width,
        depth=size.layers,
        num_heads=size.heads,
        mlp_ratio=size.mlp_width / size.width,
        act_layer="gelu_tanh",
        global_pool="map",
        pos_embed_interp_mode="bilinear",
    )
    return naflexvit.NaFlexVit(config, num_classes=0)


def pixel_inputs(side: int, batch: int, device: torch.device) -> dict[str, Any]:
    """Images (B, 3, H, W)."""
    return {"pixel_values": torch.randn(batch, 3, side, side, device=device)}


def siglip2_naflex_inputs(side: int, batch: int, device: torch.device) -> dict[str, Any]:
    """Patches (B, N, 768) with a mask of ones, as the processor makes them of images that fill the sequence."""
    rows = side // PATCH
    is_meta = device.type == "meta"
    return {
        "pixel_values": torch.randn(batch, rows**2, PATCH_VALUES, device=device),
        "pixel_attention_mask": None if is_meta else torch.ones(batch, rows**2, dtype=torch.int32, device=device),
        "spatial_shapes": torch.tensor([[rows, rows]] * batch, device="cpu" if is_meta else device),
    }


def qwen3_vl_inputs(side: int, batch: int, device: torch.device) -> dict[str, Any]:
    """Packed patches (T, 2 · 768), an image being two equal frames in one patch, and their grid."""
    rows = side // PATCH
    is_meta = device.type == "meta"
    grid = torch.tensor([[1, rows, rows]] * batch, device="cpu" if is_meta else device)
    inputs = {"hidden_states": torch.randn(batch * rows**2, 2 * PATCH_VALUES, device=device), "grid_thw": grid}
    if is_meta:  # all that the tower would compute from the values of the grid
        config = Qwen3VLVisionConfig()
        indices, weights = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=int(config.num_position_embeddings**0.5),
            mode="bilinear",
            align_corners=True,
            spatial_merge_size=config.spatial_merge_size,
        )
        inputs |= {"interp_indices": indices.to(device), "interp_weights": weights.to(device)}
        inputs |= {"position_ids": get_vision_position_ids(grid, config.spatial_merge_size).to(device)}
        inputs |= {"cu_seqlens": get_vision_cu_seqlens(grid)}
    return inputs


def naflexvit_inputs(side: int, batch: int, device: torch.device) -> dict[str, Any]:
    """Patches (B, N, 768) with their coordinates (row, column) and a mask of what is valid."""
    rows = side // PATCH
    if device.type == "meta":  # an image instead, which the tower cuts into patches: no positions to read
        return {"x": torch.randn(batch, 3, side, side, device=device)}
    axes = torch.arange(rows, device=device)
    coordinates = torch.cartesian_prod(axes, axes).expand(batch, -1, -1)
    return {
        "x": torch.randn(batch, rows**2, PATCH_VALUES, device=device),
        "patch_coord": coordinates,
        "patch_valid": torch.ones(batch, rows**2, dtype=torch.bool, device=device),
    }


LARGE = TowerSize(layers=24, width=1024, heads=16, mlp_width=4096)
TOWERS = {
    tower.name: tower
    for tower in (
        Tower(
            "turingvit-18l",
            "TuringViT-18L: 15 layers of linear and 3 of softmax attention, SwiGLU",
            TowerSize(layers=18, width=1280, heads=20, mlp_width=5120),
            build_turingvit,
            pixel_inputs,
        ),
        Tower(
            "turingvit-24l",
            "TuringViT-24L: 20 layers of linear and 4 of softmax attention, SwiGLU",
            TowerSize(layers=24, width=1280, heads=20, mlp_width=5120),
            build_turingvit,
            pixel_inputs,
        ),
        Tower(
            "siglip2-l",
            "SigLIP2-L/16 for one size of images (transformers' SiglipVisionModel)",
            LARGE,
            build_siglip2_fixed,
            pixel_inputs,
        ),
        Tower(
            "siglip2-l-naflex",
            "SigLIP2 NaFlex in the size of L/16 (transformers' Siglip2VisionModel), a mask of ones",
            LARGE,
            build_siglip2_naflex,
            siglip2_naflex_inputs,
        ),
        Tower(
            "seed1.5-like",
            "in the dimensions of Seed1.5-ViT, from this package's softmax layers; patch 16 where the original has 14",
            TowerSize(layers=27, width=1280, heads=20, mlp_width=5120),
            build_seed_like,
            pixel_inputs,
        ),
        Tower(
            "dinov3-l",
            "DINOv3 ViT-L/16 (transformers' DINOv3ViTModel), class token and 4 registers, no pooling head",
            LARGE,
            build_dinov3,
            pixel_inputs,
        ),
        Tower(
            "qwen3-vl",
            "Qwen3-VL's tower (transformers' Qwen3VLVisionModel, its default size), mergers of 2 x 2 tokens",
            TowerSize(layers=27, width=1152, heads=16, mlp_width=4304),
            build_qwen3_vl,
            qwen3_vl_inputs,
        ),
        Tower(
            "naflexvit-l",
            "timm's NaFlexVit in the size of L/16, configured as its SigLIP2 models",
            LARGE,
            build_naflexvit,
            naflexvit_inputs,
            package="timm",
        ),
    )
}


def choose_towers(names: tuple[str, ...], towers: dict[str, Tower] = TOWERS) -> list[Tower]:
    """The towers of these names, in this order; all of them for no names.

    Raises:
        InputError: there is no tower of that name.
    """
    for name in names:
        if name not in towers:
            raise InputError(f"there is no tower {name!r}: allowed are {', '.join(towers)}")
    return [towers[name] for name in names or towers]
