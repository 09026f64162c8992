# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The memory that a plan tells is what a step takes from the allocator, within a tenth."""

import gc
from contextlib import nullcontext

import pytest
import torch

from tests.helpers import record_allocations
from turingvit_hf.training import packs as packs_module
from turingvit_hf.training.objectives import ContrastiveObjective, MaskedDistillationObjective
from turingvit_hf.training.planning.memory import Setting, plan_memory
from turingvit_hf.training.planning.workload import pack_inputs, pack_shapes, plan_model
from turingvit_hf.training.recipes import load_recipe


SMALL_TEXT = ["text.encoder=small", "text.frozen=false"]
SEVERAL = ["data.packs_per_step=4", "data.tokens_per_pack=512"]
CHECKPOINTING = "training.activation_checkpointing=true"


def make_pack(recipe, shape, teacher):
    """A pack as the stage's collator makes it, of noise."""
    pack = pack_inputs(recipe, shape) | {"pixel_values": torch.randn(shape.num_patches, 768)}
    if recipe.stage == "mim":
        pack["teacher_features"] = torch.randn(int(pack["bool_masked_pos"].sum()), teacher.hidden_size)
        return pack
    pack["input_ids"] = torch.randint(5, 1000, pack["input_ids"].shape)
    pack["attention_mask"] = torch.ones_like(pack["input_ids"])
    if shape.kind == "video":
        pack["kind"] = "video"
    elif recipe.objective.superclass:
        pack["superclass_ids"] = torch.randint(1000, (shape.num_images, 8))
    return pack


@pytest.fixture(autouse=True)
def pixels_arrive(monkeypatch):
    """Those of a pack take memory when they are brought, as on a GPU."""
    monkeypatch.setattr(packs_module, "brought", lambda pixels, device: pixels.clone())


def measured(recipe, planned, shape) -> int:
    """Weights, AdamW's state, and the most that a step takes beside them, in bytes."""
    model = type(planned.model)(planned.model.config).train()
    if recipe.text is not None and recipe.text.frozen:
        model.freeze_text()
    if recipe.training.get("activation_checkpointing"):
        model.activation_checkpointing_enable()
    if recipe.training.get("bf16"):  # around the forward, as accelerate has it
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    objective = MaskedDistillationObjective() if recipe.stage == "mim" else ContrastiveObjective(recipe.objective)

    packs = [make_pack(recipe, shape, planned.teacher) for _ in range(recipe.data.packs_per_step)]

    def step():
        objective.step(model, packs, backward=lambda loss: loss.backward(), no_sync=nullcontext)
        optimizer.step()
        optimizer.zero_grad()

    step()
    gc.collect()
    numel = sum(parameter.numel() for parameter in model.parameters())
    return record_allocations(step).peak + 4 * numel + 8 * sum(parameter.numel() for parameter in trained)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tiny/stage1", []),
        ("tiny/stage1", ["training.bf16=true"]),
        ("tiny/stage1", [CHECKPOINTING]),
        ("tiny/stage1", [CHECKPOINTING, "training.bf16=true"]),
        ("tiny/stage2", []),
        ("tiny/stage2", ["training.bf16=true"]),
        ("tiny/stage2", SMALL_TEXT),
        ("tiny/stage2", ["objective.superclass=0", *SMALL_TEXT]),
        ("tiny/stage2", [CHECKPOINTING]),
        ("tiny/stage2", [CHECKPOINTING, *SMALL_TEXT]),
        ("tiny/stage2", [CHECKPOINTING, "training.bf16=true"]),
        ("tiny/stage2", [CHECKPOINTING, "training.bf16=true", *SMALL_TEXT]),
        ("tiny/stage2", [*SEVERAL, CHECKPOINTING, *SMALL_TEXT]),
        ("tiny/stage1", SEVERAL),
        ("tiny/stage3", []),
        ("tiny/stage4", ["data.video_share=1"]),
        ("tiny/stage4", ["data.video_share=1", CHECKPOINTING]),
    ],
    ids=str,
)
def test_memory_is_within_a_tenth_of_the_measured_peak(name, changes):
    recipe = load_recipe(name, ["data.tokens_per_pack=2048", *changes])
    planned, ((shape, *_), _) = plan_model(recipe), pack_shapes(recipe)
    checkpointing = bool(recipe.training.get("activation_checkpointing"))
    setting = Setting("none", 1, checkpointing, shape.num_patches)
    planned_bytes = plan_memory(recipe, planned.model, shape, setting=setting, teacher=planned.teacher).total
    assert planned_bytes == pytest.approx(measured(recipe, planned, shape), rel=0.1)


def test_what_sharding_divides():
    recipe = load_recipe("tiny/stage1", ["optimizer.ema_decay=0.99"])
    planned, ((shape,), _) = plan_model(recipe), pack_shapes(recipe)

    def memory_of(sharding, num_gpus):
        return plan_memory(recipe, planned.model, shape, setting=Setting(sharding, num_gpus, False, 4096))

    whole, replicated, sharded = memory_of("none", 1), memory_of("ddp", 4), memory_of("fsdp2", 4)
    assert replicated.gradients == 2 * whole.gradients  # its buckets
    assert (replicated.optimizer, replicated.averages) == (whole.optimizer, whole.averages)
    assert sharded.optimizer == whole.optimizer // 4
    assert sharded.averages == whole.averages // 4
    assert sharded.activations == whole.activations
    assert whole.averages == whole.weights  # everything is trained, both are float32


def test_pixels_of_one_pack_at_a_time_are_there():
    recipe = load_recipe("18l/stage2")
    planned, ((shape,), _) = plan_model(recipe), pack_shapes(recipe)
    one, eight = (
        plan_memory(recipe, planned.model, shape, setting=Setting(sharding, num_gpus, True, 32768)).pixels
        for sharding, num_gpus in (("none", 1), ("ddp", 8))
    )
    # of 448 packs, in 32 and in 16 bits
    assert one == eight == 32768 * 768 * (4 + 2)
