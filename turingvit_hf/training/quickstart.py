# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The main job in small: pictures in, a tower trained by Trainer, retrieval measured, the checkpoint loaded and used.

`run_quickstart` reads top to bottom as the list of its steps, and each step is a function.
"""

import importlib.util
import json
import logging
import math
import os
import platform
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
import transformers
from torch import Tensor
from transformers import TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

import turingvit_hf
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.retrieval import embed_pairs, retrieval_metrics
from turingvit_hf.files.output_folder import choose_folder, written_in_one_piece
from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig, initial_logit_bias
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.processing.processing_turingvit import TuringViTProcessor
from turingvit_hf.training.collators import ImageTextCollator
from turingvit_hf.training.datasets import load_pairs, split_pairs
from turingvit_hf.training.demo.demonstration import Answer, ask_zero_shot, check_reload, generate_with_llava
from turingvit_hf.training.demo.progress import TimeBudgetProgress
from turingvit_hf.training.demo.threads import FastestThreads, one_thread
from turingvit_hf.training.demo.timebox import TimeBudget, TimeBudgetCallback, time_based_schedule
from turingvit_hf.training.objectives import ContrastiveObjective
from turingvit_hf.training.text import small_text_config, train_tokenizer
from turingvit_hf.training.trainer import TuringViTTrainer


MARKER = "quickstart.json"  # a folder that has it was written by a quickstart and may be replaced by one
PATCH_SIZE = 16
MAX_PATCHES = 144  # 192 x 192 pixels: larger pictures would take the time of several
EXAMPLES_PER_MINUTE = 2_400
MIN_EXAMPLES, MAX_EXAMPLES = 160, 30_000  # they are kept in memory
MAX_HELD_OUT = 400
BATCH_SIZE = 32
EVALUATION_BATCH_SIZE = 64
HIDDEN_SIZE = 192
LEARNING_RATE = 5e-4
KS = (1, 5)
NUM_QUERIES_DRAWN = 7

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What was done in training: (step, loss) pairs, steps, images with repetition, and seconds."""

    losses: list[tuple[int, float]]
    num_steps: int
    num_images: int
    seconds: float


@dataclass(frozen=True)
class QuickstartResult:
    """What a quickstart found out. Metrics are those of `retrieval_metrics` with k = 1 and 5."""

    before: dict[str, float]
    after: dict[str, float]
    training: Training
    answers: list[Answer]
    generated: str


def run_quickstart(
    data: str = "shapes",
    *,
    minutes: float = 5.0,
    out: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> tuple[QuickstartResult, Path]:
    """Trains a small tower on image-caption pairs; returns what it learned and the folder that has the rest.

    The folder holds `model/` (dual encoder with processor), `vision_tower/` (tower with image processor, for
    `AutoModel`), `retrieval.json`, `quickstart.json` (settings, environment, losses, answers) and `quickstart.png`. It
    appears at the end and complete, or not at all.

    Args:
        data: `"shapes"`, `"stamps"`, or whatever else `load_pairs` takes.
        minutes: wall-clock time for everything. Training gets what the data leaves and the report needs not, but at
            least a quarter.
        out: the folder to write; None takes the first free name of `turingvit-quickstart`, `turingvit-quickstart-2`,
            and so on.
        seed: for data, split, weights and order. A run is timed, so the number of steps and with it the result still
            depend on the machine.
        overwrite: whether `out` may replace the result of an earlier quickstart. Nothing else is ever replaced.

    Raises:
        InputError: an argument or the data is at fault.
    """
    if not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"minutes must be more than 0, not {minutes}")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(
            "the report is drawn by matplotlib, which is not installed: pip install 'turingvit_hf[plots]'"
        )
    budget = TimeBudget(60 * minutes)
    target = choose_folder(out, default="turingvit-quickstart", marker=MARKER, overwrite=overwrite)
    with written_in_one_piece(target) as folder, one_thread() as num_threads:
        result = _run_steps(data, folder, budget, seed=seed, num_threads=num_threads)
    logger.info("wrote %s after %.0f s", target, budget.elapsed())
    return result, target


def _run_steps(data: str, folder: Path, budget: TimeBudget, *, seed: int, num_threads: int) -> QuickstartResult:
    set_seed(seed)
    pairs = prepare_pairs(data, budget.seconds / 60, seed=seed)
    test = pairs["test"]
    processor = make_processor(pairs["train"]["caption"])
    batch_size = min(BATCH_SIZE, len(pairs["train"]))
    model = make_model(processor, batch_size=batch_size)

    started = budget.elapsed()
    before, *_ = measure(model, processor, test)
    # what comes after training: measuring again, saving, the demonstrations, drawing
    reserve = 12 + 4 * (budget.elapsed() - started)
    seconds = max(budget.left() - reserve, budget.seconds / 4)
    training = train_model(
        model, processor, pairs, seconds=seconds, batch_size=batch_size, num_threads=num_threads, seed=seed
    )
    after, images_NE, texts_NE = measure(model, processor, test)
    logger.info("%s", describe_metrics(before, after, num_pairs=len(test)))

    save(model, processor, folder)
    collate = ImageTextCollator(processor.image_processor, processor.tokenizer)
    check_reload(model, folder, collate([test[0], test[1]]))
    answers = ask_zero_shot(folder / "model", test, is_shapes=data == "shapes", seed=seed)
    generated = generate_with_llava(folder / "vision_tower", processor, test[0]["image"])
    result = QuickstartResult(before, after, training, answers, generated)
    settings = {"data": data, "minutes": budget.seconds / 60, "seed": seed, "batch_size": batch_size}
    write_json(folder, result, pairs, settings)
    title = f"TuringViT quickstart on {Path(data).name}"
    draw(folder / "quickstart.png", result, test, texts_NE @ images_NE.T, title=title, seed=seed)
    return result


def prepare_pairs(data: str, minutes: float, *, seed: int) -> datasets.DatasetDict:
    """The pairs of `data` as `train` and `test`, as many as can be of use in so many minutes."""
    num_examples = min(MAX_EXAMPLES, max(MIN_EXAMPLES, round(EXAMPLES_PER_MINUTE * minutes)))
    pairs = load_pairs(data, num_examples=num_examples, max_pixels=MAX_PATCHES * PATCH_SIZE**2, seed=seed)
    split = split_pairs(pairs, num_held_out=min(MAX_HELD_OUT, len(pairs) // 6), seed=seed)
    numbers = len(split["train"]), len(split["test"])
    logger.info("%s: %d pairs to train on, %d held out, such as %r", data, *numbers, split["test"]["caption"][0])
    return split


def make_processor(captions: Sequence[str]) -> TuringViTProcessor:
    """Image processor at native resolution, and a tokenizer trained on these captions."""
    image_processor = TuringViTImageProcessor(patch_size=PATCH_SIZE, max_patches=MAX_PATCHES)
    return TuringViTProcessor(image_processor, train_tokenizer(captions))


def make_model(processor: TuringViTProcessor, *, batch_size: int) -> TuringViTDualEncoderModel:
    """A dual encoder with random weights; its tower is one block, five linear-attention layers and a softmax layer."""
    vision_config = TuringViTConfig(
        hidden_size=HIDDEN_SIZE,
        intermediate_size=4 * HIDDEN_SIZE,
        num_hidden_layers=6,
        num_attention_heads=HIDDEN_SIZE // 64,
        patch_size=PATCH_SIZE,
        image_size=192,
        initializer_range=HIDDEN_SIZE**-0.5,  # the usual 0.02 is for wider towers; here it learns half as fast
    )
    config = TuringViTDualEncoderConfig(
        vision_config=vision_config,
        text_config=small_text_config(processor.tokenizer),
        projection_dim=HIDDEN_SIZE,
        text_pooling="mean",
        logit_bias_init_value=initial_logit_bias(batch_size),
    )
    model = TuringViTDualEncoderModel(config)
    sizes = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.turingvit, model.text_model)]
    logger.info("tower of %.1f M parameters in 6 layers, text encoder of %.1f M", *sizes)
    return model


def measure(
    model: TuringViTDualEncoderModel, processor: TuringViTProcessor, test: datasets.Dataset
) -> tuple[dict[str, float], Tensor, Tensor]:
    """Retrieval metrics on held-out pairs, and the embeddings of their images and texts, (N, E) each."""
    collate = ImageTextCollator(processor.image_processor, processor.tokenizer)
    starts = range(0, len(test), EVALUATION_BATCH_SIZE)
    rows = (range(start, min(start + EVALUATION_BATCH_SIZE, len(test))) for start in starts)
    images_NE, texts_NE = embed_pairs(model, (collate([test[row] for row in batch]) for batch in rows))
    return retrieval_metrics(images_NE, texts_NE, test["caption"], ks=KS), images_NE, texts_NE


def train_model(
    model: TuringViTDualEncoderModel,
    processor: TuringViTProcessor,
    pairs: datasets.DatasetDict,
    *,
    seconds: float,
    batch_size: int,
    num_threads: int,
    seed: int,
) -> Training:
    """Trains the model in place for so many seconds: Trainer, SigLIP loss, images packed at their own resolution."""
    logger.info("training for %.0f s, %d pairs a step", seconds, batch_size)
    budget = TimeBudget(seconds)
    progress = TimeBudgetProgress(budget)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = TuringViTTrainer(
            objective=ContrastiveObjective(),
            model=model,
            args=_training_arguments(scratch, batch_size=batch_size, seed=seed),
            train_dataset=pairs["train"],
            data_collator=ImageTextCollator(processor.image_processor, processor.tokenizer),
            callbacks=[TimeBudgetCallback(budget), FastestThreads(num_threads), progress],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.lr_scheduler = time_based_schedule(trainer.create_optimizer(), budget)
        try:
            trainer.train()
        finally:
            progress.close()
    losses = [(int(entry["step"]), entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    num_steps = trainer.state.global_step
    return Training(losses, num_steps, num_steps * batch_size, budget.elapsed())


def _training_arguments(folder: str, *, batch_size: int, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        weight_decay=0.05,
        adam_beta2=0.98,
        max_steps=1_000_000_000,  # the time budget ends training
        logging_steps=5,
        logging_first_step=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.accelerator.is_available(),
        seed=seed,
    )


def save(model: TuringViTDualEncoderModel, processor: TuringViTProcessor, folder: Path) -> None:
    """Writes dual encoder and processor to `model/`, tower and image processor to `vision_tower/`."""
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    model.turingvit.save_pretrained(folder / "vision_tower")
    processor.image_processor.save_pretrained(folder / "vision_tower")


def describe_metrics(before: dict[str, float], after: dict[str, float], *, num_pairs: int) -> str:
    """The recalls as a table: before and after training, beside chance."""
    lines = [f"{f'retrieval on {num_pairs} held-out pairs':<34}{'before':>8}{'after':>8}{'chance':>9}"]
    for direction in ("image_to_text", "text_to_image"):
        for k in KS:
            recall, chance = f"{direction}_R@{k}", after[f"{direction}_chance@{k}"]
            lines.append(
                f"  {direction.replace('_', ' ')} R@{k:<15}{before[recall]:>8.1%}{after[recall]:>8.1%}{chance:>9.2%}"
                f"   {after[recall] / chance:.0f} times chance"
            )
    return "\n".join(lines)


def write_json(folder: Path, result: QuickstartResult, pairs: datasets.DatasetDict, settings: dict) -> None:
    """Writes `retrieval.json` and `quickstart.json`: everything that was measured, and under which conditions."""
    retrieval = {"num_pairs": len(pairs["test"]), "before": result.before, "after": result.after}
    (folder / "retrieval.json").write_text(json.dumps(retrieval, indent=2) + "\n")
    training = result.training
    record = {
        "settings": settings,
        "environment": {
            "turingvit_hf": turingvit_hf.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "machine": platform.platform(),
            "num_cores": os.cpu_count(),
        },
        "num_train_pairs": len(pairs["train"]),
        "training": {"num_steps": training.num_steps, "num_images": training.num_images, "seconds": training.seconds},
        "losses": training.losses,
        "answers": [{**vars(answer), "is_right": answer.is_right} for answer in result.answers],
        "generated": result.generated,
    }
    (folder / MARKER).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def draw(
    path: Path, result: QuickstartResult, test: datasets.Dataset, similarity_MN: Tensor, *, title: str, seed: int
) -> None:
    """Draws the report: queries are chosen by the seed, not by how well they did."""
    # not at the top: whoever uses the other steps needs no matplotlib
    from turingvit_hf.training.demo.report import NUM_RETRIEVED, Query, write_report

    captions = test["caption"]
    queries = []
    for row in random.Random(seed).sample(range(len(test)), min(NUM_QUERIES_DRAWN, len(test))):
        best = similarity_MN[row].topk(min(NUM_RETRIEVED, len(test))).indices.tolist()
        is_right = [captions[found] == captions[row] for found in best]
        queries.append(Query(captions[row], [test[found]["image"] for found in best], is_right))
    training = result.training
    summary = (
        f"{title}: {training.num_images:,} images in {training.num_steps:,} steps, {training.seconds / 60:.1f} minutes"
    )
    write_report(
        path,
        title=summary,
        losses=training.losses,
        before=result.before,
        after=result.after,
        queries=queries,
    )
