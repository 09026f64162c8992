# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The norm and the MLP that layers and pooling head share."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig


class TuringViTRMSNorm(nn.RMSNorm):
    """Root-mean-square norm over the last dimension."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The normed input, (..., D) -> (..., D), in the wider one of the dtypes of input and weight."""
        # Under autocast 16-bit activations meet a float32 weight, which torch's fused norm refuses with a warning.
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        return F.rms_norm(x.to(dtype), self.normalized_shape, self.weight.to(dtype), self.eps)

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
        return self.down_proj(self.act(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))
