# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The dual encoder, which aligns images with their captions.

The tower is always the attribute `turingvit`, so `model.turingvit.save_pretrained(...)` writes a checkpoint that
`AutoModel` loads by itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple

from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.dual_encoder_parts import build_text_model, load_text_model, load_tower, pool_text
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel


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


@dataclass
class TuringViTDualEncoderOutput(ModelOutput):
    """What the dual encoder returns.

    Args:
        loss: scalar, the SigLIP loss of the batch; only with `return_loss=True`.
        logits_per_image: (N, M) scaled and biased similarities of images and texts; None with `return_logits=False`.
        logits_per_text: (M, N) the same, transposed.
        text_embeds: (M, E) L2-normalized.
        image_embeds: (N, E) L2-normalized.
        logit_scale: (1,) t', a copy with its gradient, for objectives that form their own logits.
        logit_bias: (1,) likewise.
        pooled_image_features: (N, D) what the tower pooled, before the projection, for heads and losses of their own.
        superclass_weight: (C, D) the weight of the SuperClass head, for a loss that never forms logits (N, C); its
            gradient, like that of every output, reaches the parameter. None without the head.
        superclass_bias: (C,) likewise.
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
    pooled_image_features: torch.Tensor | None = None
    superclass_weight: torch.Tensor | None = None
    superclass_bias: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None


class TuringViTDualEncoderModel(PreTrainedModel):
    """A TuringViT tower and a transformers text encoder, each followed by a projection into one space.

    Trained with the sigmoid loss of SigLIP; answers retrieval and zero-shot classification. With `num_superclasses` in
    its configuration it has one more head, linear from pooled image features to the subwords of captions; `forward`
    returns that head's weight and bias beside the features and leaves the logits to the loss, which need not form
    them.

    Args:
        config: The architecture.
        turingvit: A tower to take in; None makes one with random weights.
        text_model: A text encoder to take in; None makes one with random weights.
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

    def __init__(
        self,
        config: TuringViTDualEncoderConfig,
        turingvit: TuringViTModel | None = None,
        text_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        self.turingvit = TuringViTModel._from_config(config.vision_config) if turingvit is None else turingvit
        self.text_model = build_text_model(config) if text_model is None else text_model
        width = self.turingvit.config.hidden_size
        self.visual_projection = nn.Linear(width, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(self.text_model.config.hidden_size, config.projection_dim, bias=False)
        has_superclasses = config.num_superclasses > 0
        self.superclass_head = nn.Linear(width, config.num_superclasses) if has_superclasses else None
        # one value each, but not scalars: FSDP2 shards along a dimension
        self.logit_scale = nn.Parameter(torch.empty(1))
        self.logit_bias = nn.Parameter(torch.empty(1))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Fills what this class itself owns; tower and text encoder fill their own."""
        super()._init_weights(module)
        heads = (self.visual_projection, self.text_projection, self.superclass_head)
        # each by itself: a model whose other weights were loaded comes here only for what is new
        if isinstance(module, nn.Linear) and module in heads:
            init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, TuringViTDualEncoderModel):
            init.constant_(self.logit_scale, self.config.logit_scale_init_value)
            init.constant_(self.logit_bias, self.config.logit_bias_init_value)

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision: str | Path | PreTrainedModel,
        text: str | Path | PreTrainedModel,
        **config_values,
    ) -> Self:
        """A dual encoder of a pretrained tower and a pretrained text encoder, with new projections and heads.

        Args:
            vision: Hub id or folder of a checkpoint of a `TuringViTModel` or of a model on top of one, such as
                `TuringViTForMaskedImageModeling`; or such a model itself. A tower without its pooling head gets a new
                one with random weights, which a warning tells.
            text: Hub id or folder of a text encoder, of a model with a head on one, such as a causal language model,
                or of an image-text model of transformers, such as CLIP, whose text encoder is taken; or such an
                encoder itself. Checkpoints are loaded in the tower's dtype.
            **config_values: Of `TuringViTDualEncoderConfig`, such as `projection_dim` and `text_pooling`.

        Returns:
            The model in evaluation mode, on the device and in the dtype of the tower.

        Raises:
            ValueError: One of the two is no tower or no text encoder that could be built again.
        """
        tower = load_tower(vision)
        pooling = config_values.get("text_pooling", TuringViTDualEncoderConfig.text_pooling)
        text_model = load_text_model(text, pooling, tower.dtype)
        parts = {"vision_config": tower.config, "text_config": text_model.config}
        # a new configuration resets what its parts attend with
        attention = {name: part._attn_implementation for name, part in parts.items()}
        values: dict[str, Any] = {"attn_implementation": attention} | parts | config_values
        config = TuringViTDualEncoderConfig(**values)
        model = cls._from_config(config, dtype=tower.dtype, turingvit=tower, text_model=text_model)
        return model.to(tower.device).eval()  # pyrefly: ignore[bad-argument-type]

    def freeze_text(self) -> None:
        """Keeps the text encoder as it is: no gradients, and evaluation mode also under `train()`.

        A choice of the run: it is not saved with the model.
        """
        self.text_model.requires_grad_(False)
        self.text_model.eval()

    def train(self, mode: bool = True) -> Self:
        """Switches to training mode, all but a text encoder that has nothing to train."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.text_model.parameters()):
            self.text_model.eval()
        return self

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
        return self._encode_images(pixel_values, image_grid_thw, image_sizes, **kwargs)[0]

    def _encode_images(self, pixel_values, image_grid_thw, image_sizes, **kwargs):
        """The tower's output with its pooled vectors projected, (N, E), and these before that, (N, D)."""
        outputs = self.turingvit(
            pixel_values, image_grid_thw=image_grid_thw, image_sizes=image_sizes, return_dict=True, **kwargs
        )
        pooled_ND = outputs.pooler_output
        outputs.pooler_output = self.visual_projection(pooled_ND)
        return outputs, pooled_ND

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
        pooled_MD = outputs.get("pooler_output")
        if self.config.text_pooling != "pooler":
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            pooled_MD = pool_text(outputs.last_hidden_state, mask, self.config.text_pooling)
        elif pooled_MD is None:
            raise ValueError(
                f"{type(self.text_model).__name__} has no pooler; set text_pooling to 'mean' or 'last_token'"
            )
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            # a frozen language model may be in a smaller dtype than what is trained
            pooler_output=self.text_projection(pooled_MD.to(self.text_projection.weight.dtype)),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
        )

    def _superclass_parameters(self) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
        """Weight (C, D) and bias (C,) of the SuperClass head, in training as copies; (None, None) without it."""
        if self.superclass_head is None:
            return None, None
        if not torch.is_grad_enabled():
            return self.superclass_head.weight, self.superclass_head.bias
        # FSDP2 may free complete parameters when forward ends, so a view of one would be a view of nothing; and DDP
        # looks for used parameters behind the outputs, and behind one that is itself a parameter it sees nothing
        return self.superclass_head.weight.clone(), self.superclass_head.bias.clone()

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
        return_logits: bool = True,
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
            return_logits: whether to form the (N, M) logits, which losses over large batches do without.
            **kwargs: for both encoders, such as `output_hidden_states`.

        Raises:
            ValueError: a loss is asked for and the numbers of images and texts differ, or there are no logits for it.
        """
        if return_loss and not return_logits:
            raise ValueError("return_loss=True needs the logits, and return_logits=False leaves them out")
        vision_outputs, pooled_ND = self._encode_images(pixel_values, image_grid_thw, image_sizes, **kwargs)
        text_outputs = self.get_text_features(
            input_ids, attention_mask, position_ids=position_ids, token_type_ids=token_type_ids, **kwargs
        )
        images_NE = nn.functional.normalize(vision_outputs.pooler_output, dim=-1)
        texts_ME = nn.functional.normalize(text_outputs.pooler_output, dim=-1)
        logits_NM = None
        if return_logits:
            logits_NM = self.logit_scale.exp() * images_NE @ texts_ME.T + self.logit_bias
        weight_CD, bias_C = self._superclass_parameters()
        loss = None
        if return_loss and logits_NM is not None:
            if len(images_NE) != len(texts_ME):
                raise ValueError(f"a loss needs as many images as texts, not {len(images_NE)} and {len(texts_ME)}")
            loss = pairwise_sigmoid_loss(logits_NM)
        return TuringViTDualEncoderOutput(
            loss=loss,
            logits_per_image=logits_NM,
            logits_per_text=None if logits_NM is None else logits_NM.T,
            text_embeds=texts_ME,
            image_embeds=images_NE,
            logit_scale=self.logit_scale.clone(),
            logit_bias=self.logit_bias.clone(),
            pooled_image_features=pooled_ND,
            superclass_weight=weight_CD,
            superclass_bias=bias_C,
            text_model_output=text_outputs,
            vision_model_output=vision_outputs,
        )


__all__ = ["TuringViTDualEncoderModel"]
