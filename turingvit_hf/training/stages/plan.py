# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a stage would do, without doing it: nothing is downloaded, opened or written."""

import os
from pathlib import Path

import torch

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.training.arguments import SourceRecipe, StageRecipe
from turingvit_hf.training.data.samples import max_patches_of
from turingvit_hf.training.loop.checkpoints import find_last_checkpoint
from turingvit_hf.training.stages.folder import is_finished
from turingvit_hf.training.stages.models import SMALL
from turingvit_hf.training.yaml_files import dump_yaml


# of float32 weights, their gradients and AdamW's two moments
BYTES_A_PARAMETER = 16
# teachers and encoders that are not downloaded
BUILT_IN = (SMALL, "hog", "shapes")


def describe_plan(recipe: StageRecipe, *, out: Path, num_ranks: int) -> str:
    """What the stage would do, as lines for people; the resolved recipe comes first.

    Args:
        recipe: the stage's.
        out: where it would be written.
        num_ranks: processes it would run on.
    """
    lines = [dump_yaml(recipe.to_dict()).rstrip(), ""]
    lines += [f"{name + ':':<14}{text}" for name, text in _facts(recipe, out, num_ranks)]
    return "\n".join(lines)


def _facts(recipe: StageRecipe, out: Path, num_ranks: int) -> list[tuple[str, str]]:
    data = recipe.data
    num_parameters = _num_parameters(recipe)
    memory = num_parameters * BYTES_A_PARAMETER / 2**30
    packs, rest = divmod(data.packs_per_step, num_ranks)
    share = f"{packs} packs" if not rest else f"NOT a whole number of packs: {data.packs_per_step} / {num_ranks}"
    max_steps = recipe.training.get("max_steps", 0)
    num_patches = data.packs_per_step * data.tokens_per_pack
    return [
        ("tower", f"{num_parameters:,} parameters; weights, gradients and AdamW take {memory:.2f} GiB in float32"),
        ("starts from", recipe.init_from or "random weights"),
        ("data", "; ".join(map(_describe_source, data.sources)) or "none yet: set data.sources"),
        ("a step", f"{data.packs_per_step} packs of {data.tokens_per_pack:,} patches, {_images(recipe)}"),
        ("a process", f"{share} of a step; {num_ranks} processes, {data.num_workers} loader workers each"),
        ("steps", f"{max_steps:,}, so {max_steps * num_patches:,} patches"),
        ("checkpoints", _checkpoints(recipe, out)),
        ("not local", ", ".join(_downloads(recipe)) or "nothing"),
        ("writes to", f"{out}, {_state_of(out)}"),
    ]


def _num_parameters(recipe: StageRecipe) -> int:
    """Of the tower with its pooling head where the stage trains one."""
    with torch.device("meta"):
        tower = TuringViTModel(TuringViTConfig(**recipe.model, vision_use_head=recipe.stage != "mim"))
    return sum(parameter.numel() for parameter in tower.parameters())


def _images(recipe: StageRecipe) -> str:
    """How many images a step holds, as far as the recipe says."""
    resolution, patch = recipe.data.resolution, TuringViTConfig(**recipe.model).patch_size
    num_patches = recipe.data.packs_per_step * recipe.data.tokens_per_pack
    if resolution.mode == "fixed":
        return f"{num_patches // (resolution.size // patch) ** 2:,} images"
    most = resolution.max_patches
    if resolution.mode == "bounded":
        most = min(most, (resolution.max_side // patch) ** 2)
    images = f"at least {num_patches // most:,} images"
    if recipe.stage != "image_video":
        return images
    most = min(most, max_patches_of(recipe.data, "video"))
    return f"{images} or {num_patches // (most * recipe.data.num_frames):,} clips"


def _describe_source(source: SourceRecipe) -> str:
    path = source.path
    if _is_local(path) and not any(sign in path for sign in "*?["):
        path += "" if Path(path).expanduser().exists() else " (NOT FOUND)"
    return f"{path}, {source.kind}s"


def _is_local(name: str) -> bool:
    """Whether a name can only be a file or folder here, or is one."""
    return "://" not in name and (name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists())


def _downloads(recipe: StageRecipe) -> list[str]:
    """The models, tokenizers and data that are no local paths."""
    names = [source.path for source in recipe.data.sources]
    names += [source.path for source in (recipe.evaluation.retrieval, recipe.evaluation.video_retrieval) if source]
    names += [recipe.evaluation.classification.path] if recipe.evaluation.classification else []
    names += [recipe.teacher.model] if recipe.teacher else []
    names += [recipe.init_from] if recipe.init_from else []
    if recipe.text:
        names += [recipe.text.encoder, *([recipe.text.vocabulary] if recipe.text.vocabulary else [])]
    wanted = [name for name in names if name.partition(":")[0] not in BUILT_IN and not _is_local(name)]
    return list(dict.fromkeys(wanted))


def _checkpoints(recipe: StageRecipe, out: Path) -> str:
    if recipe.training.get("save_strategy") == "no":
        return "none, as save_strategy says: the stage cannot be resumed"
    keeps = recipe.training.get("save_total_limit")
    kept = f", the last {keeps} are kept" if keeps else ""
    return f"{out / 'checkpoint-N'} every {recipe.training.get('save_steps', 500)} steps{kept}"


def _state_of(out: Path) -> str:
    if not out.exists() or (out.is_dir() and not any(os.scandir(out))):
        return "which is free"
    if is_finished(out):
        return "where a stage is finished"
    checkpoint = find_last_checkpoint(out)
    return f"which --resume would continue from {checkpoint.name}" if checkpoint else "which is NOT EMPTY"
