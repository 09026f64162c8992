# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The TuringViT tower, and an image classifier and a backbone for dense prediction on top of it.

Notable features:
- of every six layers five are linear attention, the sixth is softmax attention;
- images keep their resolution and aspect ratio and travel packed, without padding;
- three input forms, packed, batch, and padded batch with sizes, give the same numbers for the same image;
- 2-D RoPE on normalized coordinates, no position table, no class or register tokens, no biases;
- RMSNorm before each part, SwiGLU, a final norm, attention pooling.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from turingvit_hf.kernels.linear_attention import choose_backend
from turingvit_hf.modeling.attention import TuringViTLinearAttention, TuringViTSoftmaxAttention
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.layers import TuringViTMLP, TuringViTRMSNorm, replace_masked
from turingvit_hf.modeling.packing import check_packed, cu_seqlens_from_grid, pack_padded, patchify
from turingvit_hf.modeling.pooling import TuringViTPoolingHead, mean_over_tokens
from turingvit_hf.modeling.rope import TuringViTRotaryEmbedding


class TuringViTLayer(GradientCheckpointingLayer):
    """One layer: attention, then MLP, each on the normed input and added to it."""

    def __init__(self, config: TuringViTConfig, layer_type: str):
        super().__init__()
        self.attention_norm = TuringViTRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.is_linear = layer_type == "linear_attention"
        self.attention = TuringViTLinearAttention(config) if self.is_linear else TuringViTSoftmaxAttention(config)
        self.mlp_norm = TuringViTRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = TuringViTMLP(config)

    def forward(self, hidden_states: torch.Tensor, cu_seqlens: torch.Tensor | None, rope: tuple) -> torch.Tensor:
        """The next hidden states, shaped like `hidden_states`; the other arguments are those of the attention."""
        attended = self.attention(self.attention_norm(hidden_states), cu_seqlens, rope)
        hidden_states = hidden_states + (attended if self.is_linear else attended[0])
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))


class TuringViTPreTrainedModel(PreTrainedModel):
    """What every TuringViT model shares: configuration, initialization, and what it can do."""

    config: TuringViTConfig
    base_model_prefix = "turingvit"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["TuringViTLayer"]
    _input_embed_layer = "patch_embed"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": TuringViTLayer, "attentions": TuringViTSoftmaxAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, TuringViTPoolingHead):
            init.trunc_normal_(module.query, mean=0.0, std=self.config.initializer_range)

    def set_linear_attention_backend(self, name: str | None) -> None:
        """Makes the linear attention of this model run on the named backend; None goes back to the device's own.

        A run-time choice: it is not saved with the model.

        Raises:
            ValueError: `name` is no backend of this installation.
        """
        choose_backend(name, self.device)
        for module in self.modules():
            if isinstance(module, TuringViTLinearAttention):
                module.backend = name


class TuringViTModel(TuringViTPreTrainedModel):
    """The tower: pixels to patch tokens and, with its pooling head, to one vector for each image.

    Args:
        config: The architecture.
        add_pooling_head: False leaves the head out whatever the configuration says.
    """

    def __init__(self, config: TuringViTConfig, add_pooling_head: bool = True):
        super().__init__(config)
        self.patch_size = config.patch_size
        self.patch_embed = nn.Linear(config.patch_dim, config.hidden_size)
        self.rope = TuringViTRotaryEmbedding(config)
        self.layers = nn.ModuleList(TuringViTLayer(config, layer_type) for layer_type in config.layer_types or ())
        self.final_norm = TuringViTRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.head = TuringViTPoolingHead(config) if config.vision_use_head and add_pooling_head else None
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        image_sizes: torch.Tensor | list | None = None,
        masked_patches: torch.Tensor | None = None,
        mask_token: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Patch tokens and pooled vectors of images in any of three forms.

        | `pixel_values` | beside it | `last_hidden_state` | `pooler_output` |
        |---|---|---|---|
        | (T, C·p·p), packed | `image_grid_thw` (N, 3) | (T, D) | (N, D) |
        | (B, C, H, W) | nothing | (B, H/p · W/p, D) | (B, D) |
        | (B, C, Hmax, Wmax), padded | `image_sizes` (B, 2) | (1, T, D) | (B, D) |

        Args:
            pixel_values: Normalized pixels in one of the forms above; cast to the dtype of the model.
            image_grid_thw: (N, 3) int64 rows of frames, rows of patches, columns of patches.
            image_sizes: (B, 2) true (height, width) in pixels of padded images, multiples of the patch size.
            masked_patches: Which patches are hidden, bool or 0 and 1, shaped like `last_hidden_state` without D.
            mask_token: (D,) what stands in for the embedding of a hidden patch; the tower itself has none.
            **kwargs: `output_hidden_states` (True, an index or a list of them), `output_attentions`, `return_dict`.

        Returns:
            The last hidden state after the final norm, the pooled vectors (None without the head) and what was asked
            for; hidden states have the layout of the last one.

        Raises:
            ValueError: The form is none of the three, or pixels, sizes, grid and mask do not fit together.
        """
        patches, grid, cu_seqlens = self._as_patches(pixel_values, image_grid_thw, image_sizes)
        rope = self._rope(pixel_values, patches, grid)
        hidden_states = self.patch_embed(patches.to(self.final_norm.weight.dtype))
        if masked_patches is not None:
            hidden_states = replace_masked(hidden_states, masked_patches, mask_token)
        for layer in self.layers:
            hidden_states = layer(hidden_states, cu_seqlens, rope)
        hidden_states = self.final_norm(hidden_states)
        pooled = None if self.head is None else self.head(hidden_states, cu_seqlens, grid)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)

    def _as_patches(self, pixel_values, image_grid_thw, image_sizes):
        """Patches in the layout of the form, with grid and segment bounds for packs and None, None for a batch."""
        if pixel_values.dim() == 2 and image_grid_thw is not None and image_sizes is None:
            check_packed(pixel_values, image_grid_thw, self.config.patch_dim)
            return pixel_values, image_grid_thw, cu_seqlens_from_grid(image_grid_thw)
        if pixel_values.dim() != 4 or image_grid_thw is not None:
            beside = {"image_grid_thw": image_grid_thw, "image_sizes": image_sizes}
            raise ValueError(
                "pixel_values must be packed (T, C*p*p) with image_grid_thw, or images (B, C, H, W) with or without "
                f"image_sizes; got {tuple(pixel_values.shape)} beside "
                f"{[name for name, value in beside.items() if value is not None] or 'nothing'}"
            )
        if pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"pixel_values has {pixel_values.shape[1]} channels, this tower takes {self.config.num_channels}"
            )
        if pixel_values.shape[0] == 0:
            raise ValueError("pixel_values holds no image")
        if image_sizes is None:
            return patchify(pixel_values, self.patch_size), None, None
        patches, grid = pack_padded(pixel_values, image_sizes, self.patch_size)
        return patches[None], grid, cu_seqlens_from_grid(grid)

    def _rope(self, pixel_values, patches, grid):
        if grid is not None:
            return self.rope(grid, patches.shape[-2])
        height, width = (side // self.patch_size for side in pixel_values.shape[-2:])
        return self.rope.dense(pixel_values, height, width)


class TuringViTForImageClassification(TuringViTPreTrainedModel):
    """The tower with a linear classifier on its pooled vectors, or on mean tokens if it has no pooling head."""

    def __init__(self, config: TuringViTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.turingvit = TuringViTModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else nn.Identity()
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        image_sizes: torch.Tensor | list | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Class logits (N, num_labels) of images in any input form of `TuringViTModel.forward`.

        Args:
            pixel_values: Pixels in one of the tower's three forms.
            image_grid_thw: (N, 3), with packed pixels.
            image_sizes: (B, 2), with padded pixels.
            labels: (N,) class indices, or (N, num_labels) for regression and multi-label; their loss is returned.
            **kwargs: Passed on to the tower.
        """
        outputs = self.turingvit(pixel_values, image_grid_thw=image_grid_thw, image_sizes=image_sizes, **kwargs)
        pooled = outputs.pooler_output
        if pooled is None:
            pooled = mean_over_tokens(outputs.last_hidden_state, self._grid(image_grid_thw, image_sizes))
        logits = self.classifier(pooled)
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **kwargs)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _grid(self, image_grid_thw, image_sizes):
        if image_sizes is None:
            return image_grid_thw
        sizes = torch.as_tensor(image_sizes, device=self.device) // self.config.patch_size
        return F.pad(sizes, (1, 0), value=1)


class TuringViTBackbone(BackboneMixin, TuringViTPreTrainedModel):
    """Feature maps of chosen layers for detection and segmentation heads, at any input size."""

    _keys_to_ignore_on_load_unexpected = [r"(^|\.)head\."]

    def __init__(self, config: TuringViTConfig):
        super().__init__(config)
        self.turingvit = TuringViTModel(config, add_pooling_head=False)
        self.num_features = [config.hidden_size] * (config.num_hidden_layers + 1)
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        """Feature maps (B, D, ceil(H/p), ceil(W/p)) of the layers in `out_features`, "stem" or "stage1" and so on.

        Args:
            pixel_values: (B, C, H, W) of any size; sides that are no multiple of the patch size are padded with zeros
                at the bottom and at the right.
            **kwargs: Passed on to the tower.

        Raises:
            ValueError: `pixel_values` has another number of dimensions or channels.
        """
        if pixel_values.dim() != 4:
            raise ValueError(f"a backbone takes images (B, C, H, W), got {tuple(pixel_values.shape)}")
        patch = self.config.patch_size
        pixel_values = F.pad(pixel_values, (0, -pixel_values.shape[3] % patch, 0, -pixel_values.shape[2] % patch))
        grid = [side // patch for side in pixel_values.shape[2:]]
        kwargs["output_hidden_states"] = True
        outputs = self.turingvit(pixel_values, **kwargs)
        feature_maps = []
        for stage, hidden_states in zip(self.stage_names, outputs.hidden_states, strict=True):
            if stage not in self.out_features:
                continue
            # The last one is after the final norm already.
            if self.config.apply_layernorm and stage != self.stage_names[-1]:
                hidden_states = self.turingvit.final_norm(hidden_states)
            if self.config.reshape_hidden_states:
                hidden_states = hidden_states.transpose(1, 2).unflatten(2, grid).contiguous()
            feature_maps.append(hidden_states)
        return BackboneOutput(
            feature_maps=tuple(feature_maps), hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = ["TuringViTBackbone", "TuringViTForImageClassification", "TuringViTModel", "TuringViTPreTrainedModel"]
