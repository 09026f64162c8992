# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Models that pretrain a tower: the dual encoder that aligns images with their captions.

The tower is always the attribute `turingvit`, so `model.turingvit.save_pretrained(...)` writes a checkpoint that
`AutoModel` loads by itself.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import Siglip2TextModel, SiglipTextModel
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto import AutoConfig, AutoModel
from transformers.utils import ModelOutput, can_return_tuple

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel


TEXT_POOLINGS = ("pooler", "mean", "last_token")


def pairwise_sigmoid_loss(logits: torch.Tensor, *, first: int = 0) -> torch.Tensor:
    """The sum over all pairs of -log sigmoid(y · logit), divided by the number of rows; y is +1 where column = `first`
    + row, else -1.

    Equation 1 of SigLIP (Zhai et al. 2023, arXiv 2303.15343).

    Args:
        logits: (N, M), row i an image and column j a text.
        first: column of the text that belongs to the first row.

    Returns:
        a scalar.
    """
    signs_NM = torch.full_like(logits, -1.0)
    signs_NM.diagonal(first).fill_(1.0)
    return -nn.functional.logsigmoid(signs_NM * logits).sum() / len(logits)


@strict
class TuringViTDualEncoderConfig(PreTrainedConfig):
    """Configuration of a tower and a text encoder that share an embedding space.

    Args:
        vision_config: Configuration of the tower, a `TuringViTConfig` or its values.
        text_config: Configuration of any transformers text encoder, or its values with their `model_type`.
        projection_dim: Width of the shared space.
        text_pooling: How the text encoder's tokens become one vector: `"pooler"` takes its own `pooler_output`,
            `"mean"` the mean over the tokens that are not padding, `"last_token"` the last such token (decoder-like
            encoders).
        logit_scale_init_value: t', the logarithm of the factor on the similarities; ln 10 as in SigLIP.
        logit_bias_init_value: What is added to the similarities; -10 suits batches of about 20,000, for smaller ones
            take `initial_logit_bias(batch_size)`.

    Raises:
        StrictDataclassError: A value has a wrong type or is not allowed; the text says which and why.
    """

    model_type = "turingvit_dual_encoder"
    sub_configs_defaults: ClassVar[dict] = {
        "vision_config": TuringViTConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
    }

    vision_config: PreTrainedConfig | dict | None = None
    text_config: PreTrainedConfig | dict | None = None
    projection_dim: int = 512
    text_pooling: str = "pooler"
    logit_scale_init_value: float | int = math.log(10)
    logit_bias_init_value: float | int = -10.0
    initializer_range: float = 0.02

    def validate_text_pooling(self):
        """The pooling is one of those this model has."""
        if self.text_pooling not in TEXT_POOLINGS:
            raise ValueError(f"text_pooling={self.text_pooling!r}, allowed are {TEXT_POOLINGS}")

    def validate_projection(self):
        """The shared space has at least one dimension."""
        if self.projection_dim < 1:
            raise ValueError(f"projection_dim={self.projection_dim} must be at least 1")

    def validate_vision_head(self):
        """The tower has its pooling head, since the shared space is fed by it."""
        if isinstance(self.vision_config, PreTrainedConfig) and not self.vision_config.vision_use_head:
            raise ValueError("vision_config.vision_use_head=False: a dual encoder needs the tower's pooling head")


def initial_logit_bias(batch_size: int) -> float:
    """The bias at which a random model already has the right share of pairs: ln(p / (1 - p)) with p = 1 / batch_size.

    Raises:
        ValueError: `batch_size` is below 2, where no pair is wrong.
    """
    if batch_size < 2:
        raise ValueError(f"a contrastive batch has at least 2 pairs, not {batch_size}")
    return -math.log(batch_size - 1)


def _text_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The text encoder of a configuration, with random weights."""
    # AutoModel knows all text encoders but SigLIP's
    if config.model_type == "siglip_text_model":
        return SiglipTextModel._from_config(config)
    if config.model_type == "siglip2_text_model":
        return Siglip2TextModel._from_config(config)
    return AutoModel.from_config(config)


@dataclass
class TuringViTDualEncoderOutput(ModelOutput):
    """What the dual encoder returns.

    Args:
        loss: scalar, the SigLIP loss of the batch; only with `return_loss=True`.
        logits_per_image: (N, M) scaled and biased similarities of images and texts.
        logits_per_text: (M, N) the same, transposed.
        text_embeds: (M, E) L2-normalized.
        image_embeds: (N, E) L2-normalized.
        logit_scale: (1,) t', the parameter itself, for objectives that form their own logits.
        logit_bias: (1,) likewise.
        text_model_output: what the text encoder returned, its pooler_output projected.
        vision_model_output: what the tower returned, its pooler_output projected.
    """

    loss: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    logit_scale: torch.Tensor | None = None
    logit_bias: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None


class TuringViTDualEncoderModel(PreTrainedModel):
    """A TuringViT tower and a transformers text encoder, each followed by a projection into one space.

    Trained with the sigmoid loss of SigLIP; answers retrieval and zero-shot classification.
    """

    config: TuringViTDualEncoderConfig
    base_model_prefix = "turingvit_dual_encoder"
    main_input_name = "pixel_values"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # the loss is a mean over the images of one batch: Trainer divides it by the number of accumulated batches
    accepts_loss_kwargs = False

    def __init__(self, config: TuringViTDualEncoderConfig):
        super().__init__(config)
        self.turingvit = TuringViTModel._from_config(config.vision_config)
        # the configuration has turned None and dictionaries into configurations
        self.text_model = _text_model(config.text_config)  # pyrefly: ignore[bad-argument-type]
        self.visual_projection = nn.Linear(self.turingvit.config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(self.text_model.config.hidden_size, config.projection_dim, bias=False)
        # one value each, but not scalars: FSDP2 shards along a dimension
        self.logit_scale = nn.Parameter(torch.empty(1))
        self.logit_bias = nn.Parameter(torch.empty(1))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Fills what this class itself owns; tower and text encoder fill their own."""
        super()._init_weights(module)
        if isinstance(module, TuringViTDualEncoderModel):
            init.normal_(self.visual_projection.weight, std=self.visual_projection.in_features**-0.5)
            init.normal_(self.text_projection.weight, std=self.text_projection.in_features**-0.5)
            init.constant_(self.logit_scale, self.config.logit_scale_init_value)
            init.constant_(self.logit_bias, self.config.logit_bias_init_value)

    def get_input_embeddings(self) -> nn.Module:
        """The text encoder's token embeddings."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        """Replaces the text encoder's token embeddings."""
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """The tower's output with its `pooler_output` projected into the shared space, (N, E), not normalized.

        Args:
            pixel_values: images in any of the three forms of `TuringViTModel`.
            image_grid_thw: (N, 3) int64, with packed pixels.
            image_sizes: (N, 2) int64 true sizes, with padded pixels.
            **kwargs: for the tower.
        """
        outputs = self.turingvit(
            pixel_values, image_grid_thw=image_grid_thw, image_sizes=image_sizes, return_dict=True, **kwargs
        )
        outputs.pooler_output = self.visual_projection(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """The text encoder's output with a `pooler_output` pooled as configured and projected, (M, E), not normalized.

        Args:
            input_ids: (M, tokens) int64.
            attention_mask: (M, tokens) 1 for tokens, 0 for padding; None: no padding.
            position_ids: (M, tokens), handed to the encoder if given.
            token_type_ids: (M, tokens), handed to the encoder if given.
            **kwargs: for the text encoder.

        Raises:
            ValueError: text_pooling is `"pooler"` and the text encoder has no pooler.
        """
        # not every text encoder takes every one of these
        optional = {"position_ids": position_ids, "token_type_ids": token_type_ids}
        optional = {name: value for name, value in optional.items() if value is not None}
        outputs = self.text_model(
            input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **optional, **kwargs
        )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        pooled_MD = self._pool_text(outputs.last_hidden_state, outputs.get("pooler_output"), mask)
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=self.text_projection(pooled_MD),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
        )

    def _pool_text(self, tokens: torch.Tensor, pooled: torch.Tensor | None, mask: torch.Tensor) -> torch.Tensor:
        """One vector for each text, (M, D), from its tokens (M, tokens, D) or from what the encoder pooled itself."""
        if self.config.text_pooling == "mean":
            weights = mask[..., None].to(tokens.dtype)
            return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)
        if self.config.text_pooling == "last_token":
            # the last 1 of the mask, whichever side the padding is on
            places = torch.arange(tokens.shape[1], device=tokens.device)
            last_M = (mask.bool() * places).argmax(1)
            return tokens[torch.arange(tokens.shape[0], device=tokens.device), last_M]
        if pooled is None:
            raise ValueError(
                f"{type(self.text_model).__name__} has no pooler; set text_pooling to 'mean' or 'last_token'"
            )
        return pooled

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs,
    ) -> TuringViTDualEncoderOutput:
        """Embeddings of N images and M texts and the logits of all their pairs.

        Args:
            input_ids: (M, tokens) int64.
            pixel_values: images in any of the three forms of `TuringViTModel`.
            image_grid_thw: (N, 3) int64, with packed pixels.
            image_sizes: (N, 2) int64 true sizes, with padded pixels.
            attention_mask: (M, tokens) 1 for tokens, 0 for padding; None: no padding.
            position_ids: (M, tokens), handed to the text encoder if given.
            token_type_ids: (M, tokens), handed to the text encoder if given.
            return_loss: whether to compute the SigLIP loss, for which image i belongs to text i.
            **kwargs: for both encoders, such as `output_hidden_states`.

        Raises:
            ValueError: a loss is asked for and the numbers of images and texts differ.
        """
        vision_outputs = self.get_image_features(
            pixel_values, image_grid_thw=image_grid_thw, image_sizes=image_sizes, **kwargs
        )
        text_outputs = self.get_text_features(
            input_ids, attention_mask, position_ids=position_ids, token_type_ids=token_type_ids, **kwargs
        )
        images_NE = nn.functional.normalize(vision_outputs.pooler_output, dim=-1)
        texts_ME = nn.functional.normalize(text_outputs.pooler_output, dim=-1)
        logits_NM = self.logit_scale.exp() * images_NE @ texts_ME.T + self.logit_bias
        loss = None
        if return_loss:
            if len(images_NE) != len(texts_ME):
                raise ValueError(f"a loss needs as many images as texts, not {len(images_NE)} and {len(texts_ME)}")
            loss = pairwise_sigmoid_loss(logits_NM)
        return TuringViTDualEncoderOutput(
            loss=loss,
            logits_per_image=logits_NM,
            logits_per_text=logits_NM.T,
            text_embeds=texts_ME,
            image_embeds=images_NE,
            logit_scale=self.logit_scale,
            logit_bias=self.logit_bias,
            text_model_output=text_outputs,
            vision_model_output=vision_outputs,
        )


__all__ = ["TuringViTDualEncoderConfig", "TuringViTDualEncoderModel"]
