# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Tiny towers whose linear attention runs on Triton kernels: all input forms, compilers, checkpointing, training."""

import pytest
import torch
import torch.distributed as dist
from torch._dynamo.decorators import mark_unbacked
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers.utils import is_flash_attn_2_available

from tests.gpu.device import DEVICE, ON_GPU, ONLY_CUDA, REHEARSED, TOWER_TOLERANCE, dtypes
from tests.helpers import assert_close
from tests.towers import LINEAR, SOFTMAX, make_image, make_model, pack, pad, tiny_config
from turingvit_hf import TuringViTModel
from turingvit_hf.kernels.linear_attention import use_linear_attention_backend


pytestmark = ON_GPU

# Kernels take heads of 32 and more; no random rescaling of coordinates, so that two runs in training mode agree.
CONFIG = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "pos_embed_rescale": 1.0}
PACKS = {
    "two images": [make_image(4, 4), make_image(2, 7)],
    "one image": [make_image(3, 5)],
    "clips": [make_image(2, 3, frames=3), make_image(1, 4), make_image(3, 2, frames=2)],
}
if REHEARSED:
    PACKS.pop("clips")


def make_tower(layer_types=(LINEAR, SOFTMAX, LINEAR), **changes) -> TuringViTModel:
    return make_model(config=tiny_config(layer_types=list(layer_types), **CONFIG | changes)).to(DEVICE)


def to_device(inputs):
    return {name: x.to(DEVICE) for name, x in inputs.items()}


FORMS = {
    "packed": pack([make_image(3, 5), make_image(2, 2), make_image(1, 1)]),
    "batch": {"pixel_values": torch.stack([make_image(3, 5), make_image(3, 5) + 1])},
    "padded": pad([make_image(3, 5), make_image(2, 2)]),
}


@pytest.fixture(autouse=True)
def triton():
    """What a GPU does by itself; a rehearsal on the CPU has to be told."""
    if not REHEARSED:
        yield
        return
    with use_linear_attention_backend("triton"):
        yield


def step(model, inputs):
    """Tokens, pooled vectors and the gradients of all weights."""
    outputs = model(**inputs)
    loss = outputs.last_hidden_state.float().square().mean() + outputs.pooler_output.float().square().mean()
    return [outputs.last_hidden_state, outputs.pooler_output, *torch.autograd.grad(loss, list(model.parameters()))]


def step_on_torch(model, inputs):
    with use_linear_attention_backend("torch"):
        return step(model, inputs)


def assert_steps_agree(actual, exact, tolerance=TOWER_TOLERANCE):
    for one, other in zip(actual, exact, strict=True):
        assert_close(one, other.detach(), tolerance)


@pytest.mark.parametrize("form", FORMS)
def test_the_tower_is_that_of_the_torch_backend(form):
    tower, inputs = make_tower(), to_device(FORMS[form])
    assert_steps_agree(step(tower, inputs), step_on_torch(tower, inputs))


@pytest.mark.parametrize("dtype", dtypes("float16", "bfloat16"), ids=str)
def test_autocast(dtype):
    tower, inputs = make_tower(), to_device(FORMS["packed"])
    with torch.autocast(DEVICE.type, dtype):
        actual = step(tower, inputs)
    assert all(grad.dtype == torch.float32 for grad in actual[2:])
    with torch.autocast(DEVICE.type, dtype):
        exact = step_on_torch(tower, inputs)
    assert_steps_agree(actual, exact, 2**-5)


CHECKPOINTING = {
    "default": {},
    "reentrant": {"activation_checkpointing_kwargs": {"use_reentrant": True}},
    "offload": {"offload": True},
}


@pytest.mark.parametrize("settings", ["default"] if REHEARSED else CHECKPOINTING)
def test_activation_checkpointing_changes_nothing(settings):
    tower, inputs = make_tower().train(), to_device(FORMS["packed"])
    exact = step(tower, inputs)
    tower.activation_checkpointing_enable(**CHECKPOINTING[settings])
    outputs = tower(**inputs)
    loss = outputs.last_hidden_state.square().mean() + outputs.pooler_output.square().mean()
    loss.backward()
    grads = [weight.grad for weight in tower.parameters()]
    assert_steps_agree([outputs.last_hidden_state, outputs.pooler_output, *grads], exact)


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("training", [False] if REHEARSED else [False, True], ids=lambda on: f"training {on}")
@pytest.mark.usefixtures("fresh_compiler")
def test_one_graph_with_its_backward_pass_serves_every_pack(training):
    tower = make_tower([LINEAR, SOFTMAX]).train(training)
    # the interpreter's operators cannot be handed to inductor, which would compile for a GPU
    backend = "aot_eager" if REHEARSED else "inductor"
    compiled = torch.compile(tower, backend=backend, fullgraph=True, dynamic=True)
    stance = "default"
    for images in PACKS.values():
        marked = to_device(pack(images))
        mark_unbacked(marked["pixel_values"], 0, min=1)
        mark_unbacked(marked["image_grid_thw"], 0, min=1)
        with torch.compiler.set_stance(stance):
            actual = step(compiled, marked)
        assert_steps_agree(actual, step(tower, to_device(pack(images))))
        stance = "fail_on_recompile"


@ONLY_CUDA
@pytest.mark.usefixtures("fresh_compiler")
@torch.no_grad()
def test_cuda_graphs_of_the_compiler_on_batches_of_one_resolution():
    tower = make_tower([LINEAR, LINEAR])
    compiled = torch.compile(tower, mode="reduce-overhead", fullgraph=True)
    for shift in range(4):
        batch = to_device(FORMS["batch"])["pixel_values"] + shift
        torch.compiler.cudagraph_mark_step_begin()
        assert_close(compiled(batch).pooler_output, tower(batch).pooler_output, TOWER_TOLERANCE)


@pytest.fixture(params=["gloo", "nccl"])
def process_group(request, tmp_path):
    """A group of this process alone."""
    if request.param == "nccl" and (REHEARSED or not dist.is_nccl_available()):
        pytest.skip("this torch has no NCCL, or this is a rehearsal on the CPU")
    device = {"device_id": torch.device("cuda", 0)} if request.param == "nccl" else {}
    dist.init_process_group(request.param, init_method=f"file://{tmp_path}/meet", rank=0, world_size=1, **device)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("wrap", ["DDP", "FSDP2"])
@pytest.mark.usefixtures("process_group")
def test_a_wrapped_tower_has_the_gradients_of_a_bare_one(wrap):
    tower, inputs = make_tower(), to_device(FORMS["packed"])
    exact = step(tower, inputs)[2:]
    if wrap == "DDP":
        wrapped = DistributedDataParallel(tower, device_ids=None if REHEARSED else [0])
    else:
        for layer in tower.layers:
            fully_shard(layer, mesh=dist.device_mesh.init_device_mesh(DEVICE.type, (1,)))
        wrapped = fully_shard(tower, mesh=dist.device_mesh.init_device_mesh(DEVICE.type, (1,)))
    outputs = wrapped(**inputs)
    (outputs.last_hidden_state.square().mean() + outputs.pooler_output.square().mean()).backward()
    grads = [weight.grad if wrap == "DDP" else weight.grad.to_local() for weight in tower.parameters()]
    assert_steps_agree(grads, exact)


@pytest.mark.parametrize("device_map", ["auto", DEVICE.type])
def test_a_saved_tower_loads_onto_the_device(device_map, tmp_path):
    tower, inputs = make_tower(), FORMS["packed"]
    tower.save_pretrained(tmp_path)
    assert "backend" not in (tmp_path / "config.json").read_text()
    loaded = TuringViTModel.from_pretrained(tmp_path, device_map=device_map)
    assert loaded.device.type == DEVICE.type
    with torch.no_grad():
        actual = loaded(**to_device(inputs))
        with use_linear_attention_backend("reference"):
            exact = tower.cpu()(**inputs)
    assert_close(actual.last_hidden_state.cpu(), exact.last_hidden_state, TOWER_TOLERANCE)
    assert_close(actual.pooler_output.cpu(), exact.pooler_output, TOWER_TOLERANCE)


@ONLY_CUDA
@pytest.mark.parametrize("implementation", ["flash_attention_2", "flex_attention"])
@pytest.mark.usefixtures("fresh_compiler")
def test_softmax_layers_on_other_attention_implementations(implementation):
    if implementation == "flash_attention_2" and not is_flash_attn_2_available():
        pytest.skip("flash-attn is not installed")
    tower, inputs = make_tower([SOFTMAX, LINEAR]).bfloat16(), to_device(FORMS["packed"])
    exact = step(tower, inputs)
    tower.set_attn_implementation(implementation)
    assert_steps_agree(step(tower, inputs), exact, 2**-5)


@ONLY_CUDA
def test_every_visible_gpu_runs_the_tower():
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        tower = make_tower().to(device)
        inputs = {name: x.to(device) for name, x in FORMS["packed"].items()}
        assert_steps_agree(step(tower, inputs), step_on_torch(tower, inputs))
