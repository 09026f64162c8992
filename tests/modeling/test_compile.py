# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""torch.compile without a graph break and torch.export: values, gradients, and one graph for every pack."""

import pytest
import torch
from torch._dynamo.decorators import mark_unbacked
from torch.export import Dim

from tests.helpers import TOWER_TOLERANCE, assert_close
from tests.towers import LINEAR, SOFTMAX, make_image, make_model, pack, tiny_config


PACKS = {
    "two images": [make_image(4, 4), make_image(2, 7)],
    "one image": [make_image(3, 5)],
    "one patch": [make_image(1, 1)],
    "three of one size": [make_image(2, 2)] * 3,
    "clips": [make_image(2, 3, frames=3), make_image(1, 4), make_image(3, 2, frames=2)],
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def tower():
    return make_model(config=tiny_config(layer_types=[LINEAR, SOFTMAX]))


# importing inductor runs decorators of torch.utils.mkldnn that torch itself has deprecated (torch 2.13)
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@torch.no_grad()
def test_inductor_on_one_resolution(tower):
    batch = torch.stack([make_image(3, 5), make_image(3, 5) + 1])
    compiled = torch.compile(tower, fullgraph=True)
    actual, exact = compiled(batch), tower(batch)
    assert_close(actual.last_hidden_state, exact.last_hidden_state, TOWER_TOLERANCE)
    assert_close(actual.pooler_output, exact.pooler_output, TOWER_TOLERANCE)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_close(compiled(batch + 1).pooler_output, tower(batch + 1).pooler_output, TOWER_TOLERANCE)


def gradients(model, inputs):
    """Pooled vectors of the pack, tokens, and the gradients of every weight."""
    torch.manual_seed(0)
    outputs = model(**inputs)
    loss = outputs.last_hidden_state.square().mean() + outputs.pooler_output.square().mean()
    weights = dict(model.named_parameters())
    grads = torch.autograd.grad(loss, list(weights.values()))
    return [outputs.last_hidden_state, outputs.pooler_output, *grads]


def any_size(inputs):
    """The inputs, marked so that the compiler assumes nothing about the number of patches and of images."""
    mark_unbacked(inputs["pixel_values"], 0, min=1)
    mark_unbacked(inputs["image_grid_thw"], 0, min=1)
    return inputs


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_one_graph_with_its_backward_pass_serves_every_pack(training):
    tower = make_model(config=tiny_config(layer_types=[LINEAR, SOFTMAX])).train(training)
    compiled = torch.compile(tower, backend="aot_eager", fullgraph=True, dynamic=True)
    stance = "default"
    for images in PACKS.values():
        with torch.compiler.set_stance(stance):
            actual = gradients(compiled, any_size(pack(images)))
        exact = gradients(tower, pack(images))
        rounding = torch.finfo(torch.float32).eps * max(tensor.norm() for tensor in exact)
        for compiled_tensor, tensor in zip(actual, exact, strict=True):
            if tensor.norm() > rounding:
                assert_close(compiled_tensor, tensor, TOWER_TOLERANCE)
            else:  # softmax over a single patch has no gradient, and what is left of it differs between processors
                assert compiled_tensor.norm() <= rounding
        stance = "fail_on_recompile"


@torch.no_grad()
def test_without_marks_a_single_image_is_the_only_other_graph(tower):
    compiled = torch.compile(tower, backend="eager", fullgraph=True, dynamic=True)
    for compile_with, others in (("two images", ["three of one size", "clips"]), ("one image", ["one image"])):
        compiled(**pack(PACKS[compile_with]))
        with torch.compiler.set_stance("fail_on_recompile"):
            for name in others:
                actual = compiled(**pack(PACKS[name]))
                assert_close(actual.pooler_output, tower(**pack(PACKS[name])).pooler_output, TOWER_TOLERANCE)


@torch.no_grad()
def test_an_exported_batch_takes_other_resolutions(tower):
    batch, rows, columns = Dim("batch", min=2), Dim("rows", min=2), Dim("columns", min=2)
    example = torch.stack([make_image(3, 5), make_image(3, 5) + 1])
    shapes = {"pixel_values": {0: batch, 2: 4 * rows, 3: 4 * columns}}
    program = torch.export.export(tower, (example,), dynamic_shapes=shapes)
    assert "turingvit" not in str(program.graph)  # plain operators, for any runtime
    exported = program.module()
    for images in ([make_image(3, 5)] * 3, [make_image(9, 2)] * 2, [make_image(12, 20)] * 5):
        actual, exact = exported(torch.stack(images)), tower(torch.stack(images))
        assert_close(actual.last_hidden_state, exact.last_hidden_state, TOWER_TOLERANCE)
        assert_close(actual.pooler_output, exact.pooler_output, TOWER_TOLERANCE)


@torch.no_grad()
def test_an_exported_pack_takes_other_packs(tower):
    example = pack(PACKS["clips"])
    shapes = {"pixel_values": {0: Dim.DYNAMIC}, "image_grid_thw": {0: Dim.DYNAMIC}}
    exported = torch.export.export(tower, (), example, dynamic_shapes=shapes).module()
    for images in PACKS.values():
        actual, exact = exported(**pack(images)), tower(**pack(images))
        assert_close(actual.last_hidden_state, exact.last_hidden_state, TOWER_TOLERANCE)
        assert_close(actual.pooler_output, exact.pooler_output, TOWER_TOLERANCE)
