# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Operations of forward and backward are those that torch counts, of towers, dual encoders and masked image models."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.training.objective_cases import (
    image_pack,
    make_dual_encoder,
    make_masked_model,
    masked_pack,
    tower_config,
    video_pack,
)
from turingvit_hf.kernels.linear_attention import use_linear_attention_backend
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.training.loop.flops import TrainingFlops
from turingvit_hf.training.planning.operations import step_operations
from turingvit_hf.training.planning.workload import pack_inputs, pack_shapes, plan_model
from turingvit_hf.training.recipes import load_recipe


RAGGED = torch.tensor([[1, 20, 17], [2, 9, 13], [1, 1, 1], [1, 4, 31]])
MODEL_INPUTS = ("pixel_values", "image_grid_thw", "input_ids", "attention_mask", "bool_masked_pos")


def tower_case():
    return TuringViTModel(tower_config()).double(), lambda outputs: outputs.pooler_output, {}


def dual_case():
    return (
        make_dual_encoder(),
        lambda outputs: torch.cat([outputs.image_embeds, outputs.text_embeds]),
        image_pack(4, 0),
    )


def video_case():
    model, read, _ = dual_case()
    return model, read, video_pack(4, 1)


def masked_case():
    return make_masked_model(), lambda outputs: outputs.predictions, masked_pack(4, 1)


@pytest.mark.parametrize("make_case", [tower_case, dual_case, video_case, masked_case])
@pytest.mark.parametrize("grid", ["ragged", "even"])
def test_operations_are_those_that_torch_counts(make_case, grid):
    """Within 0.1 %, forward and with backward; sums that the pooling head writes out are no products to torch."""
    model, read, pack = make_case()
    model.train().set_attn_implementation("eager")
    pack = {name: value for name, value in pack.items() if name in MODEL_INPUTS}
    pack["image_grid_thw"] = RAGGED if grid == "ragged" else torch.tensor([[1, 16, 16]] * 4)
    num_patches = int(pack["image_grid_thw"].prod(-1).sum())
    pack["pixel_values"] = torch.randn(num_patches, 48, dtype=torch.float64)
    if "bool_masked_pos" in pack:
        pack["bool_masked_pos"] = torch.arange(num_patches) % 5 < 2
    arguments = {"return_logits": False} if "input_ids" in pack else {}
    with use_linear_attention_backend("reference"):
        with FlopCounterMode(display=False) as forward:
            outputs = model(**pack, **arguments)
        with FlopCounterMode(display=False) as backward:
            read(outputs).sum().backward()
    parts = TrainingFlops(model).by_part(pack)
    width = model.config.hidden_size if "input_ids" not in pack else model.turingvit.config.hidden_size
    written_out = 4 * num_patches * width if "pooling" in parts else 0
    counted = forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops()
    assert sum(part.forward for part in parts.values()) == pytest.approx(counted[0] + written_out, rel=1e-3)
    assert sum(part.training for part in parts.values()) == pytest.approx(counted[1] + 3 * written_out, rel=1e-3)
    assert TrainingFlops(model)(pack) == sum(part.training for part in parts.values())


def test_a_plan_on_the_meta_device_counts_as_a_model_does():
    recipe = load_recipe("tiny/stage2", ["data.tokens_per_pack=1024"])
    (shape,), _ = pack_shapes(recipe)
    planned = plan_model(recipe)
    own = type(planned.model)(planned.model.config)
    own.text_model.requires_grad_(False)
    inputs = pack_inputs(recipe, shape)
    assert TrainingFlops(own)(inputs) == TrainingFlops(planned.model)(inputs)
    step = step_operations(recipe, planned, (shape,), packs_per_process=1)
    scale = 1024 / shape.num_patches
    pairs = 6 * (shape.num_images * scale) ** 2 * 192
    assert step.model == pytest.approx(TrainingFlops(own)(inputs) * scale + pairs)
    assert step.teacher == step.cached_forward == step.recomputation == 0


def test_what_is_done_twice_is_counted_beside_the_model():
    recipe = load_recipe("18l/stage2")
    planned, (shapes, _) = plan_model(recipe), pack_shapes(recipe)
    several = step_operations(recipe, planned, shapes, packs_per_process=7)
    single = step_operations(recipe, planned, shapes, packs_per_process=1)
    assert single.cached_forward == 0
    assert several.useful == single.useful == several.model
    # three passes of which one is the forward; pairs of the loss and pixels' gradients aside
    assert several.cached_forward == pytest.approx(several.model / 3, rel=0.01)
    assert several.recomputation == pytest.approx(several.model / 3, rel=0.05)
    assert (
        several.hardware == several.useful + several.cached_forward + several.recomputation + several.attention_again
    )


def test_the_teacher_of_stage_one():
    """EVA02-CLIP-E takes 2.23 TFLOP an image without attention's products, some three times the student's."""
    recipe = load_recipe("18l/stage1")
    planned, (shapes, _) = plan_model(recipe), pack_shapes(recipe)
    step = step_operations(recipe, planned, shapes, packs_per_process=9)
    assert planned.teacher is not None
    assert planned.teacher.num_parameters == 4_350_556_928
    assert step.teacher / 55296 == pytest.approx(2.26e12, rel=0.01)
    assert 2.9 < step.teacher / step.model < 3.3
    assert step.cached_forward == 0
    assert step.recomputation > 0
