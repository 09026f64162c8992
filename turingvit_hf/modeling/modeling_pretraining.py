# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The names of the dual encoder under the module they were first in."""

from turingvit_hf.modeling.configuration_dual_encoder import (
    TEXT_POOLINGS,
    TuringViTDualEncoderConfig,
    initial_logit_bias,
)
from turingvit_hf.modeling.modeling_dual_encoder import (
    TuringViTDualEncoderModel,
    TuringViTDualEncoderOutput,
    pairwise_sigmoid_loss,
)


__all__ = [
    "TEXT_POOLINGS",
    "TuringViTDualEncoderConfig",
    "TuringViTDualEncoderModel",
    "TuringViTDualEncoderOutput",
    "initial_logit_bias",
    "pairwise_sigmoid_loss",
]
