# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a stage would do, without doing it: nothing is downloaded, opened or written."""

import os
from pathlib import Path

import torch

from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.files.yaml_files import dump_yaml
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.data.samples import max_patches_of
from turingvit_hf.training.loop.checkpoints import find_last_checkpoint
from turingvit_hf.training.stages.checks import (
    find_faults,
    find_warnings,
    is_absent,
    is_meant_locally,
    measured_sources,
    named_files,
)
from turingvit_hf.training.stages.folder import is_finished, is_untrained
from turingvit_hf.training.stages.host_memory import CLIP_BYTES, IMAGE_BYTES, estimate_host_memory


# of float32 weights, their gradients and AdamW's two moments
BYTES_A_PARAMETER = 16


def describe_plan(recipe: StageRecipe, *, out: Path, num_ranks: int, before: StageRecipe | None = None) -> str:
    """What the stage would do, as lines for people; the resolved recipe comes first, what is wrong with it last.

    Args:
        recipe: the stage's.
        out: where it would be written.
        num_ranks: processes it would run on.
        before: the stage of the same chain that it goes on from.
    """
    lines = [dump_yaml(recipe.to_dict()).rstrip(), ""]
    lines += [f"{name + ':':<14}{text}" for name, text in _facts(recipe, out, num_ranks, before)]
    lines += [f"warning: {warning}" for warning in find_warnings(recipe)]
    lines += [f"error: {fault}" for fault in find_faults(recipe, num_ranks=num_ranks, before=before)]
    return "\n".join(lines)


def _facts(recipe: StageRecipe, out: Path, num_ranks: int, before: StageRecipe | None) -> list[tuple[str, str]]:
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
        ("data", "; ".join(_describe_source(source, recipe) for source in data.sources) or "none yet"),
        ("measures", _measurements(recipe)),
        ("a step", f"{data.packs_per_step} packs of {data.tokens_per_pack:,} patches, {_images(recipe)}"),
        ("a process", f"{share} of a step; {num_ranks} processes, {data.num_workers} loader workers each"),
        ("host memory", _host_memory(recipe, num_ranks)),
        ("steps", f"{max_steps:,}, so {max_steps * num_patches:,} patches"),
        ("checkpoints", _checkpoints(recipe, out)),
        ("not local", ", ".join(_downloads(recipe, before)) or "nothing"),
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


def _describe_source(source: SourceRecipe, recipe: StageRecipe) -> str:
    is_missing = is_meant_locally(source.path, recipe) and is_absent(source.path)
    return f"{source.path}{' (NOT FOUND)' if is_missing else ''}, {source.kind}s"


def _measurements(recipe: StageRecipe) -> str:
    found = measured_sources(recipe)
    if not found:
        return "nothing: the section evaluation names no source"
    sources = "; ".join(f"{name} on {_describe_source(source, recipe)}" for name, source in found.items())
    if recipe.training.get("eval_strategy", "no") == "no":
        return f"{sources}; at the end"
    return f"{sources}; every {recipe.training.get('eval_steps', recipe.training.get('logging_steps', 10))} steps"


def _host_memory(recipe: StageRecipe, num_ranks: int) -> str:
    """What the data take in a process, and what of."""
    memory = estimate_host_memory(recipe, num_ranks=num_ranks)
    parts = []
    if memory.num_rows:
        sizes = f"{IMAGE_BYTES / 1e3:g} kB an image"
        sizes += f" and {CLIP_BYTES / 1e6:g} MB a clip" if recipe.data.video_share > 0 else ""
        parts.append(f"{_gibibytes(memory.row_bytes)} in {memory.num_rows:,} rows of streams at {sizes}")
    if memory.waiting_bytes:
        parts.append(f"{_gibibytes(memory.waiting_bytes)} that wait for a pack")
    if memory.num_packs:
        parts.append(f"{_gibibytes(memory.pack_bytes)} in {memory.num_packs} packs ahead")
    readers = f"{memory.num_readers} readers a process"
    if not parts:
        return f"little: {readers}, and no source is streamed"
    return f"{readers} hold about {_gibibytes(memory.total_bytes)} of data: {', '.join(parts)}"


def _gibibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _downloads(recipe: StageRecipe, before: StageRecipe | None) -> list[str]:
    """The models, tokenizers and data that are no local paths."""
    keys = [(key, name) for key, name in named_files(recipe) if before is None or key != "init_from"]
    return list(dict.fromkeys(name for _, name in keys if not is_meant_locally(name, recipe)))


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
    if is_untrained(out):
        return "where a start left something that nobody misses, and is free"
    checkpoint = find_last_checkpoint(out)
    return f"which --resume would continue from {checkpoint.name}" if checkpoint else "which is NOT EMPTY"
