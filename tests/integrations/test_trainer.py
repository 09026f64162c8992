# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""HF Trainer, as it is, on the image classifier with packed batches of images of unlike sizes."""

import math

import pytest
import torch
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments

from tests.integrations.tiny import packed_inputs, pictures, tiny_config, tiny_processor
from turingvit_hf import TuringViTForImageClassification
from turingvit_hf.modeling.packing import split_by_image


SIZES = [(8, 20), (12, 12), (16, 4), (4, 8), (20, 8), (8, 8), (12, 4), (16, 16)]


def examples() -> list[dict]:
    return [{"image": image, "label": index % 3} for index, image in enumerate(pictures(SIZES))]


class Collator:
    """Packs a few examples."""

    def __init__(self):
        self.processor = tiny_processor()

    def __call__(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        inputs = self.processor([example["image"] for example in batch], return_tensors="pt", do_pack=True)
        return {**inputs, "labels": torch.tensor([example["label"] for example in batch])}


def classifier() -> TuringViTForImageClassification:
    torch.manual_seed(0)
    return TuringViTForImageClassification(tiny_config(num_labels=3, pos_embed_rescale=None))


def trainer(model, folder, **options) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        remove_unused_columns=False,  # the collator makes the columns that forward takes
        train_sampling_strategy="sequential",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        logging_steps=1,
        per_device_eval_batch_size=3,  # the last batch is smaller
        **{"save_strategy": "no", "optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant"} | options,
    )
    return Trainer(
        model,
        arguments,
        train_dataset=examples(),
        eval_dataset=examples(),
        data_collator=Collator(),
        processing_class=tiny_processor(),
    )


def test_trains_evaluates_and_saves(tmp_path):
    model = classifier()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run = trainer(model, tmp_path, per_device_train_batch_size=4, max_steps=2, save_strategy="steps", save_steps=2)
    result = run.train()
    assert math.isfinite(result.training_loss)
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []

    inputs = Collator()(examples())
    model.eval()
    with torch.no_grad():
        expected = model(**inputs)
    assert run.evaluate()["eval_loss"] == pytest.approx(expected.loss.item(), rel=1e-5)
    torch.testing.assert_close(torch.from_numpy(run.predict(examples()).predictions), expected.logits)

    checkpoint = tmp_path / "checkpoint-2"
    assert not [*checkpoint.glob("*.py")]
    with torch.no_grad():
        reloaded = AutoModelForImageClassification.from_pretrained(checkpoint)(**inputs)
    assert torch.equal(reloaded.logits, expected.logits)


@pytest.mark.parametrize("activation_checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_accumulated_batches_are_one_batch(tmp_path, activation_checkpointing):
    """Four batches of one image and one batch of four: the same step, with the classifier's mean loss."""
    trained, losses = {}, {}
    for batch_size, accumulation in [(4, 1), (2, 2), (1, 4)]:
        model = classifier()
        run = trainer(
            model,
            tmp_path,
            max_steps=2,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            activation_checkpointing=activation_checkpointing,
        )
        run.train()
        trained[batch_size] = {name: p.detach() for name, p in model.named_parameters()}
        losses[batch_size] = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    for batch_size in (2, 1):
        assert losses[batch_size] == pytest.approx(losses[4], rel=1e-5)
        for name, weight in trained[4].items():
            torch.testing.assert_close(
                trained[batch_size][name], weight, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_loss_is_the_mean_over_images():
    model = classifier()
    inputs = packed_inputs()
    labels = torch.tensor([2, 0, 1])
    together = model(**inputs, labels=labels).loss
    grid = inputs["image_grid_thw"]
    alone = [
        model(patches, grid[i, None], labels=labels[i, None]).loss
        for i, patches in enumerate(split_by_image(inputs["pixel_values"], grid))
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean())
    summed = model(**inputs, labels=labels, num_items_in_batch=12).loss
    torch.testing.assert_close(summed, torch.stack(alone).sum() / 12)


def test_regression_and_several_labels():
    inputs = packed_inputs()
    for problem_type, labels in (
        ("regression", torch.rand(3, 3)),
        ("multi_label_classification", torch.randint(0, 2, (3, 3)).float()),
    ):
        model = TuringViTForImageClassification(tiny_config(num_labels=3, problem_type=problem_type))
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        assert loss.isfinite()
        assert model.classifier.weight.grad.any()
