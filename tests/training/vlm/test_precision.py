# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""VLM training in bfloat16, and with a language model of four bits (QLoRA)."""

import copy

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    LlavaForConditionalGeneration,
    TrainingArguments,
)

from tests.training.vlm.test_families import EVERY_FAMILY, make_batch, make_trainer
from tests.training.vlm.test_stages import PROJECTOR, TOWER, logits
from turingvit_hf.errors import InputError
from turingvit_hf.training.vlm.chat_data import ConversationCollator, ConversationDataset
from turingvit_hf.training.vlm.stages import VlmStage, make_vlm_trainer, prepare_stage


# PEFT asks models by the name that transformers 5 deprecates
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.usefixtures("number_words"),
]


@pytest.mark.parametrize("stage", ["align", "full"])
@EVERY_FAMILY
def test_weights_in_bfloat16_learn(family, stage, tmp_path):
    """As `from_pretrained(dtype="auto")` has them, with autocast as on a GPU."""
    trainer = make_trainer(family, stage, tmp_path, dtype=torch.bfloat16, bf16=True)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    trained = {value.dtype for value in trainer.model.parameters() if value.requires_grad}
    # PEFT keeps adapters in full precision
    assert trained == ({torch.bfloat16} if stage == "align" else {torch.float32, torch.bfloat16})
    batch = make_batch(family, trainer.processing_class)
    assert logits(trainer.model, batch).isfinite().all()


@pytest.fixture
def make_quantized(make_vlm, tmp_path):
    """Makes a LLaVA from a folder, with the language model in four bits, and what else is not skipped."""

    def make(*skipped: str) -> LlavaForConditionalGeneration:
        folder = tmp_path / "full"
        if not folder.exists():
            config = copy.deepcopy(make_vlm().config)
            # 64 numbers share a scale, and a processor multiplies by blocks of 32 rows
            config.text_config.update({"hidden_size": 64, "intermediate_size": 128, "head_dim": 32})
            torch.manual_seed(0)
            LlavaForConditionalGeneration(config).save_pretrained(folder)
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=[*skipped, "lm_head"]
        )
        return AutoModelForImageTextToText.from_pretrained(folder, quantization_config=quantization)

    return make


@pytest.mark.parametrize("tower", ["frozen", "lora", "full"])
def test_adapters_on_a_language_model_of_four_bits(make_quantized, processor, rows, picture_folder, tmp_path, tower):
    model = make_quantized(TOWER, PROJECTOR)
    quantized = {name for name, value in model.named_parameters() if value.dtype == torch.uint8}
    assert quantized
    assert all(name.startswith("model.language_model.") for name in quantized)
    before = {name: value.clone() for name, value in model.named_parameters()}
    dataset = ConversationDataset(rows, processor, image_folder=picture_folder)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
        use_cpu=True,
    )
    stage = VlmStage("instruct", tower=tower, lora_rank=2)
    trainer = make_vlm_trainer(model, processor, stage, arguments=arguments, train_dataset=dataset)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    after = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): value
        for name, value in trainer.model.named_parameters()
    }
    assert all(torch.equal(before[name], after[name]) for name in quantized)

    trainer.save_model(tmp_path / "adapter")
    batch = ConversationCollator(processor)([dataset[index] for index in range(4)])
    again = PeftModel.from_pretrained(make_quantized(TOWER, PROJECTOR), tmp_path / "adapter")
    torch.testing.assert_close(logits(again, batch), logits(trainer.model, batch), rtol=0, atol=0)
    # what is served: the adapters in the language model as it was before it had four bits
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "full")
    adapted = PeftModel.from_pretrained(whole, tmp_path / "adapter")
    expected = logits(adapted, batch)
    torch.testing.assert_close(logits(adapted.merge_and_unload(), batch), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("skipped", "name"), [((), PROJECTOR), ((PROJECTOR,), TOWER)])
def test_what_is_trained_may_not_be_quantized(make_quantized, skipped, name):
    model = make_quantized(*skipped)
    with pytest.raises(InputError, match=rf"{name} .*is quantized.*llm_int8_skip_modules"):
        prepare_stage(model, VlmStage("instruct", tower="full", lora_rank=2))


def test_alignment_of_a_quantized_vlm_is_refused_where_its_projector_is(make_quantized):
    with pytest.raises(InputError, match=r"model\.multi_modal_projector .*is quantized"):
        prepare_stage(make_quantized(), VlmStage("align"))
