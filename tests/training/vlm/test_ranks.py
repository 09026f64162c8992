# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Two processes over gloo train a VLM as one does, also where one of them has a text without an image."""

import pytest
import torch
from peft import PeftModel

from tests.training.test_launched import on_ranks
from tests.training.vlm.families import make_family
from tests.training.vlm.test_families import make_batch, make_trainer
from tests.training.vlm.test_stages import logits


pytestmark = [
    # PEFT asks models by the name that transformers 5 deprecates
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers"),
    pytest.mark.usefixtures("number_words"),
]
OPTIONS = {"max_steps": 2, "optim": "sgd", "learning_rate": 0.5}


@pytest.mark.parametrize(
    ("family", "stage", "checkpointed"),
    [
        ("llava", "align", False),
        ("llava", "lora", False),
        ("llava", "frozen", True),
        ("llava", "full", False),
        ("qwen3_vl", "full", False),
        ("internvl", "lora", False),
    ],
)
def test_two_ranks_are_one(family, stage, checkpointed, tmp_path):
    options = OPTIONS | {"activation_checkpointing": checkpointed}
    # as many for both ranks: the last one of an odd number would be trained on twice
    num_rows = 2 if stage == "align" else 4
    one = make_trainer(family, stage, tmp_path / "one", batch_size=2, **options)
    one.train_dataset.samples[num_rows:] = []
    one.train()
    batch = make_batch(family, one.processing_class)
    expected = logits(one.model, batch)

    def run() -> None:
        trainer = make_trainer(family, stage, tmp_path / "two", batch_size=1, ddp_backend="gloo", **options)
        assert trainer.args.world_size == 2
        trainer.train_dataset.samples[num_rows:] = []
        trainer.train()
        trainer.save_model(tmp_path / "saved")
        if trainer.is_world_process_zero():
            losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
            torch.save(losses, tmp_path / "losses.pt")

    on_ranks(run)
    losses = [entry["loss"] for entry in one.state.log_history if "loss" in entry]
    assert torch.load(tmp_path / "losses.pt") == pytest.approx(losses, rel=1e-4)
    fresh, _ = make_family(family)
    before = logits(fresh, batch)
    saved = type(fresh).from_pretrained if stage == "align" else lambda path: PeftModel.from_pretrained(fresh, path)
    found = logits(saved(tmp_path / "saved"), batch)
    assert not torch.allclose(before, expected, atol=1e-3)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
