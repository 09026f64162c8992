# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The stages change what they say and nothing else, can be resumed, and their adapters load and merge."""

import copy
import re

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, TrainerCallback, TrainingArguments

from turingvit_hf import TuringViTModel
from turingvit_hf.errors import InputError
from turingvit_hf.training.vlm.chat_data import ConversationCollator, ConversationDataset
from turingvit_hf.training.vlm.parts import VlmParts, find_parts
from turingvit_hf.training.vlm.stages import VlmStage, linear_pattern, make_vlm_trainer, prepare_stage


# PEFT asks models by the name that transformers 5 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers")

TOWER, PROJECTOR, LANGUAGE = "model.vision_tower", "model.multi_modal_projector", "model.language_model"
STAGES = {
    "align": VlmStage("align"),
    "frozen": VlmStage("instruct", lora_rank=2, lora_dropout=0.1),
    "lora": VlmStage("instruct", tower="lora", lora_rank=2, lora_dropout=0.1),
    "full": VlmStage("instruct", tower="full", lora_rank=2, tower_learning_rate=1e-3),
}
EVERY_STAGE = pytest.mark.parametrize("name", STAGES)
EVERY_ADAPTER = pytest.mark.parametrize("name", ["frozen", "lora", "full"])


@pytest.fixture
def make_trainer(make_vlm, processor, rows, picture_folder, tmp_path):
    """Makes a trainer of a stage for four steps, a checkpoint every two."""

    def make(name: str, *, folder: str = "run", vlm=None, **options):
        stage = STAGES[name]
        is_align = stage.stage == "align"
        dataset = ConversationDataset(rows, processor, image_folder=picture_folder, needs_images=is_align)
        arguments = TrainingArguments(
            output_dir=str(tmp_path / folder),
            max_steps=4,
            save_steps=2,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            logging_steps=1,
            disable_tqdm=True,
            report_to="none",
            use_cpu=True,
            **options,
        )
        return make_vlm_trainer(
            vlm or make_vlm(), processor, stage, arguments=arguments, train_dataset=dataset, eval_dataset=dataset
        )

    return make


@pytest.fixture
def batch(rows, processor, picture_folder):
    dataset = ConversationDataset(rows, processor, image_folder=picture_folder)
    return ConversationCollator(processor)([dataset[index] for index in range(4)])


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def logits(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**batch).logits


def test_parts_of_a_llava(make_vlm):
    assert find_parts(make_vlm()) == VlmParts(TOWER, LANGUAGE, (PROJECTOR,))


@EVERY_STAGE
def test_a_stage_changes_what_it_says(make_trainer, make_vlm, name):
    before = weights(make_vlm())
    trainer = make_trainer(name)
    trainer.train()
    assert all(torch.isfinite(torch.tensor(entry["loss"])) for entry in trainer.state.log_history if "loss" in entry)
    model = trainer.model
    merged = weights(model.merge_and_unload() if isinstance(model, PeftModel) else model)
    assert merged.keys() == before.keys()
    changed = {key for key in before if not torch.equal(before[key], merged[key])}
    linear = {key for key in before if key.endswith("_proj.weight") or ".output_gate" in key}
    expected = {key for key in before if key.startswith(PROJECTOR)}
    if name != "align":
        expected |= {key for key in linear if key.startswith(LANGUAGE)}
    if name == "lora":
        expected |= {key for key in linear if key.startswith(TOWER)}
    if name == "full":
        expected |= {key for key in before if key.startswith(TOWER)}
    assert changed == expected


@EVERY_ADAPTER
def test_names_that_tower_and_language_model_share_are_told_apart(make_vlm, name):
    """Both have a q_proj; a target by its last part would reach both."""
    model = prepare_stage(make_vlm(), STAGES[name])
    adapted = {key for key, _ in model.named_parameters() if "lora_" in key}
    assert any("language_model" in key and "q_proj" in key for key in adapted)
    assert any("vision_tower" in key for key in adapted) == (name == "lora")
    assert not any("patch_embed" in key or "projector" in key or "lm_head" in key for key in adapted)
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    assert {key for key in trained if "vision_tower" in key} == (
        {key for key in adapted if "vision_tower" in key}
        if name == "lora"
        else {key for key in trained if "vision_tower.modules_to_save" in key}
    )
    assert any("vision_tower" in key for key in trained) == (name != "frozen")


class KilledError(Exception):
    """Stands for the end of a process."""


class KillAfter(TrainerCallback):
    """Ends a run after a step, without a word."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KilledError


@EVERY_STAGE
def test_a_run_that_was_killed_goes_on_to_the_same_weights(make_trainer, name):
    whole = make_trainer(name, folder="whole")
    whole.train()
    killed = make_trainer(name, folder="killed")
    killed.add_callback(KillAfter(3))
    with pytest.raises(KilledError):
        killed.train()
    resumed = make_trainer(name, folder="killed")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
    expected = weights(whole.model)
    for key, value in weights(resumed.model).items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("checkpointed", [False, True])
@EVERY_STAGE
def test_a_tower_draws_nothing_in_training(make_trainer, name, checkpointed):
    """A frozen one is in evaluation mode and keeps nothing for a backward pass, a trained one does not rescale."""
    trainer = make_trainer(name, activation_checkpointing=checkpointed)
    [tower] = [
        module
        for path, module in trainer.model.named_modules()
        if isinstance(module, TuringViTModel) and not path.endswith("original_module")
    ]
    assert tower.config.pos_embed_rescale == tower.rope.rescale == 2.0
    seen = []
    tower.register_forward_hook(
        lambda module, inputs, output: seen.append(
            (module.training, module.rope.training, output.last_hidden_state.requires_grad)
        )
    )
    trainer.args.max_steps = 2
    trainer.train()
    is_trained = name in ("lora", "full")
    assert set(seen) == {(is_trained, False, is_trained)}
    tower.train()
    assert tower.rope.training


@EVERY_ADAPTER
def test_adapters_reload_on_a_fresh_base_and_merge(make_trainer, make_vlm, processor, batch, tmp_path, name):
    trainer = make_trainer(name)
    trainer.train()
    expected = logits(trainer.model, batch)
    assert not torch.allclose(expected, logits(make_vlm(), batch), atol=1e-3)
    trainer.save_model(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()

    adapted = PeftModel.from_pretrained(make_vlm(), tmp_path / "adapter")
    torch.testing.assert_close(logits(adapted, batch), expected, rtol=0, atol=0)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(logits(merged, batch), expected, rtol=1e-4, atol=1e-5)

    merged.save_pretrained(tmp_path / "merged")
    reloaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(reloaded, batch), logits(merged, batch), rtol=0, atol=0)


def test_one_stage_after_the_other(make_trainer, make_vlm):
    """What alignment leaves frozen is trainable again where the next stage says so, and only there."""
    first = make_trainer("align", folder="first")
    first.train()
    second = make_trainer("full", folder="second", vlm=first.model)
    trained = {key for key, value in second.model.named_parameters() if value.requires_grad}
    untouched = {
        key for key, value in prepare_stage(make_vlm(), STAGES["full"]).named_parameters() if value.requires_grad
    }
    assert trained == untouched


def test_the_tower_has_a_learning_rate_of_its_own(make_trainer):
    trainer = make_trainer("full", lr_scheduler_type="constant")
    trainer.create_optimizer()
    names = {id(value): key for key, value in trainer.model.named_parameters()}
    rates = {names[id(value)]: group["lr"] for group in trainer.optimizer.param_groups for value in group["params"]}
    assert {key for key, rate in rates.items() if rate == 1e-3} == {key for key in rates if TOWER in key}
    assert set(rates.values()) == {1e-2, 1e-3}
    assert set(rates) == {key for key, value in trainer.model.named_parameters() if value.requires_grad}


def test_accumulated_batches_have_the_gradient_of_one(make_vlm, make_trainer):
    """The loss is a mean over the tokens of a step, not over its batches."""
    results = []
    for size, accumulation in ((3, 1), (1, 3)):
        trainer = make_trainer(
            "align", folder=f"{size}", vlm=make_vlm(), gradient_accumulation_steps=accumulation, optim="sgd"
        )
        trainer.args.per_device_train_batch_size = size
        trainer._train_batch_size = size
        trainer.args.max_steps = 1
        trainer.train()
        results.append(weights(trainer.model))
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-4, atol=1e-6)


def test_evaluation_is_the_loss_on_the_answers(make_trainer):
    assert set(make_trainer("frozen").evaluate()) >= {"eval_loss"}


def test_activation_checkpointing_changes_nothing(make_trainer):
    results = []
    for is_checkpointed in (False, True):
        trainer = make_trainer("lora", folder=f"{is_checkpointed}", activation_checkpointing=is_checkpointed)
        trainer.train()
        results.append(weights(trainer.model))
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-4, atol=1e-6)


def test_patterns_match_whole_names(make_vlm):
    model = make_vlm()
    pattern = linear_pattern(model, LANGUAGE)
    matched = {name for name, _ in model.named_modules() if re.fullmatch(pattern, name)}
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert matched == {name for name in linear if name.startswith(LANGUAGE)}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stage": "pretrain"}, "stage='pretrain', allowed are"),
        ({"stage": "align", "tower": "full"}, "trains the projector alone"),
        ({"stage": "instruct", "tower": "half"}, "tower='half', allowed are"),
        ({"stage": "instruct", "lora_rank": 0}, "lora_rank=0"),
    ],
)
def test_stages_that_do_not_exist_are_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        VlmStage(**options)


def test_a_vlm_that_cannot_be_trained_is_refused(make_vlm, make_trainer, processor, rows, picture_folder):
    adapted = prepare_stage(make_vlm(), STAGES["frozen"])
    for model in (adapted, adapted.base_model.model):
        with pytest.raises(InputError, match="has adapters already"):
            prepare_stage(model, STAGES["frozen"])
    twice = make_vlm()
    twice.model.second = copy.deepcopy(twice.model.vision_tower)
    with pytest.raises(InputError, match="has 2 TuringViT towers"):
        find_parts(twice)
    with pytest.raises(InputError, match="has 0 TuringViT towers"):
        find_parts(make_vlm().model.language_model)
    dataset = ConversationDataset(rows, processor, image_folder=picture_folder)
    with pytest.raises(InputError, match="needs_images=True"):
        make_vlm_trainer(
            make_vlm(), processor, STAGES["align"], arguments=TrainingArguments(use_cpu=True), train_dataset=dataset
        )


def test_conversations_longer_than_the_context_are_refused_before_a_step(make_vlm, make_trainer):
    vlm = make_vlm()
    vlm.config.text_config.max_position_embeddings = 60
    before = weights(vlm)
    with pytest.raises(InputError, match=r"the longest conversation has \d+ tokens, .* takes 60: .*max_length=60"):
        make_trainer("frozen", vlm=vlm)
    assert weights(vlm).keys() == before.keys()
