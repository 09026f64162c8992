# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the technical report says that its stages took: H800 hours and images, by its project page's table.

The page does not say whether the hours are those of 18L or of 24L, nor how often an image was seen.
"""

from dataclasses import dataclass

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.loop.flops import PEAK_BFLOAT16


@dataclass(frozen=True)
class ReportedStage:
    """A stage of the report.

    Attributes:
        number: 1 to 4.
        hours: of H800 GPUs.
        num_images: different ones, or clips.
    """

    number: int
    hours: float
    num_images: float

    @property
    def operations(self) -> float:
        """What H800 GPUs could do in these hours, in dense bfloat16."""
        return self.hours * 3600 * PEAK_BFLOAT16["NVIDIA H800"]


STAGES = (
    ReportedStage(1, 9_984, 55e6),
    ReportedStage(2, 30_720, 850e6),
    ReportedStage(3, 12_288, 850e6),
    ReportedStage(4, 460, 2e6),
)
WIDTH, LAYERS = 1280, (18, 24)


def reported_stage(recipe: StageRecipe) -> ReportedStage | None:
    """The report's stage that a recipe is one of; None for towers of another size than the report's."""
    config = TuringViTConfig(**recipe.model)
    if config.hidden_size != WIDTH or config.num_hidden_layers not in LAYERS:
        return None
    if recipe.stage == "mim":
        return STAGES[0]
    if recipe.stage == "image_video":
        return STAGES[3]
    return STAGES[2] if recipe.data.resolution.mode == "native" else STAGES[1]
