# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Floating-point operations that a model's mathematics needs, and how many a device can do.

Counted is what the model needs (as PaLM does for model FLOPs utilization, arXiv 2204.02311, appendix B): nothing for
recomputed activations, for the second forward of cached embeddings, or for a teacher.
"""

from collections.abc import Mapping
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


class TrainingFlops:
    """Counts the operations of forward and backward for packs.

    Two for each multiply-add, three passes (forward, gradient of inputs, gradient of weights) for what is trained, one
    for what is frozen. With T patches in frames of n, F frames, H heads of K and D = H·K:

    - matrices of the layers and of the pooling head's keys and values: 2 a parameter and patch;
    - linear attention: K^T V and Q S, 4·T·D·K;
    - softmax attention: Q K^T and its product with V, 4·D a pair, so 4·D·sum of n² over frames;
    - pooling: 4·T·D for scores and sums, and 2 a parameter and frame for its output projection and MLP;
    - text encoder: 2 a parameter and token without embeddings; its attention is left out;
    - the decoder of masked image modeling: 2 a parameter and masked patch;
    - all other matrices (projections, heads): 2 a parameter and image.

    Args:
        model: not wrapped yet.
    """

    def __init__(self, model: nn.Module):
        towers = ((name, module) for name, module in model.named_modules() if isinstance(module, TuringViTModel))
        tower_name, tower = next(towers, ("", None))
        prefix = f"{tower_name}." if tower_name else ""
        self._config = None if tower is None else tower.config
        self._per = {"patch": 0.0, "frame": 0.0, "token": 0.0, "image": 0.0, "masked": 0.0}
        is_trained = tower is not None and any(parameter.requires_grad for parameter in tower.parameters())
        self._passes = 3 if is_trained else 1
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and not _is_embedding(model, name):
                unit = _unit_in_tower(name[len(prefix) :]) if name.startswith(prefix) else _unit_outside(name)
                self._per[unit] += 2 * (3 if parameter.requires_grad else 1) * parameter.numel()

    def __call__(self, pack: Mapping[str, Any]) -> float:
        """The operations of one packed batch; 0 where the model has no tower or the images are not packed."""
        if self._config is None or "image_grid_thw" not in pack:
            return 0.0
        grid = pack["image_grid_thw"]
        frames, pixels = grid[:, 0].double(), grid[:, 1:].prod(-1).double()
        num_patches, num_pairs = torch.stack([(frames * pixels).sum(), (frames * pixels.square()).sum()]).tolist()
        width, head = self._config.hidden_size, self._config.head_dim
        layer_types = self._config.layer_types or ()
        num_softmax = layer_types.count("full_attention")
        num_linear = len(layer_types) - num_softmax
        attention = 4 * width * (num_linear * num_patches * head + num_softmax * num_pairs + num_patches)
        num_tokens = pack["input_ids"].numel() if "input_ids" in pack else 0
        num_masked = int(pack["bool_masked_pos"].sum()) if "bool_masked_pos" in pack else 0
        return (
            self._passes * attention
            + self._per["patch"] * num_patches
            + self._per["frame"] * float(frames.sum())
            + self._per["token"] * num_tokens
            + self._per["masked"] * num_masked
            + self._per["image"] * len(grid)
        )


def _is_embedding(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Embedding)


def _unit_in_tower(name: str) -> str:
    """What a matrix of the tower is multiplied with: every patch or every frame."""
    parts = name.split(".")
    return "frame" if parts[0] == "head" and not {"k_proj", "v_proj"} & set(parts) else "patch"


def _unit_outside(name: str) -> str:
    """What another matrix is multiplied with: every text token, masked patch or image."""
    parts = name.split(".")
    return "token" if "text_model" in parts else "masked" if "decoder" in parts else "image"
