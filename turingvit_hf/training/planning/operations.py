# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The operations of a step: what the mathematics needs, and what is done beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

from turingvit_hf.modeling.modeling_masked_image import TuringViTForMaskedImageModeling
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.loop.flops import TrainingFlops
from turingvit_hf.training.planning.workload import PackShape, PlannedModel, pack_inputs


CHECKPOINTED = ("layers", "text")


@dataclass(frozen=True)
class StepOperations:
    """The operations of one optimizer step over all processes; a step of a mixed stage is a mean one.

    Attributes:
        tower: forward and backward of the tower with its pooling head.
        text: of the text encoder; forward alone where it is frozen.
        heads: of projections, decoder, SuperClass, and of all pairs of the sigmoid loss.
        teacher: its forward.
        cached_forward: the first of two forwards, where a process has several packs and the loss is between all.
        recomputation: the forward of layers that checkpointing does again.
        attention_again: what attention's backward computes again.
    """

    tower: float
    text: float
    heads: float
    teacher: float
    cached_forward: float
    recomputation: float
    attention_again: float

    @property
    def model(self) -> float:
        """Of the model: tower, text encoder and heads, forward and backward."""
        return self.tower + self.text + self.heads

    @property
    def useful(self) -> float:
        """What training cannot do without: the model's, and the teacher's forward. Utilization counts these."""
        return self.model + self.teacher

    @property
    def hardware(self) -> float:
        """All that is done."""
        return self.useful + self.cached_forward + self.recomputation + self.attention_again


def checkpoints_layers(recipe: StageRecipe) -> bool:
    """Whether layers are computed again in backward, by Trainer or by FSDP."""
    training = recipe.training
    if training.get("activation_checkpointing") or training.get("gradient_checkpointing"):
        return True
    settings = training.get("fsdp_config") if training.get("fsdp") else None
    return isinstance(settings, dict) and bool(settings.get("activation_checkpointing"))


def step_operations(
    recipe: StageRecipe, planned: PlannedModel, shapes: Sequence[PackShape], *, packs_per_process: float
) -> StepOperations:
    """The operations of a step on average.

    Args:
        recipe: the stage's.
        planned: its model.
        shapes: its packs; their operations are scaled to full packs.
        packs_per_process: above 1 a contrastive stage embeds each pack twice.
    """
    flops = TrainingFlops(planned.model)
    is_checkpointed = checkpoints_layers(recipe)
    is_cached = packs_per_process > 1 and not isinstance(planned.model, TuringViTForMaskedImageModeling)
    sums = dict.fromkeys(StepOperations.__dataclass_fields__, 0.0)
    for shape in shapes:
        inputs = pack_inputs(recipe, shape)
        scale = shape.share * recipe.data.packs_per_step * recipe.data.tokens_per_pack / shape.num_patches
        parts = flops.by_part(inputs)
        forward = {part: scale * operations.forward for part, operations in parts.items()}
        both = {part: scale * operations.training for part, operations in parts.items()}
        sums["text"] += both.get("text", 0.0)
        sums["heads"] += both.get("heads", 0.0) + both.get("decoder", 0.0)
        sums["tower"] += sum(both.get(part, 0.0) for part in ("layers", "embedding", "pooling"))
        if planned.teacher is not None:
            sums["teacher"] += scale * shape.num_images * planned.teacher.flops_per_image
        if is_cached:
            sums["cached_forward"] += sum(forward.values())
        if is_checkpointed:
            # what is frozen keeps nothing, so nothing of it is computed again
            sums["recomputation"] += sum(
                forward[part] for part in CHECKPOINTED if both.get(part, 0) > forward.get(part, 0)
            )
        sums["attention_again"] += scale * flops.recomputed_scores(inputs)
        if recipe.text is not None:
            images = shape.num_images * recipe.data.packs_per_step * recipe.data.tokens_per_pack / shape.num_patches
            # image by text, and the gradients of both
            sums["heads"] += shape.share * 6 * images**2 * recipe.text.projection_dim
    return StepOperations(**sums)
