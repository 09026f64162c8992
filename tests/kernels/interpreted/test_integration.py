# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The Triton backend as a citizen of torch and a part of the tower: compilers, autocast, checkpointing, bad input."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch._dynamo.decorators import mark_unbacked
from torch.export import Dim
from torch.utils.checkpoint import checkpoint

from tests.helpers import (
    TOLERANCE,
    TOWER_TOLERANCE,
    assert_all_close,
    cu_seqlens_of,
    make_tla_inputs,
    relative_error,
    values_and_gradients,
)
from tests.towers import LINEAR, SOFTMAX, make_image, make_model, pack, pad, tiny_config
from turingvit_hf import TuringViTModel
from turingvit_hf.kernels.linear_attention import (
    triton_backend,
    turing_linear_attention,
    use_linear_attention_backend,
)
from turingvit_hf.kernels.linear_attention.launch_table import Launch


FULL, BARE = (), ("rope", "gate", "norm_weight")
FORWARD = torch.ops.turingvit.triton_linear_attention.default
BACKWARD = torch.ops.turingvit.triton_linear_attention_backward.default


@pytest.fixture(autouse=True)
def long_tiles(monkeypatch):
    monkeypatch.setattr(triton_backend, "launch", lambda *arguments: Launch(64, 4, 1))


def make_inputs(lengths=(4, 5), **options):
    return make_tla_inputs(lengths, num_heads=options.pop("num_heads", 1), head_dim=32, **options)


def run_triton(lengths):
    return partial(turing_linear_attention, cu_seqlens=cu_seqlens_of(lengths), backend="triton")


@pytest.fixture
def uninitialized_memory_as_it_comes():
    """`opcheck` compares memory that a fake implementation of `torch.empty` would have to fill alike."""
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("without", [FULL, BARE], ids=str)
@pytest.mark.usefixtures("uninitialized_memory_as_it_comes")
def test_opcheck(without):
    inputs = make_inputs(without=without)
    q, k, v, gate, norm_weight, cos, sin = inputs.values()
    options = (1e-6, "silu", None)
    arguments = (q, k, v, cu_seqlens_of((4, 5)), cos, sin, gate, norm_weight, *options)
    torch.library.opcheck(FORWARD, arguments)
    q, k, v, cu_seqlens, cos, sin, gate, norm_weight, *_ = (
        x.detach() if isinstance(x, torch.Tensor) else x for x in arguments
    )
    y, state, squares = FORWARD(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, *options)
    saved = (torch.ones_like(y), y, q, k, v, cu_seqlens, state, squares, cos, sin, gate, norm_weight)
    torch.library.opcheck(BACKWARD, (*saved, *options))


def test_one_graph_serves_every_pack():
    compiled = torch.compile(
        partial(turing_linear_attention, backend="triton"), backend="aot_eager", fullgraph=True, dynamic=True
    )

    def compare(lengths):
        inputs, cu_seqlens = make_inputs(lengths), cu_seqlens_of(lengths)
        for name, x in inputs.items():
            if name != "norm_weight":
                mark_unbacked(x, 0, shape_id="num_tokens", min=1)
        mark_unbacked(cu_seqlens, 0, min=2)
        actual = values_and_gradients(partial(compiled, cu_seqlens=cu_seqlens), inputs)
        assert_all_close(actual, values_and_gradients(run_triton(lengths), inputs), TOLERANCE[torch.float32])

    compare((5, 9))
    with torch.compiler.set_stance("fail_on_recompile"):
        for lengths in [(1,), (1,) * 5, (70, 3)]:
            compare(lengths)


class Attention(torch.nn.Module):
    def forward(self, q, k, v, gate, norm_weight, cos, sin, cu_seqlens):
        return turing_linear_attention(
            q, k, v, cu_seqlens, cos=cos, sin=sin, gate=gate, norm_weight=norm_weight, backend="triton"
        )


def test_an_exported_pack_takes_other_packs():
    def inputs_of(lengths):
        inputs = {name: x.detach() for name, x in make_inputs(lengths).items()}
        return inputs | {"cu_seqlens": cu_seqlens_of(lengths)}

    inputs, num_tokens = inputs_of((5, 9)), Dim("num_tokens", min=2)
    shapes = {name: {0: num_tokens} for name in inputs}
    shapes |= {"cu_seqlens": {0: Dim("num_bounds", min=3)}, "norm_weight": None}
    exported = torch.export.export(Attention(), (), inputs, dynamic_shapes=shapes).module()
    for lengths in [(3, 1, 50), (7, 7)]:
        inputs = inputs_of(lengths)
        assert torch.equal(exported(**inputs), Attention()(**inputs))


def test_gradients_are_the_same_bits_under_activation_checkpointing():
    inputs = make_inputs((3, 40), num_heads=2)
    run = run_triton((3, 40))
    plain = values_and_gradients(run, inputs)
    again = values_and_gradients(partial(checkpoint, run, use_reentrant=False), inputs)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_changes_no_bit_inside(dtype):
    inputs = make_inputs((3, 40), dtype=dtype)
    inputs["norm_weight"] = inputs["norm_weight"].detach().float().requires_grad_()

    def run_under_autocast(**tensors):
        with torch.autocast("cpu", dtype):
            return run_triton((3, 40))(**tensors)

    plain = values_and_gradients(run_triton((3, 40)), inputs)
    autocast = values_and_gradients(run_under_autocast, inputs)
    assert autocast["y"].dtype == dtype
    assert autocast["norm_weight"].dtype == torch.float32
    assert all(torch.equal(plain[name], autocast[name]) for name in plain)


def test_only_what_needs_a_gradient_gets_one():
    inputs = make_inputs()
    everything = values_and_gradients(run_triton((4, 5)), inputs)
    some = inputs | {name: inputs[name].detach() for name in ("q", "v", "norm_weight")}
    some = values_and_gradients(run_triton((4, 5)), some)
    assert some.keys() == {"y", "k", "gate"}
    assert all(torch.equal(some[name], everything[name]) for name in some)


def test_a_second_derivative_is_an_error_that_says_so():
    inputs = make_inputs()
    (gradient,) = torch.autograd.grad(run_triton((4, 5))(**inputs).sum(), inputs["q"], create_graph=True)
    with pytest.raises(RuntimeError, match=r"triton_linear_attention_backward.* no autograd formula"):
        torch.autograd.grad(gradient.sum(), inputs["q"])


def test_a_pack_that_changes_in_place_is_cut_anew():
    inputs = {name: x.detach() for name, x in make_inputs((4, 5)).items()}
    bounds = cu_seqlens_of((4, 5))
    run = partial(turing_linear_attention, **inputs, cu_seqlens=bounds, backend="triton")
    before = run()
    bounds[1] = 6
    assert torch.equal(run(), run_triton((6, 3))(**inputs))
    bounds[1] = 4
    assert torch.equal(run(), before)


CONFIG = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96}
FORMS = {
    "packed": pack([make_image(3, 5), make_image(2, 3, frames=2), make_image(1, 1)]),
    "batch": {"pixel_values": torch.stack([make_image(3, 5), make_image(3, 5) + 1])},
    "padded": pad([make_image(3, 5), make_image(2, 2)]),
}


def run_tower(model, inputs, backend):
    """Tokens, pooled vectors and the gradients of all weights."""
    with use_linear_attention_backend(backend):
        outputs = model(**inputs)
        loss = outputs.last_hidden_state.square().mean() + outputs.pooler_output.square().mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    return {
        "tokens": outputs.last_hidden_state,
        "pooled": outputs.pooler_output,
        **dict(zip(names, gradients, strict=True)),
    }


@pytest.mark.parametrize("form", FORMS)
def test_the_tower_is_that_of_float64(form):
    """Gradients through softmax attention lose a digit in float32, more or less with each processor's products; so the
    torch backend is the measure of what float32 can do."""
    model = make_model(config=tiny_config(layer_types=[LINEAR, SOFTMAX, LINEAR], **CONFIG))
    inputs = FORMS[form]
    wide = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    exact = run_tower(deepcopy(model).double(), wide, "reference")
    found, twins = (run_tower(model, inputs, backend) for backend in ("triton", "torch"))
    for name, values in exact.items():
        error, of_twin = (relative_error(towers[name], values) for towers in (found, twins))
        assert error <= max(TOWER_TOLERANCE, 2 * of_twin), f"{name}: {error} of triton, {of_twin} of torch"
        assert of_twin <= 10 * TOWER_TOLERANCE, f"{name}: the measure itself is off, {of_twin}"


def test_checkpoints_carry_no_trace_of_a_backend(tmp_path):
    model = make_model(config=tiny_config(**CONFIG))
    model.set_linear_attention_backend("triton")
    model.save_pretrained(tmp_path)
    assert "triton" not in (tmp_path / "config.json").read_text()
    loaded = TuringViTModel.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(module.backend is None for module in loaded.modules() if hasattr(module, "backend"))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([0, 3, 3, 9], "segment 1 of cu_seqlens is empty or runs backward: 3 to 3"),
        ([0, 5, 3, 9], "segment 1 of cu_seqlens is empty or runs backward: 5 to 3"),
        ([0, 3, 8], "must run from 0 to the 9 tokens, got 0 to 8"),
        ([0, 3, 10], "must run from 0 to the 9 tokens, got 0 to 10"),
        ([1, 9], "must run from 0 to the 9 tokens, got 1 to 9"),
        ([0], "at least one segment"),
    ],
)
def test_bad_segments(bounds, message):
    with pytest.raises(ValueError, match=message):
        turing_linear_attention(**make_inputs(), cu_seqlens=torch.tensor(bounds, dtype=torch.int32), backend="triton")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": torch.ones(9, 1, 32, dtype=torch.float16)}, "k is torch.float16, q is torch.float32"),
        ({"gate": torch.ones(9, 32, dtype=torch.bfloat16)}, "gate is torch.bfloat16, q is torch.float32"),
        ({"v": torch.ones(9, 1, 64)[..., ::2]}, "the last dimension of v must be contiguous, its stride is 2"),
        ({"cu_seqlens": torch.zeros(3, dtype=torch.int32, device="meta")}, "cu_seqlens is on meta, q is on cpu"),
        ({"cu_seqlens": torch.zeros(3)}, r"cu_seqlens must be \(S \+ 1,\) int32, got \(3,\) torch.float32"),
        ({"v": torch.ones(9, 1, 64)}, r"q, k and v differ in shape: \(9, 1, 32\), \(9, 1, 32\), \(9, 1, 64\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments(changes, message):
    inputs = make_inputs() | {"cu_seqlens": cu_seqlens_of((4, 5))} | changes
    with pytest.raises(ValueError, match=message):
        turing_linear_attention(**inputs, backend="triton")


@pytest.mark.parametrize(
    ("head_dim", "dtype", "message"),
    [
        (48, torch.float32, r"the triton backend takes heads of \(32, 64, 128\) in torch.float32, not of 48"),
        (16, torch.bfloat16, r"the triton backend takes heads of \(32, 64, 128\) in torch.bfloat16, not of 16"),
        (32, torch.float64, "the triton backend takes float32, bfloat16 and float16, not torch.float64"),
    ],
)
def test_heads_and_dtypes_that_there_are_no_kernels_for(head_dim, dtype, message):
    inputs = make_tla_inputs((4, 5), head_dim=head_dim, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        turing_linear_attention(**inputs, cu_seqlens=cu_seqlens_of((4, 5)), backend="triton")
