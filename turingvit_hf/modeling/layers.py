# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The norm and the MLP that layers and pooling head share, and what hides patches from the layers."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig


# Tokens at a time through norm and MLP on a CPU: the temporaries of the MLP (21 MB each at width 5120 in float32) fit
# into memory that the allocator keeps; larger ones are mapped afresh, at the price of a page fault each 4 KB.
BLOCK_TOKENS = 1024


def by_blocks(function: Callable[[torch.Tensor], torch.Tensor], hidden_states: torch.Tensor) -> torch.Tensor:
    """`function(hidden_states)` of a function that treats each token alone, (..., D) -> (..., D), in blocks of tokens.

    Blocks pay where temporaries die at once: on a CPU, with gradients off. Everywhere else it is one plain call.
    """
    one_call = torch.is_grad_enabled() or torch.compiler.is_compiling() or not hidden_states.is_cpu
    if one_call or (num_tokens := hidden_states.shape[:-1].numel()) <= BLOCK_TOKENS:
        return function(hidden_states)
    blocks = hidden_states.flatten(0, -2).tensor_split(-(-num_tokens // BLOCK_TOKENS))
    return torch.cat([function(block) for block in blocks]).view(hidden_states.shape)


class TuringViTRMSNorm(nn.RMSNorm):
    """Root-mean-square norm over the last dimension."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The normed input, (..., D) -> (..., D), in the wider one of the dtypes of input and weight."""
        # Under autocast 16-bit activations meet a float32 weight, which torch's fused norm refuses with a warning.
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        weight = self.weight.to(dtype)
        return by_blocks(lambda block: F.rms_norm(block.to(dtype), self.normalized_shape, weight, self.eps), x)

    eps: float


class TuringViTMLP(nn.Module):
    """SwiGLU: down(act(gate(x)) · up(x)), three matrices without bias."""

    def __init__(self, config: TuringViTConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The MLP of each token, (..., D) -> (..., D)."""
        return by_blocks(self._swiglu, hidden_states)

    def _swiglu(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))


def replace_masked(
    hidden_states: torch.Tensor, masked_patches: torch.Tensor, mask_token: torch.Tensor | None
) -> torch.Tensor:
    """Patch embeddings (..., D) with `mask_token` (D,) in place of those where `masked_patches` (...) is true.

    Raises:
        ValueError: The mask is not shaped like the patches, or there is no mask token.
    """
    if masked_patches.shape != hidden_states.shape[:-1]:
        raise ValueError(
            f"a mask of patches must be shaped like them, {tuple(hidden_states.shape[:-1])}, got "
            f"{tuple(masked_patches.shape)}"
        )
    if mask_token is None:
        raise ValueError("masked_patches needs a mask_token, which TuringViTForMaskedImageModeling has")
    return torch.where(masked_patches[..., None].bool(), mask_token.to(hidden_states.dtype), hidden_states)
