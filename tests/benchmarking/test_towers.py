# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The towers of the benchmarks: sizes of the whole ones, operations, weights, what cannot be built."""

import dataclasses
import importlib.util
import itertools

import pytest
import torch

from tests.benchmarking.tiny import TINY, tiny_towers
from turingvit_hf.benchmarking.counting import count_forward
from turingvit_hf.benchmarking.forwards import cast_inputs
from turingvit_hf.benchmarking.towers import TOWERS, Tower, TowerSize, choose_towers
from turingvit_hf.benchmarking.weights import SharedWeights, build_empty, num_parameters
from turingvit_hf.errors import InputError
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.training.loop.flops import TrainingFlops
from turingvit_hf.training.planning.known_models import vit_teacher


HERE = [name for name in TOWERS if name != "naflexvit-l" or importlib.util.find_spec("timm")]
CPU = torch.device("cpu")
HEAD = 24_578_560


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("turingvit-18l", 472_910_080 + HEAD),
        ("turingvit-24l", 630_218_240 + HEAD),
        # of the checkpoints of google/siglip2-large-patch16-512, without and with 768 more positions than 256
        ("siglip2-l-naflex", 315_956_224),
        ("siglip2-l", 315_956_224 + (1024 - 256) * 1024),
        # 27 (4 · 1280² + 2 · 1280 · 5120 with biases and norms), patches, final norm and head
        ("seed1.5-like", 27 * (4 * 1280**2 + 2 * 1280 * 5120 + 5120 + 1280 + 2 * 1280) + 769 * 1280 + 1280 + HEAD),
        ("dinov3-l", 303_129_600),
        ("qwen3-vl", 566_949_104),
    ],
)
def test_whole_towers_have_the_parameters_of_their_checkpoints(name, parameters):
    model = build_empty(TOWERS[name], 512)
    assert num_parameters(model) == parameters
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(("name", "layers"), [("turingvit-18l", 18), ("turingvit-24l", 24)])
def test_the_operations_of_turingvit_are_those_of_planning(name, layers):
    for side, batch in ((512, 1), (768, 2)):
        count = count_forward(TOWERS[name], side, batch)
        with torch.device("meta"):
            model = TuringViTModel(build_empty(TOWERS[name], side).config)
        assert len(model.layers) == layers
        grid = torch.tensor([[1, side // 16, side // 16]] * batch)
        parts = TrainingFlops(model).by_part({"image_grid_thw": grid})
        assert count.flops == pytest.approx(sum(part.forward for part in parts.values()), rel=1e-3)


def test_the_operations_of_peers_are_those_of_a_plain_vit():
    for name, width, layers, mlp_width in (("siglip2-l", 1024, 24, 4096), ("seed1.5-like", 1280, 27, 5120)):
        planned = vit_teacher(
            layers=layers, width=width, mlp_matrices=2, mlp_width=mlp_width, patch=16, size=1024, hidden_size=width,
            source="",
        )  # fmt: skip
        assert count_forward(TOWERS[name], 1024, 1).flops == pytest.approx(planned.flops_per_image, rel=0.01)


def test_the_products_of_linear_layers_are_noted_with_their_rows():
    count = count_forward(tiny_towers()["siglip2-l-naflex"], 64, 3)
    rows, width, inside = 3 * 16, TINY.width, TINY.mlp_width
    assert count.products[rows, width, width] == 4 * TINY.layers
    assert count.products[rows, width, inside] == TINY.layers
    assert count.products[rows, inside, width] == TINY.layers
    assert count.products[rows, 768, width] == 1
    assert count.product_flops < count.flops


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_tower_runs_and_its_tokens_are_finite(name, dtype):
    tower = tiny_towers()[name]
    model = build_empty(tower, 64)
    SharedWeights(getattr(torch, dtype), CPU).fill([model])
    with torch.inference_mode():
        outputs = model(**cast_inputs(tower.inputs(64, 2, CPU), dtype))
    tokens = outputs if isinstance(outputs, torch.Tensor) else outputs.last_hidden_state
    assert tokens.isfinite().all()
    assert tokens.std() > 0


def test_towers_share_the_memory_of_the_largest_and_each_has_weights_of_its_own_inside():
    weights = SharedWeights(torch.float32, CPU)
    small, large = tiny_towers()["siglip2-l"], TOWERS["turingvit-18l"].resized(TowerSize(6, 512, 8, 1024))
    models = [build_empty(tower, 64) for tower in (small, large)]
    weights.fill(models)
    starts = []
    for model in models:
        spans = sorted((p.data_ptr(), p.numel() * 4) for p in model.parameters() if p.ndim > 1)
        assert all(start + size <= after for (start, size), (after, _) in itertools.pairwise(spans))
        starts.append(spans[0][0])
        assert {float(p.unique()) for n, p in model.named_parameters() if n.endswith("norm.weight")} <= {1.0}
    assert starts[0] == starts[1]
    last = list(models[1].parameters())[-3]
    assert last.ndim > 1
    assert 0.01 < last.std() < 0.03  # the block is filled to its end


def test_buffers_keep_what_the_model_computed_for_them():
    tower = tiny_towers()["qwen3-vl"]
    model, reference = build_empty(tower, 64), tower.build(tower.size, 64)
    SharedWeights(torch.bfloat16, CPU).fill([model])
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer, rtol=0, atol=0)


def test_towers_are_chosen_by_name_and_a_wrong_one_is_refused_with_those_there_are():
    assert [tower.name for tower in choose_towers(("qwen3-vl", "dinov3-l"))] == ["qwen3-vl", "dinov3-l"]
    assert [tower.name for tower in choose_towers(())] == list(TOWERS)
    with pytest.raises(InputError, match=r"there is no tower 'siglip': allowed are turingvit-18l, .*naflexvit-l"):
        choose_towers(("siglip",))


def test_a_tower_of_a_missing_package_says_so():
    tower = dataclasses.replace(TOWERS["naflexvit-l"], package="no_such_package")
    assert isinstance(tower, Tower)
    assert tower.missing() == "no_such_package is not installed"
    assert TOWERS["siglip2-l"].missing() is None
