# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Floating-point operations that a model's mathematics needs, and how many a device can do.

Counted is what the model needs (as PaLM does for model FLOPs utilization, arXiv 2204.02311, appendix B): nothing for
recomputed activations, for the second forward of cached embeddings, or for a teacher.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from turingvit_hf.modeling.modeling_turingvit import TuringViTModel


# Dense bfloat16 products of matrices, floating-point operations a second, from the makers' data sheets; of names that
# begin alike the longest counts. NVIDIA: H100 and H200 Tensor Core GPU data sheets, A100 data sheet, L40S, L4 and A10
# product briefs, B200 in "DGX B200", Ada and Ampere GA102 white papers. AMD: Instinct MI250X, MI300X and MI325X.
PEAK_BFLOAT16 = {
    "NVIDIA B200": 2250e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA H100": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H800": 989.4e12,
    "NVIDIA A100": 312e12,
    "NVIDIA A800": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
    "NVIDIA A10": 125e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "AMD Instinct MI250X": 383e12,
    "AMD Instinct MI300X": 1307.4e12,
    "AMD Instinct MI325X": 1307.4e12,
}


def peak_flops(device: torch.device) -> float | None:
    """The dense bfloat16 operations a second of a device; None where they are not known, as for a CPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    # "NVIDIA L4" must not stand for "NVIDIA L40"
    known = [key for key in PEAK_BFLOAT16 if f"{name} ".startswith((f"{key} ", f"{key}-"))]
    return PEAK_BFLOAT16[max(known, key=len)] if known else None


@dataclass(frozen=True)
class PartFlops:
    """The operations of one part of a model for a pack: of its forward, and of forward and backward together."""

    forward: float
    training: float


class TrainingFlops:
    """Counts the operations of forward and backward for packs.

    Two for each multiply-add, three passes (forward, gradient of inputs, gradient of weights) for what is trained, two
    where the inputs need no gradient, as pixels, and one for what is frozen. With T patches in frames of n, F frames,
    H heads of K and D = H·K:

    - matrices of the layers and of the pooling head's keys and values: 2 a parameter and patch;
    - linear attention: K^T V and Q S, 4·T·D·K;
    - softmax attention: Q K^T and its product with V, 4·D a pair, so 4·D·sum of n² over frames;
    - pooling: 4·T·D for scores and sums, and 2 a parameter and frame for its output projection and MLP;
    - text encoder: 2 a parameter and token without embeddings, 2 a parameter and text of its pooler, and 4·D·L a token
      and layer for attention in texts of L tokens, padding included;
    - the decoder of masked image modeling: 2 a parameter and masked patch;
    - all other matrices (projections, heads): 2 a parameter and image.

    Args:
        model: not wrapped yet; may be on the meta device.
    """

    def __init__(self, model: nn.Module):
        towers = ((name, module) for name, module in model.named_modules() if isinstance(module, TuringViTModel))
        tower_name, tower = next(towers, ("", None))
        prefix = f"{tower_name}." if tower_name else ""
        self._config = None if tower is None else tower.config
        # operations by part, and by what they are counted for: of a forward, and of forward and backward
        self._forward: dict[tuple[str, str], float] = defaultdict(float)
        self._training: dict[tuple[str, str], float] = defaultdict(float)
        is_trained = tower is not None and any(parameter.requires_grad for parameter in tower.parameters())
        self._passes = 3 if is_trained else 1
        text_model = getattr(model, "text_model", None)
        trains_text = text_model is not None and any(p.requires_grad for p in text_model.parameters())
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and not _is_embedding(model, name):
                place = _place_in_tower(name[len(prefix) :]) if name.startswith(prefix) else _place_outside(name)
                starts = name == f"{prefix}patch_embed.weight" or (
                    name == "text_projection.weight" and not trains_text
                )
                passes = 1 if not parameter.requires_grad else 2 if starts else 3
                self._forward[place] += 2 * parameter.numel()
                self._training[place] += 2 * passes * parameter.numel()
        if text_model is not None:
            pairs = ("text", "token pair")
            self._forward[pairs] = 4 * _attention_width(text_model.config) * text_model.config.num_hidden_layers
            self._training[pairs] = (3 if trains_text else 1) * self._forward[pairs]

    def __call__(self, pack: Mapping[str, Any]) -> float:
        """The operations of one packed batch; 0 where the model has no tower or the images are not packed."""
        return sum(part.training for part in self.by_part(pack).values())

    def by_part(self, pack: Mapping[str, Any]) -> dict[str, PartFlops]:
        """The same, of each part: `"layers"`, `"embedding"`, `"pooling"`, `"text"`, `"decoder"` and `"heads"`.

        Args:
            pack: `image_grid_thw` and, where the model reads them, `input_ids` and `bool_masked_pos`; no pixels.
        """
        if self._config is None or "image_grid_thw" not in pack:
            return {}
        numbers = self._numbers(pack)
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for (part, unit), operations in self._forward.items():
            sums[part][0] += operations * numbers[unit]
            sums[part][1] += self._training[part, unit] * numbers[unit]
        layers, pooling = self._attention(numbers)
        for part, operations in (("layers", layers), ("pooling", pooling if "pooling" in sums else 0.0)):
            sums[part][0] += operations
            sums[part][1] += self._passes * operations
        return {part: PartFlops(*operations) for part, operations in sums.items() if operations[0]}

    def recomputed_scores(self, pack: Mapping[str, Any]) -> float:
        """What backward passes of attention compute again of it, as their kernels keep neither scores nor outputs.

        The scores of softmax attention, 2·D a pair, and the output of linear attention, 2·T·D·K.
        """
        return self._attention(self._numbers(pack))[0] / 2 if self._config is not None and self._passes > 1 else 0.0

    def _attention(self, numbers: Mapping[str, float]) -> tuple[float, float]:
        """The operations of a forward in the attention of all layers, and in that of the pooling head."""
        assert self._config is not None, "asked for where there is a tower"
        width, layer_types = self._config.hidden_size, self._config.layer_types or ()
        num_softmax = layer_types.count("full_attention")
        num_linear = len(layer_types) - num_softmax
        linear = num_linear * numbers["patch"] * self._config.head_dim
        return 4 * width * (linear + num_softmax * numbers["pair"]), 4 * width * numbers["patch"]

    @staticmethod
    def _numbers(pack: Mapping[str, Any]) -> dict[str, float]:
        """How many a pack has of everything that operations are counted for."""
        grid = pack["image_grid_thw"]
        frames, pixels = grid[:, 0].double(), grid[:, 1:].prod(-1).double()
        num_patches, num_pairs = torch.stack([(frames * pixels).sum(), (frames * pixels.square()).sum()]).tolist()
        num_tokens, length = 0, 1
        if "input_ids" in pack:
            num_tokens, length = pack["input_ids"].numel(), max(1, pack["input_ids"].shape[-1])
        return {
            "patch": num_patches,
            "pair": num_pairs,
            "frame": float(frames.sum()),
            "image": len(grid),
            "token": num_tokens,
            "token pair": num_tokens * length,
            "text": num_tokens // length,
            "masked": int(pack["bool_masked_pos"].sum()) if "bool_masked_pos" in pack else 0,
        }


def _attention_width(config: Any) -> int:
    """Width of all heads of a text encoder together."""
    head_dim = getattr(config, "head_dim", None)
    return config.hidden_size if head_dim is None else head_dim * config.num_attention_heads


def _is_embedding(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Embedding)


def _place_in_tower(name: str) -> tuple[str, str]:
    """The part of a matrix of the tower, and what it is multiplied with: every patch or every frame."""
    parts = name.split(".")
    if parts[0] == "head":
        return "pooling", "patch" if {"k_proj", "v_proj"} & set(parts) else "frame"
    return "layers" if parts[0] == "layers" else "embedding", "patch"


def _place_outside(name: str) -> tuple[str, str]:
    """The part of another matrix, and what it is multiplied with: every text token, text, masked patch or image."""
    parts = name.split(".")
    if "text_model" in parts:
        return "text", "text" if {"pooler", "head"} & set(parts) else "token"
    return ("decoder", "masked") if "decoder" in parts else ("heads", "image")
