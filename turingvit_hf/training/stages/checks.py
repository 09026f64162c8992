# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What is wrong with a stage, told before anything is loaded, opened or written: at a start and in a dry run."""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import AutoConfig

from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.sources import (
    GLOB_CHARACTERS,
    JSON_LINES_SUFFIXES,
    PARQUET_SUFFIXES,
    TAR_SUFFIXES,
)
from turingvit_hf.errors import InputError
from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.data.step_loader import check_packs
from turingvit_hf.training.loop.trackers import tracker_faults
from turingvit_hf.training.recipe_checks import check_sections
from turingvit_hf.training.stages.folder import is_finished
from turingvit_hf.training.stages.models import SMALL, checkpoint_in


# teachers, encoders and sources that are made here
BUILT_IN = (SMALL, "hog", "shapes")
TIMM_PREFIX = "timm/"

logger = logging.getLogger(__name__)


def num_launched() -> int:
    """The number of processes that the launcher of this one says it has started, 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_start(recipe: StageRecipe, *, num_ranks: int, before: StageRecipe | None = None) -> None:
    """Checks what can be checked before a stage starts.

    Args:
        recipe: the stage's.
        num_ranks: processes it runs on.
        before: the stage of the same chain that it goes on from, which may not have run yet.

    Raises:
        InputError: with every fault that was found.
    """
    faults = find_faults(recipe, num_ranks=num_ranks, before=before)
    if faults:
        raise InputError("; ".join(faults))


def check_chain(stages: Sequence[tuple[Path, StageRecipe]], *, num_ranks: int) -> None:
    """Checks all stages of a chain that are not finished, before the first of them starts.

    Args:
        stages: each with its folder; see `ChainRecipe.in_folder`.
        num_ranks: processes they run on.

    Raises:
        InputError: with every fault of the first stage that has one.
    """
    for folder, recipe, before in linked(stages):
        if is_finished(folder):
            continue
        try:
            check_start(recipe, num_ranks=num_ranks, before=before)
        except InputError as error:
            raise InputError(f"{folder.name}: {error}") from None


def linked(
    stages: Sequence[tuple[Path, StageRecipe]],
) -> Iterator[tuple[Path, StageRecipe, StageRecipe | None]]:
    """Each stage of a chain with the one whose folder it starts from; None where it starts from elsewhere."""
    recipes = {str(folder): recipe for folder, recipe in stages}
    for folder, recipe in stages:
        yield folder, recipe, recipes.get(recipe.init_from or "")


def find_faults(recipe: StageRecipe, *, num_ranks: int, before: StageRecipe | None = None) -> list[str]:
    """The sentences about what keeps a stage from starting, as far as that can be told from names and numbers alone.

    Args:
        recipe: the stage's.
        num_ranks: processes it runs on.
        before: as for `check_start`.
    """
    faults = [fault for _, fault in check_sections(recipe)]
    if not recipe.data.sources:
        faults.append(
            "data.sources is empty: name your data in a recipe that extends this one, or on the command line by "
            "--set 'data.sources=[{path: FOLDER_FILE_OR_HUB_ID}]'"
        )
    if (max_steps := recipe.training.get("max_steps", 0)) < 1:
        faults.append(f"training.max_steps={max_steps}: the data has no end, so the recipe must say how many steps")
    try:
        check_packs(recipe.data, TuringViTConfig(**recipe.model).patch_size, num_ranks)
    except InputError as error:
        faults.append(f"data: {error}")
    faults += _missing_files(recipe, before)
    faults += tracker_faults(recipe.training.get("report_to"))
    if _checkpoints_twice(recipe):
        faults.append(
            "training.activation_checkpointing and that of FSDP are both on, and one is enough: set "
            "fsdp_activation_checkpointing: false in the launch file, or training.activation_checkpointing: false"
        )
    return faults


def find_warnings(recipe: StageRecipe) -> list[str]:
    """The sentences about what lets a stage start, and is probably not meant."""
    if recipe.stage != "mim" and recipe.init_from is None:
        return [
            f"stage {recipe.stage!r} begins with a tower of random weights; init_from names the folder of the stage "
            "that it goes on from"
        ]
    return []


def named_files(recipe: StageRecipe) -> list[tuple[str, str]]:
    """The (key, name) of everything that a recipe reads: data, models and tokenizers, here or on a hub."""
    names = [(f"data.sources.{number}", source.path) for number, source in enumerate(recipe.data.sources)]
    names += [(f"evaluation.{name}", source.path) for name, source in measured_sources(recipe).items()]
    names += [("init_from", recipe.init_from)] if recipe.init_from else []
    names += [("teacher.model", recipe.teacher.model)] if recipe.teacher else []
    if recipe.text:
        names += [("text.encoder", recipe.text.encoder)]
        names += [("text.vocabulary", recipe.text.vocabulary)] if recipe.text.vocabulary else []
    return [(key, name) for key, name in names if name.partition(":")[0] not in BUILT_IN]


def measured_sources(recipe: StageRecipe) -> dict[str, SourceRecipe]:
    """The sources of the section `evaluation`, by their keys."""
    evaluation = recipe.evaluation
    found = {name: getattr(evaluation, name) for name in ("retrieval", "video_retrieval", "classification")}
    return {name: source for name, source in found.items() if source is not None}


def is_meant_locally(name: str, recipe: StageRecipe) -> bool:
    """Whether a name of a recipe can only be a file or folder here, there or not, and no id on a hub.

    `FOLDER/NAME` reads like such an id: it is local where `FOLDER` is a folder here, or where another of the recipe's
    paths begins with it.
    """
    if "://" in name or name.startswith(TIMM_PREFIX):
        return False
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return _looks_local(name)
    root = name.partition("/")[0]
    others = (other for _, other in named_files(recipe) if other != name)
    return (
        _looks_local(name)
        or Path(root).is_dir()
        or any(_looks_local(other) and other.startswith(f"{root}/") for other in others)
    )


def _looks_local(name: str) -> bool:
    return "://" not in name and (
        name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or bool(GLOB_CHARACTERS & set(name))
        or name.lower().endswith((*TAR_SUFFIXES, *PARQUET_SUFFIXES, *JSON_LINES_SUFFIXES))
        or Path(name).exists()
    )


def _missing_files(recipe: StageRecipe, before: StageRecipe | None) -> Iterator[str]:
    is_continued = before.stage != "mim" if before is not None else _continues_dual_encoder(recipe)
    for key, name in named_files(recipe):
        if key == "init_from":
            if before is None and is_meant_locally(name, recipe):
                try:
                    checkpoint_in(name)
                except InputError as error:
                    yield str(error)
        elif key == "text.encoder" and is_continued:
            continue  # a dual encoder that is continued has its own
        elif is_meant_locally(name, recipe) and is_absent(name):
            what = "file or folder" if key.startswith(("data", "evaluation")) else "folder"
            yield f"{key}={name!r}: there is no such {what}"
        elif key in ("text.encoder", "teacher.model") and _holds_no_model(name):
            yield f"{key}={name!r} has no config.json, so it is no model's folder"


def _holds_no_model(name: str) -> bool:
    path = Path(name).expanduser()
    return path.is_dir() and not (path / "config.json").is_file()


def is_absent(name: str) -> bool:
    """Whether nothing here has this name, or matches it."""
    path = Path(name).expanduser()
    return not path.exists() and next(glob.iglob(str(path), recursive=True), None) is None


def _continues_dual_encoder(recipe: StageRecipe) -> bool:
    """Whether `init_from` holds a dual encoder, as far as that can be seen here; a hub is not asked."""
    if recipe.init_from is None or not Path(recipe.init_from).expanduser().is_dir():
        return False
    try:
        config = AutoConfig.from_pretrained(checkpoint_in(recipe.init_from))
    except (InputError, OSError, ValueError, KeyError):
        return False  # what is wrong with it is told where it is loaded
    return isinstance(config, TuringViTDualEncoderConfig)


def _checkpoints_twice(recipe: StageRecipe) -> bool:
    """Whether both Trainer and FSDP would compute activations again in the backward pass."""
    training = recipe.training
    by_trainer = training.get("activation_checkpointing") or training.get("gradient_checkpointing")
    in_recipe = training.get("fsdp") and (training.get("fsdp_config") or {}).get("activation_checkpointing")
    # what accelerate's launcher makes of its file
    by_launcher = all(
        os.environ.get(name, "").lower() == "true" for name in ("ACCELERATE_USE_FSDP", "FSDP_ACTIVATION_CHECKPOINTING")
    )
    return bool(by_trainer) and bool(in_recipe or by_launcher)
