# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The two tasks of `tla_study.py`, and the recipe of each of its runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tla_study_measures import NEIGHBORS, ORDER
from tla_study_towers import VARIANTS

from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.recipes import load_recipe


PATCH_SIZE = 32
# small enough for 50 trainings on one core
SETTINGS = (
    "model.hidden_size=128",
    "model.num_attention_heads=2",
    "model.intermediate_size=256",
    "model.initializer_range=0.088",
    f"model.patch_size={PATCH_SIZE}",
    "model.image_size=512",
    "text.projection_dim=128",
    "objective.superclass=0",
    "data.tokens_per_pack=1024",
    "data.num_readers=1",
    "evaluation=null",
    "training.bf16=true",
    "training.learning_rate=1e-3",
    "training.save_steps=350",
    "training.save_total_limit=1",
)


@dataclass(frozen=True)
class Task:
    """What towers are trained to do.

    Attributes:
        name: what its folders are called.
        bounds: between which the longer sides of pictures in training lie, in pixels.
        sides: longer sides in pixels at which some towers are measured.
        source: of training, below the folder of the task's data; YAML with `{path}`.
        text_encoder: name of the folder with it.
        settings: changes of the recipe besides `SETTINGS`.
        towers: that are trained.
        at_all_sides: those of them that are measured at all sides.
        measures: that tables and figures have; the last one is what the task is about.
    """

    name: str
    bounds: tuple[int, int]
    sides: tuple[int, ...]
    source: str
    text_encoder: str
    settings: tuple[str, ...]
    towers: tuple[str, ...]
    at_all_sides: tuple[str, ...]
    measures: tuple[str, ...]


PICTURES = Task(
    name="pictures",
    bounds=(128, 512),
    sides=(256, 384, 512, 768, 1024, 1536),
    source="{{path: {path}/train}}",
    text_encoder="word_vectors",
    settings=(
        "data.resolution={mode: native, max_patches: 256}",
        "data.open_packs=2",
        "text.max_tokens=24",
        "text.initial_logit_bias=-2.8",
    ),
    towers=("base", "softmax", "tla", "none", "no_gate", "no_norm", "no_rope", "projection"),
    at_all_sides=("base", "softmax", "tla"),
    measures=("R@1", "R@10", NEIGHBORS),
)
SCENES = Task(
    name="scenes",
    bounds=(128, 256),
    sides=(128, 256, 384, 512, 768, 1024, 1536),
    # in order: both orders of a pair of pictures come into one pack
    source="{{path: {path}/train, format: webdataset, media_column: bmp}}",
    text_encoder="ordered_word_vectors",
    settings=(
        # a picture that is made smaller has patches of both of its halves
        "data.resolution={mode: native, max_patches: 32}",
        "data.max_shrink=0",
        "data.shuffle_window=1",
        "data.open_packs=1",
        "data.tokens_per_pack=512",
        "training.max_steps=700",
        "text.pooling=pooler",
        "text.max_tokens=64",
        "text.initial_logit_bias=-3.8",
    ),
    towers=("base", "softmax", "tla", "none", "no_gate", "no_norm", "no_rope", "projection"),
    at_all_sides=("base", "softmax", "tla"),
    measures=("R@1", "R@10", ORDER),
)
TASKS = {task.name: task for task in (PICTURES, SCENES)}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        task: what for.
        variant: a key of `VARIANTS`.
        seed: of the data's order and of the weights.
    """

    task: Task
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.task.name}/seed{self.seed}/{self.variant}"


def recipe_of(run: Run, out: Path, overrides: Sequence[str] = ()) -> StageRecipe:
    """The recipe of a run.

    Args:
        run: which.
        out: the study's folder.
        overrides: changes for all runs.
    """
    task = run.task
    changes = [
        *SETTINGS,
        *task.settings,
        f"data.sources=[{task.source.format(path=(out / 'data' / task.name).absolute())}]",
        f"text.encoder={(out / task.text_encoder).absolute()}",
        *overrides,
        *VARIANTS[run.variant].changes,
        f"training.seed={run.seed}",
    ]
    return load_recipe("tiny/stage2", changes)
