# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The operator as a citizen of torch: autograd, compilers, exporters, autocast; and how a backend is chosen."""

from functools import partial

import pytest
import torch
from torch._dynamo.decorators import mark_unbacked
from torch.export import Dim

from tests.helpers import (
    PORTABLE_BACKENDS,
    TOLERANCE,
    assert_all_close,
    assert_close,
    cu_seqlens_of,
    make_tla_inputs,
    to_float64,
    values_and_gradients,
)
from turingvit_hf.kernels.linear_attention import (
    BACKENDS,
    choose_backend,
    explain_backend,
    turing_linear_attention,
    use_linear_attention_backend,
)


FULL, BARE = (), ("rope", "gate", "norm_weight")


@pytest.mark.parametrize("without", [FULL, BARE, ("rope",), ("gate",), ("norm_weight",)], ids=str)
def test_opcheck(without):
    inputs = to_float64(make_tla_inputs((4, 5), num_heads=2, head_dim=4, without=without))
    q, k, v, gate, norm_weight, cos, sin = inputs.values()
    options = (1e-6, "silu", None)
    forward = torch.ops.turingvit.torch_linear_attention.default
    torch.library.opcheck(forward, (q, k, v, cu_seqlens_of((4, 5)), cos, sin, gate, norm_weight, *options))
    with torch.no_grad():
        y, states = forward(q, k, v, cu_seqlens_of((4, 5)), cos, sin, gate, norm_weight, *options)
        inputs = {name: x if x is None else x.detach() for name, x in inputs.items()}
        q, k, v, gate, norm_weight, cos, sin = inputs.values()
    backward = torch.ops.turingvit.torch_linear_attention_backward.default
    arguments = (torch.ones_like(y), q, k, v, cu_seqlens_of((4, 5)), states, cos, sin, gate, norm_weight, *options)
    torch.library.opcheck(backward, arguments)


@pytest.mark.parametrize("backend", PORTABLE_BACKENDS)
def test_gradcheck(backend):
    inputs = to_float64(make_tla_inputs((3, 1, 4), num_heads=2, head_dim=4))
    cos, sin = inputs.pop("cos"), inputs.pop("sin")

    def run(q, k, v, gate, norm_weight):
        return turing_linear_attention(
            q, k, v, cu_seqlens_of((3, 1, 4)), cos=cos, sin=sin, gate=gate, norm_weight=norm_weight, backend=backend
        )

    assert torch.autograd.gradcheck(run, tuple(inputs.values()))


def test_a_second_derivative_is_an_error_that_says_so():
    inputs = make_tla_inputs((3, 4))
    y = turing_linear_attention(**inputs, cu_seqlens=cu_seqlens_of((3, 4)), backend="torch")
    (gradient,) = torch.autograd.grad(y.sum(), inputs["q"], create_graph=True)
    with pytest.raises(RuntimeError, match=r"torch_linear_attention_backward.* no autograd formula"):
        torch.autograd.grad(gradient.sum(), inputs["q"])


def test_states_of_images_up_to_a_tile_are_not_kept():
    inputs = make_tla_inputs((3, 513, 16, 64, 512), num_heads=2, head_dim=64, without=FULL)
    q, k, v, gate, norm_weight, cos, sin = (x.detach() for x in inputs.values())
    cu_seqlens = cu_seqlens_of((3, 513, 16, 64, 512))
    forward = torch.ops.turingvit.torch_linear_attention.default
    states = forward(q, k, v, cu_seqlens, cos, sin, gate, norm_weight, 1e-6, "silu", None)[1]
    rows = states.flatten(1).any(dim=1).nonzero().flatten()
    assert rows[0] >= 3
    assert rows[-1] < 516
    assert states.numel() <= q.numel() / 8


def test_only_what_needs_a_gradient_gets_one():
    inputs = make_tla_inputs((3, 4))
    inputs |= {name: inputs[name].detach() for name in ("q", "v", "norm_weight")}
    run = partial(turing_linear_attention, cu_seqlens=cu_seqlens_of((3, 4)), backend="torch")
    everything = values_and_gradients(run, make_tla_inputs((3, 4)))
    some = values_and_gradients(run, inputs)
    assert some.keys() == {"y", "k", "gate"}
    assert all(torch.equal(some[name], everything[name]) for name in some)


def test_one_graph_serves_every_pack():
    compiled = torch.compile(turing_linear_attention, backend="aot_eager", fullgraph=True, dynamic=True)

    def compare(lengths):
        inputs, cu_seqlens = make_tla_inputs(lengths), cu_seqlens_of(lengths)
        for name, x in inputs.items():
            if name != "norm_weight":
                mark_unbacked(x, 0, shape_id="num_tokens", min=1)
        mark_unbacked(cu_seqlens, 0, min=2)
        actual = values_and_gradients(partial(compiled, cu_seqlens=cu_seqlens), inputs)
        eager = values_and_gradients(partial(turing_linear_attention, cu_seqlens=cu_seqlens), inputs)
        assert_all_close(actual, eager, TOLERANCE[torch.float32])

    compare((5, 9))
    with torch.compiler.set_stance("fail_on_recompile"):
        for lengths in [(1,), (7,), (1,) * 30, (64,) * 12, (600, 3), (5, 40, 1, 700)]:
            compare(lengths)


@pytest.mark.parametrize("scale", [None, -0.5])
def test_a_compiled_batch_is_plain_tensor_operations(scale):
    inputs = make_tla_inputs((21,) * 4)
    graphs = []

    def keep(graph, example_inputs):
        graphs.append(graph)
        return graph

    def run(norm_weight, **tensors):
        tensors = {name: x.unflatten(0, (4, 21)) for name, x in tensors.items()}
        return turing_linear_attention(**tensors, norm_weight=norm_weight, scale=scale)

    compiled = values_and_gradients(torch.compile(run, backend=keep, fullgraph=True), inputs)
    assert_all_close(compiled, values_and_gradients(run, inputs), TOLERANCE[torch.float32])
    (graph,) = graphs
    assert "turingvit" not in graph.code


class Attention(torch.nn.Module):
    def forward(self, q, k, v, gate, norm_weight, cos, sin, cu_seqlens=None):
        return turing_linear_attention(
            q, k, v, cu_seqlens, cos=cos, sin=sin, gate=gate, norm_weight=norm_weight, backend="torch"
        )


def test_an_exported_pack_takes_other_packs():
    def inputs_of(lengths):
        inputs = {name: x.detach() for name, x in make_tla_inputs(lengths).items()}
        return inputs | {"cu_seqlens": cu_seqlens_of(lengths)}

    inputs, num_tokens = inputs_of((5, 9)), Dim("num_tokens", min=2)
    shapes = {name: {0: num_tokens} for name in inputs}
    shapes |= {"cu_seqlens": {0: Dim("num_bounds", min=3)}, "norm_weight": None}
    exported = torch.export.export(Attention(), (), inputs, dynamic_shapes=shapes).module()
    for lengths in [(3, 1, 50), (7, 7), (1,) * 20, (600, 3)]:
        inputs = inputs_of(lengths)
        assert_close(exported(**inputs), Attention()(**inputs).detach(), TOLERANCE[torch.float32])


def test_an_exported_batch_takes_other_sizes_and_needs_no_operator_of_ours():
    def inputs_of(batch, length):
        inputs = {name: x.detach() for name, x in make_tla_inputs((length,) * batch).items()}
        return {name: x if name == "norm_weight" else x.unflatten(0, (batch, length)) for name, x in inputs.items()}

    inputs = inputs_of(4, 21)
    shapes = {name: None if name == "norm_weight" else {0: Dim("batch"), 1: Dim("length")} for name in inputs}
    program = torch.export.export(Attention(), (), inputs, dynamic_shapes=shapes)
    assert "turingvit" not in str(program.graph)
    exported = program.module()
    for batch, length in [(2, 30), (1, 5), (3, 1)]:
        inputs = inputs_of(batch, length)
        assert_close(exported(**inputs), Attention()(**inputs).detach(), TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", PORTABLE_BACKENDS)
def test_autocast_changes_no_bit_inside(backend, dtype):
    # what autocast's projections bring: 16 bits, while the norm's weight stays float32
    lengths = (20, 1, 30)
    inputs = make_tla_inputs(lengths, dtype=dtype)
    inputs["norm_weight"] = inputs["norm_weight"].detach().float().requires_grad_()
    run = partial(turing_linear_attention, cu_seqlens=cu_seqlens_of(lengths), backend=backend)

    def run_under_autocast(**tensors):
        with torch.autocast("cpu", dtype):
            return run(**tensors)

    plain, autocast = values_and_gradients(run, inputs), values_and_gradients(run_under_autocast, inputs)
    assert autocast["y"].dtype == dtype
    assert autocast["norm_weight"].dtype == torch.float32
    assert all(torch.equal(plain[name], autocast[name]) for name in plain)


def test_autocast_under_a_compiler():
    compiled = torch.compile(Attention(), backend="aot_eager", fullgraph=True)
    inputs = {name: x.detach() for name, x in make_tla_inputs((5, 9), dtype=torch.bfloat16).items()}
    with torch.autocast("cpu", torch.bfloat16):
        y = compiled(**inputs, cu_seqlens=cu_seqlens_of((5, 9)))
    assert torch.equal(y, Attention()(**inputs, cu_seqlens=cu_seqlens_of((5, 9))))


def test_meta_tensors_have_the_shape_of_the_result():
    inputs = {name: x.to("meta") for name, x in make_tla_inputs((5, 9)).items()}
    y = turing_linear_attention(**inputs, cu_seqlens=cu_seqlens_of((5, 9)).to("meta"))
    assert y.is_meta
    assert y.shape == (14, 48)


@pytest.fixture
def recorded(monkeypatch):
    """The names of backends in the order in which they ran."""
    names = []
    originals = {"torch": BACKENDS["torch"], "reference": BACKENDS["reference"], "other": BACKENDS["reference"]}
    for name, run in originals.items():
        monkeypatch.setitem(BACKENDS, name, lambda *args, name=name, run=run: names.append(name) or run(*args))
    return names


def run_once(backend=None):
    inputs = make_tla_inputs((3, 4))
    return turing_linear_attention(**inputs, cu_seqlens=cu_seqlens_of((3, 4)), backend=backend)


def test_the_backend_is_the_one_named_or_that_of_the_device(recorded):
    run_once()
    run_once("reference")
    run_once("other")
    assert recorded == ["torch", "reference", "other"]
    assert choose_backend(None, torch.device("cpu")) == "torch"


def test_a_block_overrules_names_and_ends(recorded):
    with use_linear_attention_backend("reference"):
        run_once()
        run_once("torch")
        with use_linear_attention_backend("other"):
            run_once()
        run_once()
    run_once()
    assert recorded == ["reference", "reference", "other", "reference", "torch"]


def test_a_block_ends_when_something_fails_in_it(recorded):
    with pytest.raises(KeyError), use_linear_attention_backend("other"):
        raise KeyError
    run_once()
    assert recorded == ["torch"]


def test_the_gpu_rule_prefers_triton_where_it_is_installed(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    from turingvit_hf.kernels.linear_attention import triton_backend

    gpu = torch.device("cuda")
    monkeypatch.setattr(triton_backend, "launch_family", lambda device: "sm_90")
    assert choose_backend(None, gpu) == "triton"
    assert choose_backend("torch", gpu) == "torch"
    # what the kernels do not take runs on torch: a head size, a dtype, an old GPU, an installation without Triton
    assert choose_backend(None, gpu, head_dim=48) == "torch"
    assert choose_backend(None, gpu, torch.float64) == "torch"
    assert choose_backend(None, gpu, torch.float32, 128) == "torch"
    monkeypatch.setattr(triton_backend, "launch_family", lambda device: None)
    assert choose_backend(None, gpu) == "torch"
    assert "compute capability 8.0" in explain_backend(gpu)[1]
    monkeypatch.delitem(BACKENDS, "triton")
    assert choose_backend(None, gpu) == "torch"
    assert explain_backend(gpu) == ("torch", "the package triton is not installed")


@pytest.mark.parametrize("choose", [run_once, lambda name: use_linear_attention_backend(name).__enter__()])
def test_an_unknown_backend_is_named_beside_those_there_are(choose):
    with pytest.raises(ValueError, match=r"no linear-attention backend 'cudnn'; this installation has .*'torch'"):
        choose("cudnn")


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([0, 3, 3, 7], "segment 1 of cu_seqlens is empty or runs backward: 3 to 3"),
        ([0, 5, 3, 7], "segment 1 of cu_seqlens is empty or runs backward: 5 to 3"),
        ([0, 3, 6], "must run from 0 to the 7 tokens, got 0 to 6"),
        ([0, 3, 8], "must run from 0 to the 7 tokens, got 0 to 8"),
        ([1, 7], "must run from 0 to the 7 tokens, got 1 to 7"),
        ([0], "at least one segment"),
        ([], "at least one segment"),
    ],
)
@pytest.mark.parametrize("backend", PORTABLE_BACKENDS)
def test_bad_segments(backend, bounds, message):
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
    with pytest.raises(ValueError, match=message):
        turing_linear_attention(**make_tla_inputs((3, 4)), cu_seqlens=cu_seqlens, backend=backend)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.ones(7, 48)}, r"q must be \(T, H, K\) with cu_seqlens .* got \(7, 48\)"),
        ({"k": torch.ones(6, 3, 16)}, r"q, k and v differ in shape: .*\(6, 3, 16\)"),
        ({"v": torch.ones(7, 3, 8)}, r"q, k and v differ in shape: .*\(7, 3, 8\)"),
        ({"sin": None}, "cos and sin go together"),
        ({"cos": torch.ones(7, 16)}, r"cos and sin must be \(7, 8\), got \(7, 16\)"),
        ({"gate": torch.ones(7, 3, 16)}, r"gate must be \(7, 48\), got \(7, 3, 16\)"),
        ({"norm_weight": torch.ones(16)}, r"norm_weight must be \(48,\), got \(16,\)"),
        ({"activation": "gelu"}, r"activation must be one of \['none', 'silu'\], got 'gelu'"),
        ({"cu_seqlens": None}, r"q must be .* or \(B, N, H, K\) without, got \(7, 3, 16\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments(changes, message):
    inputs = make_tla_inputs((3, 4)) | {"cu_seqlens": cu_seqlens_of((3, 4))} | changes
    with pytest.raises(ValueError, match=message):
        turing_linear_attention(**inputs)
