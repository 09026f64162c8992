# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A VLM with a TuringViT in it, trained as LLaVA is: the projector first, then LoRA adapters on the language model.

    python examples/train_vlm.py --stage align --tower stage3/vision_tower --language-model path/to/llm \\
        --data captions.json --images pictures --output aligned
    python examples/train_vlm.py --stage instruct --vlm aligned/vlm --tower-training lora \\
        --data conversations.json --images pictures --output instructed
    python examples/train_vlm.py --smoke

Where the VLM comes from: `--tower` and `--language-model` make a LLaVA with a new projector; `--tower` and `--vlm` put
the tower into a VLM that exists, as `turingvit swap` does; `--vlm` alone goes on with one that has a TuringViT.

Data is a .json or .jsonl file of chat `messages` or of LLaVA's `conversations`, or `--stamps FOLDER`: Tux Paint's
pictures with captions, a tenth of them held out and measured at the end. `--output` gets `checkpoints` (the same
command with `--resume` goes on from the last one), `vlm` (for `from_pretrained`), and in stage instruct `adapter`.
"""

import argparse
import dataclasses
import json
import logging
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from llava_with_turingvit import build_llava, make_smoke_input
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PaliGemmaProcessor,
    PreTrainedModel,
    ProcessorMixin,
    TrainingArguments,
)

from turingvit_hf.data.shapes import generate_shapes
from turingvit_hf.errors import InputError
from turingvit_hf.files.output_folder import written_in_one_piece
from turingvit_hf.integrations.tower_swap import swap_vision_tower
from turingvit_hf.training.data.stamps import iterate_stamps
from turingvit_hf.training.vlm.chat_data import ChatSample, ConversationCollator, ConversationDataset
from turingvit_hf.training.vlm.chat_template import TURN_END, TURN_START, chat_template, prefix_template
from turingvit_hf.training.vlm.conversations import read_rows
from turingvit_hf.training.vlm.prefix_suffix import make_renderer
from turingvit_hf.training.vlm.stages import VlmStage, make_vlm_trainer


QUESTION = "What is this?"
# LLaVA-1.5's
LEARNING_RATES = {"align": 1e-3, "instruct": 2e-4}


def load_vlm(options: argparse.Namespace) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The VLM to train, with a TuringViT in it and a chat template that has images."""
    if options.language_model:
        vlm, processor = build_llava(options.tower, options.language_model)
        processor.image_processor.max_patches = options.max_image_tokens or 576
        processor.context_length = getattr(vlm.config.text_config, "max_position_embeddings", None)
    else:
        vlm = AutoModelForImageTextToText.from_pretrained(options.vlm, dtype="auto")
        processor = AutoProcessor.from_pretrained(options.vlm)
        if options.tower:
            swapped = swap_vision_tower(
                vlm, options.tower, processor=processor, max_image_tokens=options.max_image_tokens
            )
            print("new parameters:", ", ".join(swapped.newly_initialized) or "none")
            processor = swapped.processor
    if isinstance(processor, PaliGemmaProcessor):
        processor.chat_template = prefix_template(processor.image_token)
    try:
        make_renderer(processor)
    except InputError as error:
        print(f"{error}; using ChatML with images")
        use_chatml(vlm, processor)
    return vlm, processor


def use_chatml(vlm: PreTrainedModel, processor: Any) -> None:
    """Give the processor a chat template with images, and both the tokens that it is made of."""
    tokenizer = processor.tokenizer
    tokenizer.add_special_tokens({"bos_token": TURN_START, "eos_token": TURN_END})
    if len(tokenizer) > vlm.get_input_embeddings().num_embeddings:
        vlm.resize_token_embeddings(len(tokenizer))
    vlm.generation_config.eos_token_id = tokenizer.eos_token_id
    vlm.generation_config.bos_token_id = tokenizer.bos_token_id
    processor.chat_template = chat_template(processor.image_token)


def stamp_rows(folder: Path) -> tuple[list[dict], list[dict]]:
    """Conversations about Tux Paint's stamps to train on, and the tenth that is held out, told by their captions."""
    parts: tuple[list[dict], list[dict]] = [], []
    for picture, caption in iterate_stamps(folder):
        turns = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": caption}]
        is_held_out = zlib.crc32(caption.lower().encode()) % 10 == 0
        parts[is_held_out].append({"image": str(picture), "conversations": turns})
    if not all(parts):
        raise InputError(f"{folder} has too few pictures with captions: {[len(part) for part in parts]}")
    return parts


@torch.inference_mode()
def answer_loss(model: PreTrainedModel, processor: ProcessorMixin, samples: list[ChatSample]) -> float:
    """The mean loss of the tokens of the answers, in nats."""
    collate, total, num_tokens = ConversationCollator(processor), 0.0, 0
    for sample in samples:
        batch = {name: value.to(model.device) for name, value in collate([sample]).items()}
        # the first token has nothing before it to be told from
        count = int((batch["labels"][:, 1:] != -100).sum())
        total += float(model(**batch).loss) * count
        num_tokens += count
    return total / num_tokens


def caption_losses(model: PreTrainedModel, processor: ProcessorMixin, data: ConversationDataset) -> dict[str, float]:
    """Losses of captions with their own pictures, with the next caption's, and with white ones of the same sizes.

    A model that does not look has the same loss three times.
    """
    samples = [data[index] for index in range(len(data))]
    others = samples[1:] + samples[:1]
    shuffled = [dataclasses.replace(own, images=other.images) for own, other in zip(samples, others, strict=True)]
    blank = [
        dataclasses.replace(sample, images=[Image.new("RGB", image.size, "white") for image in sample.images])
        for sample in samples
    ]
    kinds = {"right": samples, "shuffled": shuffled, "blank": blank}
    return {kind: answer_loss(model, processor, chosen) for kind, chosen in kinds.items()}


@torch.inference_mode()
def ask(model: PreTrainedModel, processor: Any, image: Image.Image, question: str = QUESTION) -> str:
    """The model's answer to a question about an image, at most 32 tokens, greedy."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.device)
    tokens = model.generate(**inputs, max_new_tokens=32, do_sample=False)
    return processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def train(options: argparse.Namespace) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Train a stage and save what came out; the trained VLM, its adapters merged, and its processor."""
    # before anything is random: a projector that is new, adapters
    torch.manual_seed(options.seed)
    vlm, processor = load_vlm(options)
    train_rows, test_rows = stamp_rows(options.stamps) if options.stamps else (read_rows(options.data), [])
    common = {
        "image_folder": options.images,
        "max_length": options.max_length,
        "needs_images": options.stage == "align",
    }
    is_on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate or LEARNING_RATES[options.stage],
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        logging_steps=options.logging_steps,
        save_steps=options.save_steps,
        save_total_limit=2,
        seed=options.seed,
        bf16=is_on_gpu and torch.cuda.is_bf16_supported(),
        dataloader_num_workers=options.workers,
        dataloader_pin_memory=is_on_gpu,
        report_to="none",
        disable_tqdm=True,
    )
    stage = VlmStage(
        options.stage,
        tower=options.tower_training,
        lora_rank=options.lora_rank,
        tower_learning_rate=options.tower_learning_rate,
    )
    data = ConversationDataset(train_rows, processor, **common)
    print(f"{len(data)} conversations, {sum(data.lengths) / len(data):.0f} tokens each")
    trainer = make_vlm_trainer(vlm, processor, stage, arguments=arguments, train_dataset=data)
    trainer.train(resume_from_checkpoint=options.resume or None)
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if options.stage == "instruct":
        if trainer.is_world_process_zero():
            with written_in_one_piece(options.output / "adapter") as folder:
                model.save_pretrained(folder)
        model = model.merge_and_unload()
    model.eval()
    if trainer.is_world_process_zero():
        with written_in_one_piece(options.output / "vlm") as folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
        print(f"saved to {options.output / 'vlm'}")
    if test_rows and trainer.is_world_process_zero():
        report(model, processor, ConversationDataset(test_rows, processor, **common))
    return model, processor


def report(model: PreTrainedModel, processor: ProcessorMixin, held_out: ConversationDataset) -> None:
    """Print the losses on held-out captions, and a few answers beside the captions."""
    losses = caption_losses(model, processor, held_out)
    print("held-out caption loss:", ", ".join(f"{kind} image {loss:.3f}" for kind, loss in losses.items()))
    for sample in (held_out[index] for index in range(min(5, len(held_out)))):
        start, end = sample.answers[0]
        print(f"  {sample.text[start:end]!r}: {ask(model, processor, sample.images[0])!r}")


def smoke(folder: Path, parse: Any) -> None:
    """Both stages on tiny random models and pictures made on the spot, and a question."""
    make_smoke_input(folder)
    rows = []
    for index, (picture, caption) in enumerate(generate_shapes(12, seed=0)):
        picture.save(folder / f"{index}.png")
        turns = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": caption}]
        rows.append({"image": f"{index}.png", "conversations": turns})
    (folder / "rows.json").write_text(json.dumps(rows))
    common = ["--data", str(folder / "rows.json"), "--images", str(folder), "--steps", "2", "--batch-size", "2"]
    models = ["--tower", str(folder / "tower"), "--language-model", str(folder / "language")]
    train(parse(["--stage", "align", *models, *common, "--output", str(folder / "aligned")]))
    second = ["--vlm", str(folder / "aligned/vlm"), "--tower-training", "lora", "--lora-rank", "2"]
    model, processor = train(parse(["--stage", "instruct", *second, *common, "--output", str(folder / "instructed")]))
    with Image.open(folder / "0.png") as picture:
        print("answer:", ask(model, processor, picture))


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=list(LEARNING_RATES))
    parser.add_argument("--vlm", help="folder or hub id of a VLM")
    parser.add_argument("--tower", help="folder or hub id of a TuringViT")
    parser.add_argument("--language-model", help="folder or hub id of a language model")
    parser.add_argument("--data", type=Path, help="conversations, .json or .jsonl")
    parser.add_argument("--images", type=Path, help="where paths of images in --data start")
    parser.add_argument("--stamps", type=Path, help="folder of Tux Paint's stamps")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--tower-training", choices=["frozen", "lora", "full"], default="frozen")
    parser.add_argument("--tower-learning-rate", type=float, help="default: that of everything else")
    parser.add_argument("--lora-rank", type=int, default=64)
    parser.add_argument("--max-image-tokens", type=int, help="default: 576 for a new LLaVA, else what the VLM has")
    parser.add_argument("--max-length", type=int, default=2048, help="longer conversations are left out")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=8, help="conversations at a time on each device")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, help="default: 1e-3 for align, 2e-4 for instruct")
    parser.add_argument("--save-steps", type=int, default=200)
    parser.add_argument("--logging-steps", type=int, default=10)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output")
    parser.add_argument("--smoke", action="store_true", help="both stages, tiny random models, made on the spot")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, train, save, measure."""
    logging.basicConfig(format="%(message)s")
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            smoke(Path(folder), parser.parse_args)
        return
    if not (options.stage and options.output and (options.vlm or (options.tower and options.language_model))):
        parser.error("give --stage, --output, and --vlm or both of --tower and --language-model; or --smoke")
    if bool(options.data) == bool(options.stamps):
        parser.error("give either --data or --stamps")
    if options.vlm and options.language_model:
        parser.error("give either --vlm or --language-model")
    try:
        train(options)
    except ValueError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
