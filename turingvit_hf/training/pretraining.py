# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A stage of pretraining from its recipe to its folder, and stages one after another.

run_pretraining(load_recipe("tiny/stage2"), out="stage2")
"""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from turingvit_hf.errors import InputError
from turingvit_hf.files.output_folder import written_in_one_piece
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.modeling.modeling_masked_image import TuringViTForMaskedImageModeling
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.data.captions import iterate_captions
from turingvit_hf.training.data.step_loader import StepLoader
from turingvit_hf.training.distributed import barrier, rank
from turingvit_hf.training.loop.checkpoints import find_last_checkpoint, recipe_fingerprint
from turingvit_hf.training.objective import Objective
from turingvit_hf.training.objectives import ContrastiveObjective, MaskedDistillationObjective
from turingvit_hf.training.recipe_checks import training_values
from turingvit_hf.training.recipes import ChainRecipe
from turingvit_hf.training.stages.checks import (
    check_chain,
    check_start,
    find_warnings,
    measured_sources,
    num_launched,
)
from turingvit_hf.training.stages.data import Collate, make_collate, make_evaluations
from turingvit_hf.training.stages.folder import (
    TOKENIZER,
    begun,
    check_chain_folder,
    check_folder,
    is_finished,
    output_folder,
    save_models,
    write_chain_report,
    write_report,
)
from turingvit_hf.training.stages.models import (
    SMALL_VOCABULARY,
    find_start,
    load_tokenizer,
    make_dual_encoder,
    make_image_processor,
    make_masked_image_model,
    named_tokenizer,
)
from turingvit_hf.training.stages.progress import StepProgress, describe_measurements
from turingvit_hf.training.stages.report import CURVES, LOSSES, can_draw, draw_curves, model_card
from turingvit_hf.training.teachers import load_teacher
from turingvit_hf.training.text import train_tokenizer
from turingvit_hf.training.trainer import TuringViTTrainer


NUM_TOKENIZER_CAPTIONS = 20_000
DEFAULTS = {"logging_steps": 10, "logging_first_step": True, "disable_tqdm": True, "report_to": "none"}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a stage trains, with what it is prepared and measured."""

    model: TuringViTDualEncoderModel | TuringViTForMaskedImageModeling
    image_processor: TuringViTImageProcessor
    tokenizer: PreTrainedTokenizerBase | None
    objective: Objective
    collate: Collate


def run_pretraining(recipe: StageRecipe, *, out: str | Path, resume: bool = False) -> Path:
    """Runs a stage and returns its folder, which then holds `model/`, `vision_tower/`, `report.json` and more.

    Every process of a distributed run calls it with the same arguments; one of them writes. On SIGTERM or SIGINT a
    checkpoint is written and the function returns; `is_finished` of `stages/folder.py` tells the difference.

    Args:
        recipe: what to do.
        out: the folder, on a file system that all processes share; empty or absent, unless the stage is resumed.
        resume: go on from the last complete checkpoint in `out`, or from the beginning where there is none yet. A
            stage that is finished is left as it is.

    Raises:
        InputError: recipe, data or folder are at fault.
        DivergedError: too many steps in a row had no finite loss.
    """
    folder = output_folder(out)
    check_folder(folder, recipe, resume=resume)
    if is_finished(folder):
        logger.info("%s is finished", folder)
        return folder
    check_start(recipe, num_ranks=num_launched())
    for warning in find_warnings(recipe):
        logger.warning("%s", warning)
    arguments = make_arguments(recipe, folder)
    if not can_draw():
        logger.warning(
            "matplotlib is not installed, so there will be no %s: pip install 'turingvit_hf[plots]'", CURVES
        )
    is_writer = arguments.process_index == 0
    with begun(folder, recipe, world_size=arguments.world_size, is_writer=is_writer):
        set_seed(arguments.seed)
        parts = _make_parts(recipe, folder, is_writer=is_writer)
        _train(recipe, parts, arguments, folder)
    return folder


def run_chain(chain: ChainRecipe, *, out: str | Path, resume: bool = False) -> Path:
    """Runs the stages of a chain in `out/stage1`, `out/stage2` and so on; returns the last one's folder.

    Each stage starts from the folder of the one before, as `ChainRecipe.in_folder` says. When a signal ends one, the
    chain ends too, and the folder of that stage is returned. `out/chain.json` holds the reports of all stages.

    Args:
        chain: the stages.
        out: their folder; empty or absent, unless the chain is resumed.
        resume: leave finished stages as they are and go on with the first that is not.

    Raises:
        InputError: as `run_pretraining`; what can be told before is told of all stages before the first one starts.
    """
    root = output_folder(out).resolve()
    check_chain_folder(root, resume=resume)
    barrier()
    folder, stages = root, chain.in_folder(root)
    check_chain(stages, num_ranks=num_launched())
    for folder, recipe in stages:
        logger.info("%s of %d: %s", folder.name, len(chain.stages), recipe.name)
        run_pretraining(recipe, out=folder, resume=resume)
        if not is_finished(folder):
            return folder
    if rank() == 0:  # where it is there, a stage may have been done anew
        write_chain_report(root, [folder for folder, _ in stages])
    return folder


def make_arguments(recipe: StageRecipe, folder: Path) -> TrainingArguments:
    """Trainer's arguments: ours where the recipe says nothing, then the recipe's.

    Raises:
        InputError: a value is not one of those that transformers allows.
    """
    has_accelerator = torch.accelerator.is_available()
    # without use_cpu Trainer takes processes that a launcher started on CPUs for single ones
    values: dict[str, Any] = {**DEFAULTS, "dataloader_pin_memory": has_accelerator, "use_cpu": not has_accelerator}
    values |= training_values(recipe.training)
    if not measured_sources(recipe):
        # taking the section evaluation away is enough: Trainer would want to know on what it is to evaluate
        values |= {"eval_strategy": "no", "eval_on_start": False}
    try:
        return TrainingArguments(output_dir=str(folder), **values)
    except (ValueError, ImportError) as error:
        raise InputError(f"training: {str(error).strip().splitlines()[0]}") from error


def _make_parts(recipe: StageRecipe, folder: Path, *, is_writer: bool) -> _Parts:
    start = find_start(recipe)
    image_processor = make_image_processor(recipe, start)
    if recipe.stage == "mim":
        assert recipe.teacher is not None, "StageRecipe refuses stage 'mim' without a teacher"
        teacher = load_teacher(recipe.teacher, student_processor=image_processor, resolution=recipe.data.resolution)
        masked_model = make_masked_image_model(recipe, start, teacher_hidden_size=teacher.hidden_size)
        collate = make_collate(recipe, image_processor, teacher=teacher)
        return _Parts(masked_model, image_processor, None, MaskedDistillationObjective(teacher), collate)
    assert recipe.text is not None, "StageRecipe refuses a stage with captions without a text section"
    tokenizer = load_tokenizer(recipe, start) or _trained_tokenizer(recipe, folder, is_writer=is_writer)
    vocabulary = None
    if recipe.objective.superclass > 0:
        name = recipe.text.vocabulary
        vocabulary = tokenizer if name is None else named_tokenizer(name, f"text.vocabulary={name!r}")
    num_superclasses = len(vocabulary) if vocabulary is not None else 0
    model = make_dual_encoder(recipe, start, tokenizer=tokenizer, num_superclasses=num_superclasses)
    collate = make_collate(recipe, image_processor, tokenizer=tokenizer, vocabulary=vocabulary)
    return _Parts(model, image_processor, tokenizer, ContrastiveObjective(recipe.objective), collate)


def _trained_tokenizer(recipe: StageRecipe, folder: Path, *, is_writer: bool) -> PreTrainedTokenizerBase:
    """The tokenizer in `tokenizer/`, trained first where there is none: a resumed stage must have the same one."""
    place = folder / TOKENIZER
    if is_writer and not (place / "tokenizer.json").is_file():
        assert recipe.text is not None, "asked for with captions only"
        captions = iterate_captions(recipe.data.sources, num_captions=NUM_TOKENIZER_CAPTIONS)
        tokenizer = train_tokenizer(captions, vocab_size=SMALL_VOCABULARY, max_length=recipe.text.max_tokens)
        with written_in_one_piece(place) as partial:
            tokenizer.save_pretrained(partial)
        logger.info("trained a tokenizer of %d subwords on the captions", len(tokenizer))
    barrier()
    return named_tokenizer(str(place), "the stage's own tokenizer")


def _train(recipe: StageRecipe, parts: _Parts, arguments: TrainingArguments, folder: Path) -> None:
    loader = StepLoader(
        recipe.data,
        parts.collate,
        seed=arguments.seed,
        rank=arguments.process_index,
        num_ranks=arguments.world_size,
    )
    evaluations = make_evaluations(recipe, parts.collate, objective=parts.objective, tokenizer=parts.tokenizer)
    progress = StepProgress(LOSSES)
    checkpoint = find_last_checkpoint(folder)
    if checkpoint is not None:
        arguments.eval_on_start = False  # it was measured when the stage did start
    trainer = TuringViTTrainer(
        objective=parts.objective,
        step_loader=loader,
        optimizer_recipe=recipe.optimizer,
        fingerprint=recipe_fingerprint(recipe, folder),
        evaluations=evaluations,
        model=parts.model,
        args=arguments,
        processing_class=parts.image_processor,
        callbacks=[progress],
    )
    trainer.remove_callback(PrinterCallback)
    num_parameters = sum(parameter.numel() for parameter in parts.model.parameters())
    logger.info("%s: %.1f M parameters, %d steps", recipe.name, num_parameters / 1e6, arguments.max_steps)
    if checkpoint is not None:
        logger.info("going on from %s", checkpoint)
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        if trainer.stopped_by is not None:
            logger.warning("stopped by %s at step %d; --resume goes on", trainer.stopped_by, trainer.state.global_step)
            return
        metrics = _final_metrics(trainer) if evaluations else {}
    finally:
        progress.close()
        loader.close()
    weights = trainer.trained_weights()
    if arguments.process_index == 0:
        save_models(folder, parts.model, weights, image_processor=parts.image_processor, tokenizer=parts.tokenizer)
        report = {
            "name": recipe.name,
            "stage": recipe.stage,
            "num_steps": trainer.state.global_step,
            "num_parameters": num_parameters,
            "num_images": trainer.throughput.num_images,
            "num_patches": trainer.throughput.num_patches,
            "seconds": time.monotonic() - started,
            "metrics": metrics,
            "history": trainer.state.log_history,
        }
        _write_results(folder, recipe, report)
    barrier()


def _final_metrics(trainer: TuringViTTrainer) -> dict[str, float]:
    """What is measured after the last step; read from the logs where that has just been done."""
    step = trainer.state.global_step
    for logs in reversed(trainer.state.log_history):
        found = {key: value for key, value in logs.items() if key.startswith("eval_")}
        if found and logs["step"] == step:
            return found
    return trainer.evaluate()


def _write_results(folder: Path, recipe: StageRecipe, report: dict[str, Any]) -> None:
    title = f"{recipe.name}: {report['num_images']:,} images in {report['num_steps']:,} steps"
    has_curves = draw_curves(folder / CURVES, report["history"], title=title)
    (folder / "README.md").write_text(model_card(recipe, report, has_curves=has_curves), encoding="utf-8")
    write_report(folder, report)
    found = ", ".join(describe_measurements(report["metrics"]))
    logger.info("wrote %s%s", folder, f": {found}" if found else "")
