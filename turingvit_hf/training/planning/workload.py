# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the steps of a stage hold: packs that stand for all of them, images a step, and the models on the meta device.

Sizes of pictures are not known before they are read. Assumed are: of bounded resolutions the longer side uniform in
its range and the other one three quarters of it; of native ones a mean number of patches that the caller may give.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.modeling.modeling_masked_image import TuringViTForMaskedImageModeling
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.data.samples import max_patches_of
from turingvit_hf.training.planning.known_models import TeacherSize, teacher_size_of, text_config_of


ASPECT = 3 / 4
NUM_SIZES = 64  # quantiles that stand for a range of sizes
NATIVE_PATCHES, FRAME_PATCHES = 2500, 1000


@dataclass(frozen=True)
class PlannedModel:
    """A stage's model without weights.

    Attributes:
        model: on the meta device; what is frozen needs no gradient.
        teacher: what the teacher costs, of stage `mim`.
        assumptions: where sizes come from that are not the recipe's.
    """

    model: nn.Module
    teacher: TeacherSize | None = None
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackShape:
    """A pack that stands for all of its kind.

    Attributes:
        share: of the steps that hold such packs.
        num_patches: that it has; operations are scaled from these to a full pack.
        num_images: images or clips.
        grid: (N, 3) int64.
        kind: `"image"` or `"video"`.
    """

    share: float
    num_patches: int
    num_images: int
    grid: Tensor = field(repr=False)
    kind: str = "image"


def plan_model(recipe: StageRecipe) -> PlannedModel:
    """The stage's model on the meta device.

    Raises:
        InputError: a size of its text encoder or teacher is not known.
    """
    if recipe.stage == "mim":
        assert recipe.teacher is not None, "StageRecipe refuses stage 'mim' without a teacher"
        teacher = teacher_size_of(recipe.teacher, num_channels=TuringViTConfig(**recipe.model).num_channels)
        with torch.device("meta"):
            values: dict[str, Any] = {**recipe.model, "teacher_hidden_size": teacher.hidden_size}
            model = TuringViTForMaskedImageModeling(TuringViTConfig(**values))
        return PlannedModel(model, teacher, (f"teacher {recipe.teacher.model}: {teacher.source}",))
    text = recipe.text
    assert text is not None, "StageRecipe refuses a stage with captions without a text section"
    text_config, source = text_config_of(text)
    num_superclasses = text_config.vocab_size if recipe.objective.superclass > 0 else 0
    assumptions = [f"text encoder {text.encoder}: {source}"]
    if text.vocabulary is not None and num_superclasses:
        assumptions.append(f"SuperClass with {num_superclasses:,} classes, those of the text encoder's tokenizer")
    with torch.device("meta"):
        config = TuringViTDualEncoderConfig(
            vision_config=TuringViTConfig(**recipe.model),
            text_config=text_config,
            projection_dim=text.projection_dim,
            text_pooling=text.pooling,
            num_superclasses=num_superclasses,
        )
        dual_encoder = TuringViTDualEncoderModel(config)
    if text.frozen:
        dual_encoder.freeze_text()
    return PlannedModel(dual_encoder, assumptions=tuple(assumptions))


def pack_shapes(
    recipe: StageRecipe, *, native_patches: int = NATIVE_PATCHES, frame_patches: int = FRAME_PATCHES
) -> tuple[tuple[PackShape, ...], tuple[str, ...]]:
    """The packs of a stage's steps, and what was assumed of them.

    Args:
        recipe: the stage's.
        native_patches: patches of an image of native resolution on average.
        frame_patches: patches of a frame of a clip of native resolution on average.
    """
    data = recipe.data
    video_share = data.video_share if recipe.stage == "image_video" else 0.0
    shapes, assumptions = [], []
    for kind, share, mean in (("image", 1 - video_share, native_patches), ("video", video_share, frame_patches)):
        if share == 0:
            continue
        sides, assumption = _sides(recipe, kind, mean)
        shapes.append(_shape(kind, share, sides, data.num_frames if kind == "video" else 1, data.tokens_per_pack))
        assumptions.append(assumption)
    return tuple(shapes), tuple(dict.fromkeys(assumption for assumption in assumptions if assumption))


def pack_inputs(recipe: StageRecipe, shape: PackShape) -> dict[str, Any]:
    """What `TrainingFlops` reads of such a pack; texts are as long as the recipe allows."""
    inputs: dict[str, Any] = {"image_grid_thw": shape.grid}
    if recipe.text is not None:
        inputs["input_ids"] = torch.empty(shape.num_images, recipe.text.max_tokens, dtype=torch.int64, device="meta")
    if recipe.stage == "mim":
        inputs["bool_masked_pos"] = torch.arange(shape.num_patches) < recipe.objective.mask_ratio * shape.num_patches
    return inputs


def _sides(recipe: StageRecipe, kind: str, mean: int) -> tuple[list[tuple[int, int]], str]:
    """Rows and columns of patches of images that stand for all, in an order that mixes sizes."""
    resolution, patch = recipe.data.resolution, TuringViTConfig(**recipe.model).patch_size
    if resolution.mode == "fixed":
        side = max(1, resolution.size // patch)
        return [(side, side)], ""
    most = max_patches_of(recipe.data, kind)
    if resolution.mode == "native":
        patches = min(mean, most)
        rows = max(1, round((patches * ASPECT) ** 0.5))
        noun = "an image" if kind == "image" else "a frame"
        return [
            (rows, max(1, round(patches / rows)))
        ], f"{noun} of native resolution has {patches:,} patches on average"
    span = resolution.max_side - resolution.min_side
    sides = []
    for number in range(NUM_SIZES):
        # golden-ratio steps: any stretch of the list is spread over the whole range
        long = (resolution.min_side + span * ((number * 0.6180339887 + 0.5) % 1)) / patch
        shrink = min(1.0, (most / (long * long * ASPECT)) ** 0.5)
        sides.append((max(1, round(long * ASPECT * shrink)), max(1, round(long * shrink))))
    return sides, "the longer side is uniform in its range, the other one 3/4 of it"


def _shape(kind: str, share: float, sides: list[tuple[int, int]], frames: int, budget: int) -> PackShape:
    rows, num_patches = [], 0
    for number in range(budget):
        height, width = sides[number % len(sides)]
        size = frames * height * width
        if rows and num_patches + size > budget:
            break
        rows.append((frames, height, width))
        num_patches += size
    return PackShape(share, num_patches, len(rows), torch.tensor(rows), kind)
