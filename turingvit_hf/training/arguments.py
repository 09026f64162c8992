# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a recipe says, typed: one frozen dataclass a section, checked by pydantic, unknown keys refused.

A recipe is a value. It is read from YAML by `recipes.py`, and everything else in this folder takes these classes.
"""

import dataclasses
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.files.sections import STRICT, Switch


Stage = Literal["mim", "image_text", "image_video"]


@dataclass(frozen=True, config=STRICT)
class ResolutionRecipe:
    """How large images and frames are; the words are those of `TuringViTImageProcessor`.

    `bounded` draws the longer side in [`min_side`, `max_side`] for every image anew, `native` keeps the size up to
    `max_patches`, `fixed` makes `size` x `size` pixels by a random resized crop.
    """

    mode: Literal["native", "bounded", "fixed"] = "native"
    size: int = Field(256, ge=1)
    min_side: int = Field(256, ge=1)
    max_side: int = Field(512, ge=1)
    max_patches: int = Field(9216, ge=1)
    crop_scale: tuple[float, float] = (1.0, 1.0)  # area of the crop, as a share of the image; (1, 1) crops nothing
    flip: float = Field(0.0, ge=0.0, le=1.0)  # probability of a horizontal flip

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> "ResolutionRecipe":
        if self.min_side > self.max_side:
            raise ValueError(f"min_side={self.min_side} is above max_side={self.max_side}")
        least, most = self.crop_scale
        if not 0 < least <= most <= 1:
            raise ValueError(f"crop_scale={self.crop_scale} must be two shares, 0 < least <= most <= 1")
        return self


@dataclass(frozen=True, config=STRICT)
class DataRecipe:
    """What is read and how it becomes packs.

    A step trains on `packs_per_step` packs of at most `tokens_per_pack` patches each, over all ranks together. What a
    step holds depends on the seed and on this section, not on the number of processes or of loader workers.

    Attributes:
        sources: where rows come from; drawn by weight within their kind.
        resolution: sizes of images.
        tokens_per_pack: budget of a pack in patches.
        packs_per_step: packs a step over all ranks; a multiple of the number of ranks.
        num_readers: independent streams that the packs of one rank's lane rotate through; `packs a rank x
            num_readers` must be a multiple of `num_workers`.
        num_workers: processes of each rank that read, decode and patchify; 0: in the training process.
        open_packs: packs' worth of samples that a reader chooses from; more of them waste fewer patches.
        max_shrink: share of its sides that an image of native resolution may lose where its pack would stay more than
            3 % empty otherwise, as when two large ones are slightly too large for it. 0 keeps every size. Clips, other
            resolutions and evaluation always keep theirs.
        shuffle_window: rows of a streamed source that are read ahead and shuffled.
        max_bad_share: the run stops when more than this share of the rows that a reader has read cannot be used; it
            is looked at from its 100th row on, and at 0 from the first.
        video_share: share of the steps that train on clips (stage `image_video`).
        num_frames: frames a clip, taken at the centers of equal bins.
        frame_max_patches: most patches of a frame of a clip; None: `resolution.max_patches`, as of an image. In any
            case all frames fit into a pack.
    """

    sources: tuple[SourceRecipe, ...] = ()
    resolution: ResolutionRecipe = Field(default_factory=ResolutionRecipe)
    tokens_per_pack: int = Field(16384, ge=1)
    packs_per_step: int = Field(1, ge=1)
    num_readers: int = Field(4, ge=1)
    num_workers: int = Field(0, ge=0)
    open_packs: int = Field(8, ge=1)
    max_shrink: float = Field(0.07, ge=0.0, lt=0.5)
    shuffle_window: int = Field(1024, ge=1)
    max_bad_share: float = Field(0.1, ge=0.0, le=1.0)
    video_share: float = Field(0.0, ge=0.0, le=1.0)
    num_frames: int = Field(8, ge=1)
    frame_max_patches: int | None = Field(None, ge=1)


@dataclass(frozen=True, config=STRICT)
class TextRecipe:
    """The text encoder of stages with captions.

    Attributes:
        encoder: name or folder of a transformers text encoder, or `"small"`: a small one with random weights and a
            tokenizer trained on the sources' captions.
        pooling: as in `TuringViTDualEncoderConfig`.
        max_tokens: longer captions are cut there.
        lowercase: whether captions are lower-cased, as SigLIP 2 does.
        frozen: whether its weights stay as they are.
        projection_dim: width of the shared space.
        vocabulary: tokenizer whose subwords are the classes of SuperClass; None: the text encoder's own.
        initial_logit_bias: what is added to similarities at first. SigLIP's -10 suits 20,000 images a step; for B of
            them -ln(B - 1) starts at the right share of pairs. Not read where a dual encoder is continued.
    """

    encoder: str = "small"
    pooling: Literal["pooler", "mean", "last_token"] = "mean"
    max_tokens: int = Field(64, ge=1)
    lowercase: Switch = False
    frozen: Switch = False
    projection_dim: int = Field(512, ge=1)
    vocabulary: str | None = None
    initial_logit_bias: float = -10.0


@dataclass(frozen=True, config=STRICT)
class TeacherRecipe:
    """The teacher of masked feature distillation.

    Attributes:
        model: name or folder of a transformers vision model, `"timm/NAME"`, or `"hog"`: histograms of gradients, which
            need no weights.
        size: side of its square input in pixels; None: what the model was made for.
        dtype: its weights and activations.
        cache: folder that keeps its features of each crop; None: none is kept. Needs crops that repeat, so no random
            crop and no flip.
    """

    model: str
    size: int | None = Field(None, ge=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    cache: str | None = None


@dataclass(frozen=True, config=STRICT)
class ObjectiveRecipe:
    """Weights of the losses; those that a stage does not have are not read.

    Attributes:
        mask_ratio: share of the patches that are masked, exactly, in every image.
        siglip: weight of the sigmoid loss of images and captions.
        superclass: weight of the classification loss over subwords; 0 leaves out its head.
        video_siglip: weight of the sigmoid loss of clips and captions.
        chunk_size: images and texts whose similarities are in memory at a time.
    """

    mask_ratio: float = Field(0.4, gt=0.0, lt=1.0)
    siglip: float = Field(1.0, ge=0.0)
    superclass: float = Field(1.0, ge=0.0)
    video_siglip: float = Field(1.0, ge=0.0)
    chunk_size: int = Field(1024, ge=1)


@dataclass(frozen=True, config=STRICT)
class OptimizerRecipe:
    """Learning rates of the parts and what keeps training stable. Rates are relative to TrainingArguments'.

    Attributes:
        tower: factor on the tower's learning rate.
        text: factor on the text encoder's.
        heads: factor on everything else: projections, heads, scale and bias.
        layer_decay: the tower's layer l of L gets this to the power L - l more; 1 treats all alike.
        ema_decay: decay of the moving average of the weights; None keeps none.
        max_logit_scale: logit_scale is clamped to [0, this] after each step; ln 100 as in open_clip.
        max_skipped_steps: a step whose loss or gradient is not finite is skipped; so many in a row end the run.
    """

    tower: float = Field(1.0, ge=0.0)
    text: float = Field(1.0, ge=0.0)
    heads: float = Field(1.0, ge=0.0)
    layer_decay: float = Field(1.0, gt=0.0, le=1.0)
    ema_decay: float | None = Field(None, gt=0.0, lt=1.0)
    max_logit_scale: float = Field(4.605170185988092, gt=0.0)
    max_skipped_steps: int = Field(10, ge=1)


@dataclass(frozen=True, config=STRICT)
class EvaluationRecipe:
    """What is measured while training, every `eval_steps` of TrainingArguments, and at the end.

    Attributes:
        retrieval: source of held-out images and captions, or None. Stage `mim` measures its loss on the images.
        video_retrieval: source of held-out clips and captions, or None.
        classification: source whose caption column is a class name, or None.
        num_samples: at most so many of each.
        resolution: sizes of held-out images and clips; None: the stage's own. With the same one in several stages
            their measurements can be compared.
        templates: prompts for class names, `{}` in each.
    """

    retrieval: SourceRecipe | None = None
    video_retrieval: SourceRecipe | None = None
    classification: SourceRecipe | None = None
    num_samples: int = Field(5000, ge=2)
    resolution: ResolutionRecipe | None = None
    templates: tuple[str, ...] = ("a photo of a {}.",)


@dataclass(frozen=True, config=STRICT)
class StageRecipe:
    """One stage of pretraining: everything that decides its result.

    Attributes:
        stage: `"mim"` (1), `"image_text"` (2 and 3) or `"image_video"` (4).
        name: what the stage is called in its folder; empty: the name of its recipe.
        model: values of `TuringViTConfig`; where `init_from` is given they must agree with what is there.
        init_from: folder of an earlier stage's output, of a tower or of a dual encoder; None: random weights. A stage
            with captions continues a whole dual encoder where it finds one, its text encoder and heads included.
        training: keyword arguments of `transformers.TrainingArguments`; output_dir comes from the command line.
    """

    stage: Stage
    data: DataRecipe
    name: str = ""
    model: dict[str, Any] = Field(default_factory=dict)
    init_from: str | None = None
    text: TextRecipe | None = None
    teacher: TeacherRecipe | None = None
    objective: ObjectiveRecipe = Field(default_factory=ObjectiveRecipe)
    optimizer: OptimizerRecipe = Field(default_factory=OptimizerRecipe)
    evaluation: EvaluationRecipe = Field(default_factory=EvaluationRecipe)
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _stage_has_what_it_needs(self) -> "StageRecipe":
        if self.stage == "mim" and self.teacher is None:
            raise ValueError("stage 'mim' needs a teacher")
        if self.stage != "mim" and self.text is None:
            raise ValueError(f"stage {self.stage!r} needs a text encoder: the section text is missing")
        if (self.data.video_share > 0) != (self.stage == "image_video"):
            raise ValueError(
                f"data.video_share={self.data.video_share} with stage {self.stage!r}: clips are for 'image_video', "
                "which needs a share above 0"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, as it is written beside checkpoints."""
        return dataclasses.asdict(self)
