# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A training run that takes a second: random packs, a dual encoder of two layers, and a source of steps.

As a program, `python -m tests.training.tiny_run FOLDER '{"option": value}'`, it is what launchers start.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import DistilBertConfig, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.training.arguments import ObjectiveRecipe, OptimizerRecipe
from turingvit_hf.training.distributed import rank, world_size
from turingvit_hf.training.loop.evaluations import ClassificationEvaluation, RetrievalEvaluation
from turingvit_hf.training.objectives import ContrastiveObjective
from turingvit_hf.training.trainer import TuringViTTrainer


PACKS_PER_STEP = 2
NUM_PACKS = 14
TOKENS = 6


def make_pack(number: int) -> dict:
    """Three to five images of random sizes with captions, the same for the same number."""
    generator = torch.Generator().manual_seed(number)
    num_images = 3 + number % 3
    sides = torch.randint(1, 5, (num_images, 2), generator=generator)
    grid = torch.cat([torch.ones(num_images, 1, dtype=torch.int64), sides], dim=1)
    return {
        "image_grid_thw": grid,
        "pixel_values": torch.randn(int(grid.prod(-1).sum()), 3 * 16 * 16, generator=generator),
        "input_ids": torch.randint(3, 50, (num_images, TOKENS), generator=generator),
        "attention_mask": torch.ones(num_images, TOKENS, dtype=torch.int64),
    }


class FakeSteps:
    """Steps whose packs follow from the number of the step; which rank has which does not change them."""

    fill = 0.97

    def __init__(self, packs_per_step: int = PACKS_PER_STEP, spoil: tuple[int, ...] = ()):
        self.packs_per_step = packs_per_step
        self.spoil = spoil  # steps whose pixels are not numbers
        self.step = 0

    def __iter__(self):
        return self

    def __next__(self) -> dict:
        share = self.packs_per_step // world_size()
        first = self.step * self.packs_per_step + rank() * share
        packs = [make_pack(number % NUM_PACKS) for number in range(first, first + share)]
        if self.step in self.spoil and rank() == world_size() - 1:
            packs[-1]["pixel_values"] = packs[-1]["pixel_values"] * float("nan")
        self.step += 1
        return {"packs": packs, "kind": "image"}

    def state_dict(self) -> dict:
        return {"step": self.step, "readers": {str(rank()): self.step}}

    def load_state_dict(self, state: dict) -> None:
        self.step = state["step"]

    @staticmethod
    def merge_states(states: list[dict]) -> dict:
        return {"step": states[0]["step"], "readers": {k: v for state in states for k, v in state["readers"].items()}}

    def counts(self) -> dict:
        skips = rank() == 0 and self.step >= 3
        return {"skipped": {"image cannot be read": self.step // 3} if skips else {}}


def make_model(*, rescale: float | None = None, dropout: float = 0.0) -> TuringViTDualEncoderModel:
    """A dual encoder with one layer of each kind; `rescale` turns on the random scaling of positions, `dropout` the
    text encoder's.
    """
    torch.manual_seed(0)
    vision_config = TuringViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        layer_types=["linear_attention", "full_attention"],
        pos_embed_rescale=rescale,
    )
    text_config = DistilBertConfig(
        vocab_size=50,
        max_position_embeddings=16,
        dim=32,
        hidden_dim=64,
        n_layers=1,
        n_heads=2,
        dropout=dropout,
        attention_dropout=0.0,
    )
    return TuringViTDualEncoderModel(
        TuringViTDualEncoderConfig(
            vision_config=vision_config,
            text_config=text_config,
            projection_dim=16,
            text_pooling="mean",
            logit_bias_init_value=-2.0,
        )
    )


def make_trainer(
    folder: Path, *, model=None, steps=None, recipe=None, evaluations=(), fingerprint=None, objective=None, **options
) -> TuringViTTrainer:
    """A trainer of six steps that logs each and writes nothing but its checkpoints."""
    arguments = {
        "output_dir": str(folder),
        "max_steps": 6,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    trainer = TuringViTTrainer(
        objective=objective or ContrastiveObjective(ObjectiveRecipe(superclass=0.0)),
        step_loader=FakeSteps() if steps is None else steps,
        optimizer_recipe=recipe,
        evaluations=evaluations,
        fingerprint=fingerprint,
        model=make_model() if model is None else model,
        args=TrainingArguments(**arguments | options),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def history(trainer: TuringViTTrainer, key: str = "siglip") -> list[float]:
    """What was logged under a key."""
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def retrieval() -> RetrievalEvaluation:
    """Retrieval on three packs, which two ranks cannot share evenly."""
    packs = [make_pack(number) for number in range(100, 103)]
    captions = [str(row.tolist()) for pack in packs for row in pack["input_ids"]]
    return RetrievalEvaluation(packs, captions, ks=(1, 5))


def tokenize(texts: list[str]) -> dict:
    """Bytes as tokens, which is enough for a class to have a name."""
    ids = torch.tensor([[3 + ord(character) % 47 for character in text.ljust(TOKENS)[:TOKENS]] for text in texts])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def classification() -> ClassificationEvaluation:
    """Zero-shot classification on the same packs; labels go around."""
    packs = [make_pack(number) for number in range(100, 103)]
    labels = [index % 3 for index in range(sum(len(pack["image_grid_thw"]) for pack in packs))]
    return ClassificationEvaluation(
        packs, labels, ["cat", "dog", "sun"], tokenize, templates=("{}", "a {}"), ks=(1, 2)
    )


def main(folder: Path, options: dict) -> None:
    """Trains as the options say, and leaves what was logged and the final weights in the folder."""
    resume = options.pop("resume", None)
    recipe = OptimizerRecipe(**options.pop("recipe", {}))
    evaluations = [retrieval(), classification()]
    # with all that a model may draw in a forward
    model = make_model(rescale=2.0, dropout=0.1)
    trainer = make_trainer(
        folder, model=model, recipe=recipe, evaluations=evaluations, eval_strategy="steps", **options
    )
    trainer.train(resume_from_checkpoint=resume)
    weights = trainer.trained_weights()
    if trainer.is_world_process_zero():
        torch.save(weights, folder / "weights.pt")
        report = {"history": trainer.state.log_history, "world_size": world_size(), "stopped_by": trainer.stopped_by}
        report["wrapper"] = [kind.__name__ for kind in type(trainer.model_wrapped).__mro__]
        (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
