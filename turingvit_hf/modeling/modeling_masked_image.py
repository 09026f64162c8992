# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Masked feature distillation: from the patches it sees, a tower predicts a teacher's features of those it does not.

The recipe is that of EVA-02 (Fang et al. 2023, arXiv 2303.11331): the full sequence with a learned token in place of
masked patch embeddings, a linear map to the teacher's width, and the cosine distance over masked patches.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel, TuringViTPreTrainedModel


def cosine_distance(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 - cos of the angle between each prediction and its target: (n,) in float32, or float64 for such inputs.

    Args:
        predictions: (n, Dt).
        targets: (n, Dt), of any length other than 0.
    """
    dtype = torch.promote_types(torch.promote_types(predictions.dtype, targets.dtype), torch.float32)
    return 1 - F.cosine_similarity(predictions.to(dtype), targets.to(dtype), dim=-1)


@dataclass
class TuringViTMaskedImageModelingOutput(ModelOutput):
    """What the masked image model returns.

    Args:
        loss: scalar, the mean cosine distance over masked patches; only with `teacher_features`.
        predictions: (num_masked, Dt) predicted features of the masked patches, in the order of the patches.
        hidden_states: those of the tower, if asked for.
        attentions: those of the tower's softmax layers, if asked for.
    """

    loss: torch.Tensor | None = None
    predictions: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class TuringViTForMaskedImageModeling(TuringViTPreTrainedModel):
    """The tower with a mask token and a linear decoder to the width of a teacher's features.

    Its tower has no pooling head, and its configuration says so whatever the given one says: nothing here would train
    a head. `AutoModel` loads the bare tower from a checkpoint of this model; `vision_use_head=True` adds a new head
    with random weights to it, which transformers reports as missing from the checkpoint.
    """

    # the loss is a mean over the patches of one batch: Trainer divides it by the number of accumulated batches
    accepts_loss_kwargs = False

    def __init__(self, config: TuringViTConfig):
        config = copy.deepcopy(config)
        config.vision_use_head = False
        super().__init__(config)
        self.turingvit = TuringViTModel(config)
        self.mask_token = nn.Parameter(torch.empty(config.hidden_size))
        self.decoder = nn.Linear(config.hidden_size, config.teacher_hidden_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TuringViTForMaskedImageModeling):
            init.trunc_normal_(module.mask_token, mean=0.0, std=self.config.initializer_range)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        image_sizes: torch.Tensor | list | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        teacher_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TuringViTMaskedImageModelingOutput:
        """Predicted features of the masked patches of images in any input form of `TuringViTModel.forward`.

        Args:
            pixel_values: Pixels in one of the tower's three forms.
            image_grid_thw: (N, 3), with packed pixels.
            image_sizes: (B, 2), with padded pixels.
            bool_masked_pos: which patches are masked, bool or 0 and 1: (T,) of a pack, (B, H/p · W/p) of a batch,
                (1, T) of a padded batch; None masks no patch and predicts every one.
            teacher_features: (num_masked, Dt) of the masked patches or (T, Dt) of all, (B, H/p · W/p, Dt) of a batch;
                any floating dtype. The loss against them is returned.
            **kwargs: Passed on to the tower.

        Raises:
            ValueError: The mask or the features do not fit the patches.
        """
        outputs = self.turingvit(
            pixel_values,
            image_grid_thw=image_grid_thw,
            image_sizes=image_sizes,
            masked_patches=bool_masked_pos,
            mask_token=self.mask_token,
            **kwargs,
        )
        tokens_TD = outputs.last_hidden_state.flatten(0, -2)
        masked_T = None if bool_masked_pos is None else bool_masked_pos.flatten().bool()
        predictions = self.decoder(tokens_TD if masked_T is None else tokens_TD[masked_T])
        loss = None
        if teacher_features is not None:
            targets = self._targets(teacher_features.flatten(0, -2), masked_T, predictions)
            # a batch may have no masked patch at all, such as one image of one patch
            loss = cosine_distance(predictions, targets).sum() / max(len(predictions), 1)
        return TuringViTMaskedImageModelingOutput(
            loss=loss, predictions=predictions, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _targets(self, features, masked_T, predictions) -> torch.Tensor:
        """The teacher's features of the predicted patches, (num_masked, Dt)."""
        if masked_T is not None and len(features) == len(masked_T):
            features = features[masked_T]
        if features.shape != predictions.shape:
            raise ValueError(
                f"teacher_features must be {tuple(predictions.shape)}, or of all patches as wide as that, got "
                f"{tuple(features.shape)}"
            )
        return features


__all__ = ["TuringViTForMaskedImageModeling"]
