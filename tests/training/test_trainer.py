# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The trainer: named losses in the logs, an evaluation loss, accumulation that averages, decay of matrices only."""

import pytest
import torch
from transformers import TrainingArguments

from turingvit_hf.training.objectives import ContrastiveObjective, Objective
from turingvit_hf.training.trainer import TuringViTTrainer


def make_trainer(model, collate, folder, *, objective=None, pairs=None, **options):
    arguments = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "max_steps": 3,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "train_sampling_strategy": "sequential",
    }
    return TuringViTTrainer(
        objective=objective or ContrastiveObjective(),
        model=model,
        args=TrainingArguments(**arguments | options),
        train_dataset=pairs,
        eval_dataset=pairs,
        data_collator=collate,
    )


class TwoLosses(Objective):
    """The contrastive loss and twice that, as two named losses."""

    def __call__(self, model, batch):
        loss = ContrastiveObjective()(model, batch)["siglip"]
        return {"one": loss, "two": 2 * loss}


def test_training_lowers_the_loss_and_logs_it_by_name(model, collate, pairs, tmp_path):
    trainer = make_trainer(model, collate, tmp_path, pairs=pairs, max_steps=12, num_train_epochs=2, learning_rate=3e-3)
    trainer.train()
    losses = [entry["siglip"] for entry in trainer.state.log_history if "siglip" in entry]
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]
    assert losses == pytest.approx([entry["loss"] for entry in trainer.state.log_history if "loss" in entry], abs=1e-4)


def test_the_loss_is_the_sum_and_each_is_logged(model, collate, pairs, tmp_path):
    trainer = make_trainer(model, collate, tmp_path, pairs=pairs, objective=TwoLosses(), max_steps=2)
    trainer.train()
    for entry in trainer.state.log_history[:2]:
        assert entry["two"] == pytest.approx(2 * entry["one"], rel=1e-5)
        assert entry["loss"] == pytest.approx(3 * entry["one"], abs=1e-3)


def test_evaluation_reports_the_loss_averaged_over_images(model, collate, pairs, tmp_path):
    rows = pairs.select(range(10))  # batches of 4, 4 and 2
    trainer = make_trainer(model, collate, tmp_path, pairs=rows)
    metrics = trainer.evaluate()
    model.eval()
    batches = [[rows[row] for row in part] for part in (range(0, 4), range(4, 8), range(8, 10))]
    with torch.no_grad():
        losses = [model(**collate(batch), return_loss=True).loss.item() for batch in batches]
    expected = (4 * losses[0] + 4 * losses[1] + 2 * losses[2]) / 10
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)
    (logged,) = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert logged["eval_siglip"] == pytest.approx(expected, rel=1e-5)


def test_accumulated_batches_are_averaged(model, collate, pairs, tmp_path):
    """Two accumulated batches give the mean of their gradients; Trainer's default would give the sum."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for part in (range(4), range(4, 8)):
        (model(**collate([pairs[row] for row in part]), return_loss=True).loss / 2).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    options = {"optim": "sgd", "learning_rate": 0.01, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    trainer = make_trainer(
        model, collate, tmp_path, pairs=pairs.select(range(8)), max_steps=1, gradient_accumulation_steps=2, **options
    )
    trainer.train()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close((before[name] - parameter) / 0.01, gradients[name], rtol=1e-3, atol=1e-4)


def test_weight_decay_spares_norms_biases_scalars_and_the_query(model, collate, tmp_path):
    decayed = set(make_trainer(model, collate, tmp_path).get_decay_parameter_names(model))
    spared = {name for name, _ in model.named_parameters()} - decayed
    assert {"logit_scale", "logit_bias", "turingvit.head.query", "turingvit.final_norm.weight"} <= spared
    assert all(parameter.ndim < 2 for name, parameter in model.named_parameters() if name in spared)
    assert all(parameter.ndim >= 2 for name, parameter in model.named_parameters() if name in decayed)


def test_several_gpus_in_one_process_are_refused(model, collate, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(ValueError, match="2 GPUs in one process would cut packed images apart"):
        make_trainer(model, collate, tmp_path)
