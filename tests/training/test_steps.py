# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Training on steps of packs: what is logged, what is skipped, what is refused, and the ordinary arguments."""

import math

import pytest
import torch

from tests.training.tiny_run import FakeSteps, classification, history, make_model, make_pack, make_trainer, retrieval
from turingvit_hf.training.arguments import ObjectiveRecipe, OptimizerRecipe
from turingvit_hf.training.loop.evaluations import ClassificationEvaluation, LossEvaluation, RetrievalEvaluation
from turingvit_hf.training.loop.guard import DivergedError
from turingvit_hf.training.objectives import ContrastiveObjective


def weights(trainer):
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def test_a_step_is_all_its_packs(tmp_path):
    """One step of plain gradient descent on two packs is that of the loss between all their images and texts."""
    model = make_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    packs = [make_pack(0), make_pack(1)]
    both = {name: torch.cat([pack[name] for pack in packs]) for name in packs[0]}
    loss = model(**both, return_loss=True).loss
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    options = {"optim": "sgd", "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    trainer = make_trainer(tmp_path, model=model, max_steps=1, **options)
    trainer.train()
    assert history(trainer) == [pytest.approx(loss.item(), rel=1e-6)]
    assert history(trainer, "loss") == history(trainer)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(before[name] - parameter, 1e-3 * gradients[name], rtol=1e-3, atol=1e-6)


def test_what_is_logged(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=4, logging_steps=2)
    trainer.train()
    first, second = [entry for entry in trainer.state.log_history if "siglip" in entry]
    packs = [make_pack(number) for number in range(4)]
    assert first["images_seen"] == sum(len(pack["image_grid_thw"]) for pack in packs)
    assert first["tokens_seen"] == sum(len(pack["pixel_values"]) for pack in packs)
    assert second["images_seen"] > first["images_seen"]
    assert first["padding_share"] == pytest.approx(0.03)
    assert 0 <= first["data_wait_share"] < 1
    assert first["images_per_second"] > 0
    assert first["tflops"] > 0
    assert "mfu" not in first  # no peak is known of a CPU
    assert "data_skipped/image cannot be read" not in first
    assert second["data_skipped/image cannot be read"] == 1
    assert [entry["epoch"] for entry in trainer.state.log_history] == [0.5, 1.0, 1.0]
    assert "train_samples_per_second" not in trainer.state.log_history[-1]


def test_losses_are_means_over_the_steps_since_the_last_log(tmp_path):
    every = make_trainer(tmp_path / "every")
    every.train()
    third = make_trainer(tmp_path / "third", logging_steps=3)
    third.train()
    losses = history(every)
    assert history(third) == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3], rel=1e-6)


class Weighted(ContrastiveObjective):
    """Twice the loss is minimized, the loss is logged."""

    def __init__(self):
        super().__init__(ObjectiveRecipe(siglip=2.0, superclass=0.0))


def test_the_loss_is_the_weighted_sum(tmp_path):
    trainer = make_trainer(tmp_path, objective=Weighted(), max_steps=2)
    trainer.train()
    assert history(trainer, "loss") == pytest.approx([2 * loss for loss in history(trainer)], rel=1e-6)


def test_a_step_that_is_not_finite_changes_nothing(tmp_path):
    recipe = OptimizerRecipe(ema_decay=0.9)
    seen = []

    class Looking(FakeSteps):
        def __next__(self):
            averages = {} if trainer.average is None else trainer.average.complete()
            averages = {name: average.clone() for name, average in averages.items()}
            state = trainer.optimizer.state_dict()["state"] if self.step else {}
            moments = [entry["exp_avg"].clone() for entry in state.values()]
            seen.append((weights(trainer), averages, moments))
            return super().__next__()

    trainer = make_trainer(tmp_path, steps=Looking(spoil=(2, 3)), recipe=recipe, max_grad_norm=1.0)
    trainer.train()
    for part in range(2):
        before, after = seen[2][part], seen[4][part]
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert not all(torch.equal(before[name], seen[5][part][name]) for name in before)
    assert all(torch.equal(before, after) for before, after in zip(seen[2][2], seen[4][2], strict=True))
    assert trainer.average.num_updates == 4
    assert trainer.guard.num_skipped == 2
    assert history(trainer, "skipped_steps") == [1, 2, 2, 2]
    # skipped steps have no loss to show, but they are steps: the rate goes on
    assert len(history(trainer)) == len(history(trainer, "loss")) == 4
    assert history(trainer, "learning_rate") == pytest.approx([3e-3 * (1 - step / 6) for step in range(6)])
    assert all(math.isfinite(loss) for loss in history(trainer, "loss"))
    assert math.isfinite(history(trainer, "train_loss")[0])


def test_a_loss_between_logs_is_spared_the_skipped_ones(tmp_path):
    every = make_trainer(tmp_path / "every", steps=FakeSteps(spoil=(1,)), max_steps=3)
    every.train()
    one = make_trainer(tmp_path / "one", steps=FakeSteps(spoil=(1,)), max_steps=3, logging_steps=3)
    one.train()
    assert history(one) == [pytest.approx(sum(history(every)) / 2, rel=1e-6)]


def test_too_many_skipped_steps_in_a_row_end_the_run(tmp_path):
    recipe = OptimizerRecipe(max_skipped_steps=3)
    steps = FakeSteps(spoil=(1, 2, 4, 5, 6))  # two, then three
    trainer = make_trainer(tmp_path, steps=steps, recipe=recipe, max_steps=20, save_strategy="steps", save_steps=4)
    with pytest.raises(DivergedError, match="3 steps in a row, up to step 7"):
        trainer.train()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


def test_the_scale_is_kept_in_bounds(tmp_path):
    model = make_model()
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    trainer = make_trainer(tmp_path, model=model, recipe=OptimizerRecipe(max_logit_scale=2.0), max_steps=1)
    trainer.train()
    assert model.logit_scale.item() == 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": -1}, "max_steps must say where it is"),
        ({"gradient_accumulation_steps": 2}, "raise packs_per_step"),
    ],
)
def test_arguments_that_steps_cannot_have(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **options)


def test_bfloat16_autocast_trains(tmp_path):
    exact, rounded = make_trainer(tmp_path / "32"), make_trainer(tmp_path / "16", bf16=True)
    exact.train()
    rounded.train()
    assert history(rounded) != history(exact)
    assert history(rounded) == pytest.approx(history(exact), rel=0.1)
    assert rounded.model.logit_scale.dtype == torch.float32


def test_activation_checkpointing_changes_nothing(tmp_path):
    plain = make_trainer(tmp_path / "plain", model=make_model(rescale=2.0))
    plain.train()
    sparing = make_trainer(tmp_path / "sparing", model=make_model(rescale=2.0), activation_checkpointing=True)
    sparing.train()
    assert sparing.model.is_activation_checkpointing
    assert history(sparing) == history(plain)


def test_evaluation_uses_the_averaged_weights_and_leaves_the_own_ones(tmp_path):
    objective = ContrastiveObjective(ObjectiveRecipe(superclass=0.0))
    packs = [make_pack(number) for number in range(50, 53)]
    trainer = make_trainer(
        tmp_path,
        objective=objective,
        evaluations=[LossEvaluation(objective, packs), retrieval(), classification()],
        recipe=OptimizerRecipe(ema_decay=0.9),
    )
    trainer.train()
    before = weights(trainer)
    metrics = trainer.evaluate()
    assert all(torch.equal(before[name], after) for name, after in weights(trainer).items())
    assert trainer.model.training
    other = make_model()
    other.load_state_dict(trainer.trained_weights())
    other.eval()
    with torch.no_grad():
        losses = [objective(other, pack)["siglip"].item() for pack in packs]
    numbers = [len(pack["image_grid_thw"]) for pack in packs]
    expected = sum(number * loss for number, loss in zip(numbers, losses, strict=True)) / sum(numbers)
    assert metrics["eval_held_out_siglip"] == metrics["eval_loss"] == pytest.approx(expected, rel=1e-6)
    of_classes = {"eval_classification_top1", "eval_classification_chance2"}
    assert {"eval_retrieval_text_to_image_R@1", *of_classes} <= set(metrics)
    logged = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert logged[-1]["eval_held_out_siglip"] == metrics["eval_held_out_siglip"]


def test_an_evaluation_needs_packs():
    objective = ContrastiveObjective()
    for make in (lambda: RetrievalEvaluation([], []), lambda: LossEvaluation(objective, [])):
        with pytest.raises(ValueError, match="the packs are empty"):
            make()
    with pytest.raises(ValueError, match="the packs are empty"):
        ClassificationEvaluation([], [], ["cat"], dict)
