# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Both stages of training in every family that a tower can be put into: labels, what learns, adapters, resuming."""

import copy

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from torch import nn
from transformers import PaliGemmaProcessor, TrainingArguments

from tests.training.vlm.families import FAMILIES, make_family
from tests.training.vlm.test_chat_data import trained_texts
from tests.training.vlm.test_stages import KillAfter, KilledError, logits, weights
from turingvit_hf.errors import InputError
from turingvit_hf.training.vlm.chat_data import ConversationCollator, ConversationDataset
from turingvit_hf.training.vlm.chat_template import prefix_template
from turingvit_hf.training.vlm.parts import find_parts
from turingvit_hf.training.vlm.stages import VlmStage, VlmTrainer, make_vlm_trainer, prepare_stage


pytestmark = [
    # PEFT asks models by the name that transformers 5 deprecates
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers"),
    # PaliGemmaProcessor makes an array of a tensor in a way that NumPy 2 warns of
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.usefixtures("number_words"),
]

# PEFT keeps modules, not lists of them
QWEN3 = ("model.visual.merger", "model.visual.deepstack_merger_list.0", "model.visual.deepstack_merger_list.1")
PROJECTORS = dict.fromkeys(FAMILIES, ("model.multi_modal_projector",)) | {
    "qwen2_5_vl": ("model.visual.merger",),
    "qwen3_vl": QWEN3,
    "qwen3_vl_moe": QWEN3,
    "idefics3": ("model.connector",),
    "smolvlm": ("model.connector",),
}
LOOSE = {"llava_next": ("model.image_newline",), "llava_onevision": ("model.image_newline",)}
STAGES = {
    "align": VlmStage("align"),
    "frozen": VlmStage("instruct", lora_rank=2, lora_dropout=0.0),
    "lora": VlmStage("instruct", tower="lora", lora_rank=2, lora_dropout=0.0),
    "full": VlmStage("instruct", tower="full", lora_rank=2, lora_dropout=0.0),
}
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
EVERY_STAGE = pytest.mark.parametrize("stage", STAGES)


def make_rows(family: str) -> list[dict]:
    """One image; two of other sizes; and, not for a PaliGemma, two turns with an image in the first, and a text."""
    noise = np.random.default_rng(0)
    sizes = [(8, 20), (12, 12), (24, 8), (16, 16)]
    pictures = [Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    rows = [
        turns("<image>\nWhat is it?", "A wide one.", images=pictures[:1]),
        turns("<image>\n<image>\nCompare.", "One is tall.", images=pictures[1:3]),
        turns("<image>\nWhat?", "A square.", "Sure?", "Yes, été.", images=pictures[3:]),
        turns("Two and two?", "Four.", images=[]),
    ]
    return rows[:2] if family == "paligemma" else rows


def turns(*texts: str, images: list[Image.Image]) -> dict:
    speakers = ["human", "gpt"] * len(texts)
    return {
        "image": images,
        "conversations": [{"from": speaker, "value": text} for speaker, text in zip(speakers, texts, strict=False)],
    }


def make_batch(family: str, processor) -> dict[str, torch.Tensor]:
    dataset = ConversationDataset(make_rows(family), processor)
    return ConversationCollator(processor)([dataset[index] for index in range(len(dataset))])


def make_trainer(
    family: str, stage: str, folder, *, batch_size: int = 4, dtype=torch.float32, **options
) -> VlmTrainer:
    """A trainer of one stage on all rows."""
    vlm, processor = make_family(family)
    vlm.to(dtype)
    dataset = ConversationDataset(make_rows(family), processor, needs_images=stage == "align")
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        lr_scheduler_type="constant",
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        use_cpu=True,
        **{"max_steps": 4, "save_strategy": "no", "learning_rate": 1e-2, **options},
    )
    return make_vlm_trainer(vlm, processor, STAGES[stage], arguments=arguments, train_dataset=dataset)


@EVERY_FAMILY
def test_answers_and_their_end_are_trained_on_and_nothing_else(family):
    _, processor = make_family(family)
    batch = make_batch(family, processor)
    before, end = FAMILIES[family].before, FAMILIES[family].end
    expected = [["A wide one."], ["One is tall."], ["A square.", "Yes, été."], ["Four."]]
    expected = [[f"{before}{answer}{end}" for answer in answers] for answers in expected]
    if family == "llava":
        # its template ends answers with a space; the last one gets the tokenizer's end token
        expected[2][0] = " A square. "
    assert trained_texts(batch, processor.tokenizer) == expected[: len(batch["input_ids"])]
    # what an image is written as: no token of that in the labels, nor around it
    special = set(processor.tokenizer.all_special_ids) | set(processor.tokenizer.added_tokens_decoder)
    ends = {processor.tokenizer.convert_tokens_to_ids(end)}
    assert set(batch["labels"].unique().tolist()) & special == ends


@EVERY_FAMILY
def test_a_sample_keeps_its_labels_in_any_batch(family):
    """Alone, beside its like, and with a text before an image or behind it."""
    _, processor = make_family(family)
    dataset = ConversationDataset(make_rows(family), processor)
    every = range(len(dataset))
    together = make_batch(family, processor)
    for indexes in ([*reversed(every)], [0, 0], *([index] for index in every)):
        batch = ConversationCollator(processor)([dataset[index] for index in indexes])
        assert batch["input_ids"].shape == (len(indexes), max(dataset.lengths[index] for index in indexes))
        for row, index in enumerate(indexes):
            length = dataset.lengths[index]
            for name in ("input_ids", "labels", "attention_mask"):
                assert torch.equal(together[name][index, :length], batch[name][row, :length]), name
            assert (batch["labels"][row, length:] == -100).all()
            assert not batch["attention_mask"][row, length:].any()


@EVERY_FAMILY
def test_lengths_are_told_without_a_pixel(family):
    _, processor = make_family(family)
    dataset = ConversationDataset(make_rows(family), processor)
    assert make_batch(family, processor)["attention_mask"].sum(-1).tolist() == dataset.lengths


@EVERY_FAMILY
def test_the_projector_is_what_is_between_tower_and_language_model(family):
    vlm, _ = make_family(family)
    parts = find_parts(vlm)
    assert parts.projector == PROJECTORS[family]
    assert parts.loose == LOOSE.get(family, ())
    model = prepare_stage(vlm, STAGES["full"])
    assert set(model.peft_config["default"].modules_to_save) == {*parts.projector, parts.tower}


def expected_changes(vlm, stage: str) -> set[str]:
    """Names of the parameters that a stage trains, once adapters are merged."""
    parts = find_parts(vlm)
    linear = {f"{name}.weight" for name, module in vlm.named_modules() if isinstance(module, nn.Linear)}
    names = [name for name, _ in vlm.named_parameters()]
    inside = {name for name in names if name.startswith(tuple(f"{module}." for module in parts.projector))}
    if stage == "align":
        return inside | set(parts.loose)
    inside |= {name for name in linear if name.startswith(f"{parts.language_model}.")}
    tower = {name for name in names if name.startswith(f"{parts.tower}.")}
    if stage == "lora":
        inside |= {name for name in tower & linear if "patch_embed" not in name}
    return inside | tower if stage == "full" else inside


@EVERY_STAGE
@EVERY_FAMILY
def test_a_stage_learns_by_what_it_says_and_nothing_else(family, stage, tmp_path):
    """Losses fall, every parameter that should change does, no other; adapters come back on a fresh base and merge."""
    trainer = make_trainer(family, stage, tmp_path)
    fresh, processor = make_family(family)
    before = weights(fresh)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    batch = make_batch(family, processor)
    trained = logits(trainer.model, batch)
    merged = trainer.model
    if stage != "align":
        trainer.save_model(tmp_path / "adapter")
        adapted = PeftModel.from_pretrained(make_family(family)[0], tmp_path / "adapter")
        torch.testing.assert_close(logits(adapted, batch), trained, rtol=0, atol=0)
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(logits(merged, batch), trained, rtol=1e-4, atol=2e-5)
        assert type(merged) is type(fresh)
    after = weights(merged)
    assert after.keys() == before.keys()
    changed = {name for name in dict(fresh.named_parameters()) if not torch.equal(before[name], after[name])}
    assert changed == expected_changes(fresh, stage)


# of adapters, whose checkpoints PEFT writes, one family with each kind of projector
RESUMED = [
    *((family, "align") for family in FAMILIES),
    ("llava_next", "full"),
    ("qwen3_vl", "full"),
    ("smolvlm", "full"),
]


@pytest.mark.parametrize(("family", "stage"), RESUMED)
def test_a_run_that_was_killed_goes_on_to_the_same_weights(family, stage, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "batch_size": 2}
    whole = make_trainer(family, stage, tmp_path / "whole", **options | {"save_strategy": "no"})
    whole.train()
    killed = make_trainer(family, stage, tmp_path / "killed", **options)
    killed.add_callback(KillAfter(3))
    with pytest.raises(KilledError):
        killed.train()
    resumed = make_trainer(family, stage, tmp_path / "killed", **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
    expected = weights(whole.model)
    for name, value in weights(resumed.model).items():
        assert torch.equal(value, expected[name]), name


@EVERY_FAMILY
def test_accumulated_batches_have_the_gradient_of_one(family, tmp_path):
    """The loss is a mean over the tokens of a step, not over its batches: answers differ in length."""
    results = []
    for size in (2, 1):
        trainer = make_trainer(
            family, "align", tmp_path, batch_size=size, gradient_accumulation_steps=2 // size, max_steps=1,
            optim="sgd", learning_rate=1.0,
        )  # fmt: skip
        trainer.train_dataset.samples[2:] = []
        trainer.train()
        results.append(weights(trainer.model))
    before = weights(make_family(family)[0])
    assert any(not torch.equal(value, before[name]) for name, value in results[0].items())
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=1e-6)


def test_a_paligemma_is_asked_as_it_was_trained():
    """What stands before the answer is what its processor makes of the question, and all of it sees all of it."""
    _, processor = make_family("paligemma")
    assert isinstance(processor, PaliGemmaProcessor)
    rows = make_rows("paligemma")[:1]
    batch = ConversationCollator(processor)([ConversationDataset(rows, processor)[0]])
    processor.chat_template = prefix_template()
    content = [{"type": "text", "text": "What is it?"}, {"type": "image", "image": rows[0]["image"][0]}]
    asked = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    length = asked["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :length], asked["input_ids"])
    assert torch.equal(batch["pixel_values"], asked["pixel_values"])
    assert torch.equal(batch["token_type_ids"][0] == 0, batch["labels"][0] == -100)
    assert int((batch["labels"] != -100).sum()) == batch["input_ids"].shape[1] - length


def test_what_a_paligemma_does_not_take_is_left_out_and_counted():
    _, processor = make_family("paligemma")
    rows = make_rows("llava")
    broken = copy.deepcopy(rows[0])
    broken["conversations"][1]["value"] = "An <image>."
    broken["image"] *= 2
    system = {"messages": [{"role": "system", "content": "Be brief."}, *_messages()], "image": rows[0]["image"]}
    dataset = ConversationDataset([*rows, broken, system], processor, max_bad_share=0.6)
    assert len(dataset) == 2
    assert dict(dataset.skipped) == {
        "conversation is not one question and its answer, all that a PaliGemma takes": 2,
        "conversation has no image": 1,
        "answer holds an image": 1,
    }


def _messages() -> list[dict]:
    return [{"role": "user", "content": "<image> what?"}, {"role": "assistant", "content": "That."}]


def test_pan_and_scan_cannot_be_counted():
    _, processor = make_family("gemma3")
    processor.image_processor.do_pan_and_scan = True
    with pytest.raises(InputError, match="do_pan_and_scan=True: the tokens of an image cannot be told"):
        ConversationDataset(make_rows("gemma3"), processor)
