# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""LoRA adapters on a tower alone: for classes of pictures, or for finding pictures by captions.

    python examples/lora_tower.py classification --model stage3/vision_tower --data pictures --output adapted
    python examples/lora_tower.py retrieval --model stage3 --data captioned-pictures --output adapted
    python examples/lora_tower.py classification --smoke

Classification takes a tower and a folder with one folder of pictures a class; retrieval a dual encoder and what
`load_pairs` reads, such as a folder of pictures with a metadata.jsonl. The weights that came stay as they are; what
trains are the adapters, and the classifier or the projections into the shared space. `--output` gets `adapter`, a few
megabytes, and `merged`, a model as it was before.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, Trainer, TrainingArguments

from turingvit_hf import TuringViTConfig, TuringViTForImageClassification, TuringViTImageProcessor, TuringViTModel
from turingvit_hf.data.shapes import generate_shapes
from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.training.collators import ImageTextCollator
from turingvit_hf.training.datasets import load_pairs
from turingvit_hf.training.text import small_text_config, train_tokenizer
from turingvit_hf.training.vlm.stages import linear_pattern


Collator = Callable[[list[dict]], dict[str, torch.Tensor]]


def classification(options: argparse.Namespace) -> tuple[Any, datasets.Dataset, Collator, tuple[str, ...]]:
    """The classifier, pictures and labels, what makes batches of them, and the modules that train whole."""
    pictures = datasets.load_dataset("imagefolder", data_dir=str(options.data), split="train")
    names = dict(enumerate(pictures.features["label"].names))
    model = TuringViTForImageClassification.from_pretrained(
        options.model, id2label=names, label2id={name: index for index, name in names.items()}
    )
    processor = TuringViTImageProcessor.from_pretrained(options.model)

    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        images = [row["image"].convert("RGB") for row in rows]
        # labels first: Trainer takes the batch size from the first tensor, and packed pixels have one row a patch
        labels = torch.tensor([row["label"] for row in rows])
        return {"labels": labels, **processor(images, return_tensors="pt", do_pack=True)}

    return model, pictures, collate, ("classifier",)


def retrieval(options: argparse.Namespace) -> tuple[Any, datasets.Dataset, Collator, tuple[str, ...]]:
    """The dual encoder, pictures and captions, what makes batches of them, and the modules that train whole."""
    model = TuringViTDualEncoderModel.from_pretrained(options.model)
    processor = TuringViTImageProcessor.from_pretrained(options.model)
    pairs = load_pairs(str(options.data), num_examples=options.examples, max_pixels=512 * 512, seed=options.seed)
    pack = ImageTextCollator(processor, AutoTokenizer.from_pretrained(options.model))
    projections = [name for name, _ in model.named_children() if name.endswith("_projection")]
    return model, pairs, lambda rows: {**pack(rows), "return_loss": True}, tuple(projections)


TASKS = {"classification": classification, "retrieval": retrieval}


def train(options: argparse.Namespace) -> None:
    """Train the adapters, save them, and save the model that they make."""
    torch.manual_seed(options.seed)
    model, data, collate, whole = TASKS[options.task](options)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank,
        # the patch embedding is a linear layer too, of pixels; it stays
        target_modules=linear_pattern(model, "turingvit", leave_out=("patch_embed",)),
        modules_to_save=list(whole),
    )
    adapted = get_peft_model(model, config)
    trained, total = adapted.get_nb_trainable_parameters()
    print(f"{trained:,} of {total:,} parameters train")
    arguments = TrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        remove_unused_columns=False,
        save_strategy="no",
        seed=options.seed,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    result = Trainer(model=adapted, args=arguments, train_dataset=data, data_collator=collate).train()
    adapted.save_pretrained(options.output / "adapter")
    adapted.merge_and_unload().save_pretrained(options.output / "merged")
    TuringViTImageProcessor.from_pretrained(options.model).save_pretrained(options.output / "merged")
    if options.task == "retrieval":
        AutoTokenizer.from_pretrained(options.model).save_pretrained(options.output / "merged")
    print(f"mean loss {result.training_loss:.3f}; saved to {options.output}")


def make_smoke_input(task: str, folder: Path) -> None:
    """A small random model in `model` and, for classes, pictures in two folders in `data`."""
    tower = TuringViTConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=6, num_attention_heads=4)
    pairs = list(generate_shapes(12, seed=0))
    if task == "classification":
        TuringViTModel(tower).save_pretrained(folder / "model")
        for index, (picture, _) in enumerate(pairs):
            kind = folder / "data" / ("wide" if picture.width > picture.height else "tall")
            kind.mkdir(parents=True, exist_ok=True)
            picture.save(kind / f"{index}.png")
    else:
        tokenizer = train_tokenizer(caption for _, caption in pairs)
        text = small_text_config(tokenizer, hidden_size=64, num_layers=1)
        config = TuringViTDualEncoderConfig(
            vision_config=tower, text_config=text, projection_dim=32, text_pooling="mean"
        )
        TuringViTDualEncoderModel(config).save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
    TuringViTImageProcessor(max_patches=64).save_pretrained(folder / "model")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--model", help="folder or hub id of a tower, or of a dual encoder")
    parser.add_argument("--data", help="see above; for retrieval also `shapes`")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--examples", type=int, default=100_000, help="most pairs for retrieval")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a tiny random model and pictures, made on the spot")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        if options.smoke:
            make_smoke_input(options.task, folder := Path(scratch))
            options.model = str(folder / "model")
            options.data = str(folder / "data") if options.task == "classification" else "shapes"
            options.output = options.output or folder / "output"
            options.steps, options.batch_size, options.examples = 2, 4, 12
        if not (options.model and options.data and options.output):
            parser.error("give --model, --data and --output, or --smoke")
        train(options)


if __name__ == "__main__":
    main()
