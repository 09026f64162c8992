# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Tiny towers, images for them, and a twin of the whole tower in float64, written from the architecture's formulas."""

from types import SimpleNamespace

import numpy as np
import torch

from tests.helpers import rms_norm, silu, softmax, tla_numpy, turn
from turingvit_hf import TuringViTConfig, TuringViTModel


LINEAR, SOFTMAX = "linear_attention", "full_attention"


def tiny_config(**changes) -> TuringViTConfig:
    """A tower of three layers, 32 wide, with patches of 4x4 pixels; `changes` replace fields."""
    layer_types = changes.pop("layer_types", [LINEAR, SOFTMAX, LINEAR])
    fields = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "patch_size": 4, "image_size": 16}
    return TuringViTConfig(**fields | changes, layer_types=layer_types, num_hidden_layers=len(layer_types))


def make_model(model_class: type = TuringViTModel, config: TuringViTConfig | None = None, **kwargs):
    """A model in evaluation mode whose weights are large enough that no part of it is close to doing nothing."""
    model = model_class(config or tiny_config(), **kwargs).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if name.endswith("norm.weight") else 0.3 * noise)
    return model


def make_image(rows: int, columns: int, *, frames: int | None = None, patch_size: int = 4, channels: int = 3):
    """Random pixels of rows x columns patches: (C, H, W), or a clip (F, C, H, W)."""
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    shape = (channels, rows * patch_size, columns * patch_size)
    return torch.randn(*(() if frames is None else (frames,)), *shape, generator=generator)


def pack(images: list[torch.Tensor], patch_size: int = 4) -> dict[str, torch.Tensor]:
    """Images (C, H, W) and clips (F, C, H, W) in the packed form, patch after patch."""
    patches, grid = [], []
    for image in images:
        frames = image if image.dim() == 4 else image[None]
        rows, columns = (side // patch_size for side in frames.shape[-2:])
        grid.append((len(frames), rows, columns))
        for frame in frames:
            for row in range(rows):
                for column in range(columns):
                    y, x = row * patch_size, column * patch_size
                    patches.append(frame[:, y : y + patch_size, x : x + patch_size].reshape(-1))
    return {"pixel_values": torch.stack(patches), "image_grid_thw": torch.tensor(grid)}


def pad(images: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Images (C, H, W) in the padded form; what lies outside of them is NaN, so that nobody may read it."""
    sizes = torch.tensor([image.shape[-2:] for image in images])
    height, width = sizes.amax(0).tolist()
    batch = torch.full((len(images), images[0].shape[0], height, width), torch.nan)
    for frame, image in zip(batch, images, strict=True):
        frame[:, : image.shape[1], : image.shape[2]] = image
    return {"pixel_values": batch, "image_sizes": sizes}


def rope_phase(height: int, width: int, head_dim: int, base: float = 100.0, factor: float = 1.0) -> np.ndarray:
    """cos + i·sin of each pair at each patch of an image, row by row: (height·width, K/2), first y, then x."""
    phases = []
    for row in range(height):
        for column in range(width):
            y, x = (row + 0.5) / height * 2 - 1, (column + 0.5) / width * 2 - 1
            periods = [base ** (2 * j / (head_dim / 2)) for j in range(head_dim // 4)]
            angles = [2 * np.pi * factor * coordinate / period for coordinate in (y, x) for period in periods]
            phases.append(np.exp(1j * np.array(angles)))
    return np.array(phases)


class TowerTwin:
    """The whole tower in float64 NumPy, one frame at a time, reading a state dict by its public names."""

    def __init__(self, config, state_dict: dict[str, torch.Tensor]):
        self.config = config
        self.weights = {name: np.asarray(tensor.double()) for name, tensor in state_dict.items()}
        self.head_dim = config.hidden_size // config.num_attention_heads

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        """x W^T of the matrix `name`."""
        return x @ self.weights[f"{name}.weight"].T

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """RMSNorm with the weight `name`."""
        return rms_norm(x, self.weights[f"{name}.weight"], self.config.rms_norm_eps)

    def mlp(self, name: str, x: np.ndarray) -> np.ndarray:
        """SwiGLU."""
        hidden = silu(self.linear(f"{name}.gate_proj", x)) * self.linear(f"{name}.up_proj", x)
        return self.linear(f"{name}.down_proj", hidden)

    def heads(self, x: np.ndarray) -> np.ndarray:
        """(n, D) -> (n, H, K)."""
        return x.reshape(len(x), -1, self.head_dim)

    def linear_attention(self, name: str, x: np.ndarray, phase: np.ndarray) -> np.ndarray:
        """Turing Linear Attention of one image."""
        table = {"cos": phase.real, "sin": phase.imag} if self.config.tla_rope == "post_activation" else {}
        out = tla_numpy(
            *(self.heads(self.linear(f"{name}.{kind}_proj", x)) for kind in "qkv"),
            (len(x),),
            gate=self.linear(f"{name}.output_gate", x),
            norm_weight=self.weights[f"{name}.output_norm.weight"],
            eps=self.config.rms_norm_eps,
            **table,
        )
        return self.linear(f"{name}.o_proj", out) if self.config.tla_output_projection else out

    def softmax_attention(self, name: str, x: np.ndarray, phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Softmax attention of one image (n, D), and its weights (H, n, n)."""
        q, k, v = (self.heads(self.linear(f"{name}.{kind}_proj", x)) for kind in "qkv")
        out, weights = [], []
        for head in range(q.shape[1]):
            Q, K = turn(q[:, head], phase), turn(k[:, head], phase)
            weights.append(softmax(Q @ K.T / np.sqrt(self.head_dim)))
            out.append(weights[-1] @ v[:, head])
        return self.linear(f"{name}.o_proj", np.concatenate(out, -1)), np.array(weights)

    def pool(self, x: np.ndarray, name: str = "head") -> np.ndarray:
        """One frame's tokens (n, D) as one vector (D,): the query of each head weighs the values."""
        query = self.heads(self.weights[f"{name}.query"][None])[0]
        k, v = (self.heads(self.linear(f"{name}.{kind}_proj", x)) for kind in "kv")
        attended = [
            softmax(k[:, h] @ query[h] / np.sqrt(self.head_dim)) @ v[:, h]
            for h in range(self.config.num_attention_heads)
        ]
        pooled = self.linear(f"{name}.o_proj", np.concatenate(attended)[None])
        return (pooled + self.mlp(f"{name}.mlp", self.norm(f"{name}.mlp_norm", pooled)))[0]

    def image(self, image: torch.Tensor) -> SimpleNamespace:
        """As `frame`, for an image or a clip (F, C, H, W): hidden states of all frames, the mean of pooled vectors."""
        frames = [self.frame(np.asarray(frame)) for frame in (image if image.dim() == 4 else image[None])]
        hidden_states = [np.concatenate(states) for states in zip(*(f.hidden_states for f in frames), strict=True)]
        pooled = None if frames[0].pooled is None else np.mean([frame.pooled for frame in frames], axis=0)
        return SimpleNamespace(hidden_states=hidden_states, attentions=[f.attentions for f in frames], pooled=pooled)

    def frame(self, image: np.ndarray) -> SimpleNamespace:
        """Everything the tower computes of one frame (C, H, W): hidden states, attention weights, pooled vector."""
        p = self.config.patch_size
        rows, columns = image.shape[1] // p, image.shape[2] // p
        phase = rope_phase(rows, columns, self.head_dim, self.config.rope_theta)
        patches = [
            image[:, r * p : (r + 1) * p, c * p : (c + 1) * p].ravel() for r in range(rows) for c in range(columns)
        ]
        x = self.linear("patch_embed", np.asarray(patches, np.float64)) + self.weights["patch_embed.bias"]
        hidden_states, attentions = [x], []
        for i, kind in enumerate(self.config.layer_types):
            normed = self.norm(f"layers.{i}.attention_norm", x)
            if kind == "linear_attention":
                x = x + self.linear_attention(f"layers.{i}.attention", normed, phase)
            else:
                attended, weights = self.softmax_attention(f"layers.{i}.attention", normed, phase)
                attentions.append(weights)
                x = x + attended
            x = x + self.mlp(f"layers.{i}.mlp", self.norm(f"layers.{i}.mlp_norm", x))
            hidden_states.append(x)
        hidden_states[-1] = self.norm("final_norm", x)
        pooled = self.pool(hidden_states[-1]) if "head.query" in self.weights else None
        return SimpleNamespace(hidden_states=hidden_states, attentions=attentions, pooled=pooled)
