# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Softmax attention inside each segment: against float64, eager against sdpa, and its operator for compilers."""

from itertools import accumulate

import numpy as np
import pytest
import torch

from tests.helpers import (
    TOLERANCE,
    assert_all_close,
    assert_close,
    cu_seqlens_of,
    relative_error,
    values_and_gradients,
)
from tests.towers import LINEAR, SOFTMAX, TowerTwin, make_image, make_model, pack, rope_phase, tiny_config
from turingvit_hf.modeling import attention
from turingvit_hf.modeling.attention import packed_softmax_attention


SIZES = [(3, 5), (1, 1), (4, 4)]
LENGTHS = (15, 1, 16)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("layer", [0, 1], ids=[LINEAR, SOFTMAX])
def test_a_layer_is_what_the_formulas_say(layer, implementation):
    tower = make_model(config=tiny_config(layer_types=[LINEAR, SOFTMAX]))
    tower.set_attn_implementation(implementation)
    twin = TowerTwin(tower.config, tower.state_dict())
    x = torch.randn(sum(LENGTHS), 32, generator=torch.Generator().manual_seed(0))
    phases = [rope_phase(*size, 8) for size in SIZES]
    table = np.concatenate(phases)
    rope = tuple(torch.tensor(part, dtype=torch.float32) for part in (table.real, table.imag))
    module = tower.layers[layer].attention
    with torch.no_grad():
        packed = module(x, cu_seqlens_of(LENGTHS), rope)
        padded = module(x[None], cu_seqlens_of(LENGTHS), rope)
        alone = module(x[None, :15], None, tuple(part[None, :15] for part in rope))
    if layer == 1:
        (packed, weights), (padded, _), (alone, _) = packed, padded, alone
        assert (weights is None) == (implementation == "sdpa")
    name, exact = f"layers.{layer}.attention", []
    for start, length, phase in zip([0, 15, 16], LENGTHS, phases, strict=True):
        segment = x[start : start + length].double().numpy()
        run = twin.linear_attention if layer == 0 else lambda *args: twin.softmax_attention(*args)[0]
        exact.append(run(name, segment, phase))
    assert_close(packed, np.concatenate(exact), TOLERANCE[torch.float32])
    assert torch.equal(padded[0], packed)
    assert_close(alone[0], exact[0], TOLERANCE[torch.float32])


def make_qkv(lengths, dtype=torch.float64, head_dim=8):
    generator = torch.Generator().manual_seed(0)
    shape = (1, sum(lengths), 2, head_dim)
    # (1, H, T, K) with the strides that transposed projections have
    return {name: torch.randn(shape, generator=generator).to(dtype).transpose(1, 2).requires_grad_() for name in "qkv"}


def softmax_twin(q, k, v, lengths, scaling):
    """(1, H, T, K) -> (1, T, H, K), written out for autograd."""
    parts = []
    for start, length in zip([0, *accumulate(lengths)], lengths, strict=False):
        Q, K, V = (x[0, :, start : start + length] for x in (q, k, v))
        scores = torch.exp(Q @ K.transpose(1, 2) * scaling)
        parts.append((scores / scores.sum(-1, keepdim=True) @ V).transpose(0, 1))
    return torch.cat(parts)[None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("lengths", [(1,), (5, 1, 9), (1,) * 7, (30, 700, 3)], ids=str)
def test_hand_written_gradients_of_the_packed_operator(lengths, dtype):
    inputs, scaling = make_qkv(lengths, dtype), 8**-0.5
    actual = values_and_gradients(
        lambda q, k, v: packed_softmax_attention(q, k, v, cu_seqlens_of(lengths), scaling), inputs
    )
    doubled = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    exact = values_and_gradients(lambda q, k, v: softmax_twin(q, k, v, lengths, scaling), doubled)
    if lengths == (1,) * len(lengths):
        # the weight of the only token is 1 whatever q and k are
        for name in "qk":
            assert actual.pop(name).abs().max() <= torch.finfo(dtype).eps * 10
            assert exact.pop(name).abs().max() <= 1e-14
    assert_all_close(actual, exact, TOLERANCE[dtype])


def test_blocks_of_queries_leave_no_trace(monkeypatch):
    lengths = (5, 1, 23)
    run = lambda q, k, v: packed_softmax_attention(q, k, v, cu_seqlens_of(lengths), 0.3)  # noqa: E731
    whole = values_and_gradients(run, make_qkv(lengths))
    monkeypatch.setattr(attention, "QUERY_BLOCK", 4)
    assert_all_close(values_and_gradients(run, make_qkv(lengths)), whole, TOLERANCE[torch.float64])


def test_opcheck_of_the_packed_operator():
    arguments = (*make_qkv((3, 2)).values(), cu_seqlens_of((3, 2)), 0.3)
    torch.library.opcheck(torch.ops.turingvit.packed_softmax_attention.default, arguments)
    q, k, v = (x.detach() for x in arguments[:3])
    backward = torch.ops.turingvit.packed_softmax_attention_backward.default
    torch.library.opcheck(backward, (torch.ones(1, 5, 2, 8).double(), q, k, v, *arguments[3:]))


def test_eager_and_sdpa_agree_in_values_and_gradients():
    images = [make_image(3, 5), make_image(1, 1), make_image(2, 3, frames=2)]
    results = []
    for implementation in ("eager", "sdpa"):
        tower = make_model()
        tower.set_attn_implementation(implementation)
        outputs = tower(**pack(images))
        outputs.pooler_output.square().sum().backward()
        results.append({"y": outputs.last_hidden_state} | {n: w.grad for n, w in tower.named_parameters()})
    assert max(relative_error(results[0][name], results[1][name]) for name in results[0]) < 1e-5


def test_the_attention_implementation_is_chosen_at_run_time_and_not_saved(tmp_path):
    tower = make_model()
    tower.set_attn_implementation("eager")
    assert tower.config._attn_implementation == "eager"
    tower.save_pretrained(tmp_path)
    assert "attn" not in (tmp_path / "config.json").read_text()


def test_flash_attention_gets_the_bounds_of_the_pack_and_no_mask(monkeypatch):
    # there is no flash attention on a CPU: what it would be called with is written down, and sdpa stands in
    calls = []

    def flash(module, query, key, value, attention_mask, **kwargs):
        calls.append(kwargs | {"attention_mask": attention_mask})
        out = packed_softmax_attention(query, key, value, kwargs["cu_seq_lens_q"], kwargs["scaling"])
        return out, None

    tower, inputs = make_model(), pack([make_image(3, 5), make_image(2, 3, frames=2)])
    expected = tower(**inputs).last_hidden_state
    monkeypatch.setitem(attention.ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", flash)
    tower.config._attn_implementation_internal = "flash_attention_2"
    assert_close(tower(**inputs).last_hidden_state, expected.detach(), TOLERANCE[torch.float32])
    (call,) = calls
    assert call["cu_seq_lens_q"].tolist() == call["cu_seq_lens_k"].tolist() == [0, 15, 21, 27]
    assert call["cu_seq_lens_q"].dtype == torch.int32
    assert call["max_length_q"] == call["max_length_k"] == 15
    assert call["attention_mask"] is None
    assert call["is_causal"] is False
