# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The architecture of a TuringViT tower; backend, precision and checkpointing are run-time choices, not in here."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig


@strict
class TuringViTConfig(BackboneConfigMixin, PreTrainedConfig):
    """Configuration of a TuringViT tower; the defaults are TuringViT-18L, `num_hidden_layers=24` is TuringViT-24L.

    Args:
        hidden_size: Width of the tower, a multiple of `num_attention_heads`.
        intermediate_size: Width inside the SwiGLU MLP (three matrices).
        num_hidden_layers: Number of layers; a multiple of `full_attention_interval` unless `layer_types` is given.
        num_attention_heads: Heads of both kinds of attention; the head size must be divisible by 4 for 2-D RoPE.
        num_channels: Channels of the pixels.
        patch_size: Side of a square patch in pixels.
        image_size: Nominal side in pixels, which VLMs read; the tower itself takes any size.
        hidden_act: Activation of the MLP's gate.
        rms_norm_eps: Added to the mean square in every RMSNorm; `layer_norm_eps` is another name for it.
        initializer_range: Standard deviation of the truncated normal that weights start from.
        full_attention_interval: Every so many layers the last one is softmax attention, the others are linear.
        layer_types: "linear_attention" or "full_attention" for each layer; None follows `full_attention_interval`.
        rope_theta: Base of the RoPE periods, base^(2j / (head_dim / 2)).
        pos_embed_rescale: In training, each image's patch coordinates are multiplied by a factor drawn log-uniformly
            from [1/rescale, rescale]; None turns it off. Evaluation never does it.
        tla_rope: "post_activation" rotates Q and K of linear attention after their activation, "none" leaves them.
        tla_output_projection: Whether linear attention has an output projection; the report's figure draws none.
        vision_use_head: Whether the tower has its attention-pooling head; inside a VLM it has none.
        teacher_hidden_size: Width of the teacher's features, which `TuringViTForMaskedImageModeling` predicts; 1024 is
            that of EVA02-CLIP-E behind its projection.
        apply_layernorm: Whether `TuringViTBackbone` puts intermediate feature maps through the final norm.
        reshape_hidden_states: Whether `TuringViTBackbone` returns (B, D, rows, columns) instead of (B, N, D).

    Raises:
        StrictDataclassError: A value has a wrong type or the architecture is impossible; the text says which and why.
    """

    model_type = "turingvit"
    base_config_key = "vision_config"
    attribute_map: ClassVar[dict[str, str]] = {"layer_norm_eps": "rms_norm_eps"}

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 18
    num_attention_heads: int = 20
    num_channels: int = 3
    patch_size: int = 16
    image_size: int = 512
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    full_attention_interval: int = 6
    layer_types: list[str] | None = None
    rope_theta: float | int = 100.0
    pos_embed_rescale: float | int | None = 2.0
    tla_rope: str = "post_activation"
    tla_output_projection: bool = False
    vision_use_head: bool = True
    teacher_hidden_size: int = 1024
    apply_layernorm: bool = True
    reshape_hidden_states: bool = True
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        if self.num_attention_heads < 1:  # the base class reads head_dim before the validators below run
            raise ValueError(f"num_attention_heads={self.num_attention_heads} must be at least 1")
        if self.layer_types is None:
            self.layer_types = self._layer_types_by_interval()
        self.stage_names = ["stem"] + [f"stage{i}" for i in range(1, self.num_hidden_layers + 1)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)

    def _layer_types_by_interval(self) -> list[str]:
        interval, num_layers = self.full_attention_interval, self.num_hidden_layers
        if interval < 1 or num_layers < 1 or num_layers % interval:
            raise ValueError(
                f"num_hidden_layers={num_layers} is not a positive multiple of full_attention_interval={interval}; "
                "choose another number of layers or give layer_types"
            )
        return ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(num_layers)]

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def patch_dim(self) -> int:
        """Number of values in a flattened patch, num_channels · patch_size²."""
        return self.num_channels * self.patch_size**2

    def validate_heads(self):
        """The heads share the width evenly, and RoPE needs two axes of two halves in each."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}"
            )
        if self.head_dim % 4:
            raise ValueError(
                f"the head size hidden_size / num_attention_heads = {self.head_dim} is not divisible by 4 (2-D RoPE)"
            )

    def validate_attention_layers(self):
        """Each layer is one of the two kinds this tower has; the base class allows kinds of other models too."""
        allowed = ("linear_attention", "full_attention")
        for index, layer_type in enumerate(self.layer_types or ()):
            if layer_type not in allowed:
                raise ValueError(f"layer_types[{index}]={layer_type!r}, a TuringViT layer is one of {allowed}")

    def validate_tla_rope(self):
        """RoPE in linear attention comes after the activation or not at all."""
        if self.tla_rope not in ("post_activation", "none"):
            raise ValueError(f"tla_rope={self.tla_rope!r}, allowed are 'post_activation' and 'none'")

    def validate_sizes(self):
        """Sizes are at least 1, and the rescale factor too."""
        sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_channels", "patch_size", "image_size")
        sizes += ("teacher_hidden_size",)
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.pos_embed_rescale is not None and self.pos_embed_rescale < 1:
            raise ValueError(f"pos_embed_rescale={self.pos_embed_rescale} must be None or at least 1")

    def validate_constants(self):
        """What is divided by is positive, and transformers has the activation."""
        for name in ("rms_norm_eps", "rope_theta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r}, allowed are {sorted(ACT2FN)}")


__all__ = ["TuringViTConfig"]
