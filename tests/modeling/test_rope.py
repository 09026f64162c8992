# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Rotary positions against their formula in float64, the cache of tables, and the augmentation in training."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from tests.helpers import TOLERANCE, assert_close, turn
from tests.towers import make_image, make_model, pack, rope_phase, tiny_config
from turingvit_hf.modeling import rope
from turingvit_hf.modeling.rope import TuringViTRotaryEmbedding, rotate


GRID = torch.tensor([[1, 3, 5], [2, 1, 4], [1, 1, 1], [1, 96, 2]])
NUM_TOKENS = 15 + 8 + 1 + 192


def make_rope(*, training=False, head_dim=16, **changes):
    config = tiny_config(hidden_size=2 * head_dim, num_attention_heads=2, **changes)
    return TuringViTRotaryEmbedding(config).train(training)


@pytest.fixture
def empty_cache():
    rope._cached_table.cache_clear()
    yield
    rope._cached_table.cache_clear()


@pytest.mark.parametrize("head_dim", [4, 16, 64])
@pytest.mark.parametrize("base", [100.0, 10.0])
@pytest.mark.parametrize("training", [False, True], ids=["cached", "computed"])
def test_tables_of_a_pack(training, base, head_dim):
    tables = make_rope(training=training, head_dim=head_dim, rope_theta=base, pos_embed_rescale=None)
    cos, sin = tables(GRID, NUM_TOKENS)
    phases = [rope_phase(h, w, head_dim, base) for frames, h, w in GRID.tolist() for _ in range(frames)]
    exact = np.concatenate(phases)
    assert_close(cos, exact.real, TOLERANCE[torch.float32])
    assert_close(sin, exact.imag, TOLERANCE[torch.float32])
    assert cos.dtype == sin.dtype == torch.float32


def test_tables_of_a_batch_are_those_of_its_images():
    tables = make_rope()
    cos, sin = tables.dense(torch.zeros(3, 3, 12, 20), 3, 5)
    for batched, packed in zip((cos, sin), tables(torch.tensor([[1, 3, 5]]), 15), strict=True):
        assert batched.shape == (3, 15, 8)
        assert (batched == packed).all()


def test_the_slowest_and_the_fastest_period_of_the_report():
    # heads of 64: sixteen periods from 1 to 75; at the corner y = x = -1 + 1/n
    cos, sin = make_rope(head_dim=64)(torch.tensor([[1, 3, 4]]), 12)
    y, x, longest = -2 / 3, -3 / 4, 100 ** (30 / 32)
    assert 74 < longest < 76
    for pair, turns in {0: y, 15: y / longest, 16: x, 31: x / longest}.items():
        assert cos[0, pair].item() == pytest.approx(np.cos(2 * np.pi * turns), abs=1e-6)
        assert sin[0, pair].item() == pytest.approx(np.sin(2 * np.pi * turns), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_rotation_turns_halves_against_each_other(dtype):
    phase = rope_phase(3, 5, 16)
    x = torch.randn(15, 4, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    cos, sin = (torch.tensor(table) for table in (phase.real, phase.imag))
    turned = rotate(x, cos.to(torch.promote_types(dtype, torch.float32)), sin.to(torch.float32))
    assert turned.dtype == dtype
    tolerance = TOLERANCE[torch.float32 if dtype == torch.float64 else dtype]
    assert_close(turned, turn(x.double().numpy(), phase[:, None]), tolerance)


def test_products_depend_on_differences_of_position_only():
    # what makes it a relative position: turning a query and a key by the same angles leaves their product
    q, k = torch.randn(2, 1, 1, 16, generator=torch.Generator().manual_seed(0)).unbind()
    cos, sin = make_rope()(torch.tensor([[1, 1, 9]]), 9)
    product = (rotate(q, cos, sin) * rotate(k, cos, sin)).sum(-1)
    assert_close(product, (q * k).sum(-1).expand(9, 1), TOLERANCE[torch.float32])


@pytest.mark.parametrize(
    "inputs",
    [pack([make_image(3, 5)]), pack([make_image(3, 5), make_image(2, 2)]), {"pixel_values": make_image(3, 5)[None]}],
    ids=["one image", "two images", "batch"],
)
@pytest.mark.usefixtures("empty_cache")
def test_tables_made_in_inference_mode_serve_training(inputs):
    tower = make_model()
    with torch.inference_mode():
        tower(**inputs)
    made = rope._cached_table.cache_info()
    assert made.currsize == made.misses > 0
    tower(**inputs).pooler_output.sum().backward()
    assert rope._cached_table.cache_info().misses == made.misses


@pytest.mark.parametrize("real_inputs", [False, True], ids=["fake inputs", "real inputs"])
@pytest.mark.parametrize("packed", [False, True], ids=["batch", "pack"])
@pytest.mark.usefixtures("empty_cache")
def test_fake_tensors_do_not_stay_in_the_cache(packed, real_inputs):
    tower, images = make_model(), [make_image(3, 5), make_image(3, 5)]
    inputs = pack(images) if packed else {"pixel_values": torch.stack(images)}
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = inputs if real_inputs else {name: mode.from_tensor(x) for name, x in inputs.items()}
        if packed:  # lengths are data here, which fake tensors have not
            cos, _ = tower.rope(fakes["image_grid_thw"], 30)
        else:
            cos, _ = tower.rope.dense(fakes["pixel_values"], 3, 5)
    assert isinstance(cos, FakeTensor)
    assert tower(**inputs).last_hidden_state.isfinite().all()


@pytest.mark.usefixtures("empty_cache")
def test_a_meta_tower_leaves_nothing_for_a_real_one():
    tower, batch = make_model(), torch.stack([make_image(3, 5)])
    meta = make_model().to("meta")
    outputs = meta(batch.to("meta"))
    assert outputs.last_hidden_state.is_meta
    assert outputs.last_hidden_state.shape == (1, 15, 32)
    assert tower(batch).last_hidden_state.isfinite().all()


@pytest.mark.usefixtures("empty_cache")
def test_tables_are_kept_by_size_width_and_base():
    grid = torch.tensor([[1, 3, 5], [4, 3, 5]])
    wide, narrow, other = make_rope(), make_rope(head_dim=4), make_rope(rope_theta=10.0)
    tables = [embedding(grid, 75)[0] for embedding in (wide, narrow, other, wide)]
    info = rope._cached_table.cache_info()
    assert (info.misses, info.currsize) == (3, 3)
    assert torch.equal(tables[0], tables[3])
    assert not torch.equal(tables[0], tables[2])


class TestAugmentation:
    """In training each image's coordinates are multiplied by a factor from [1/2, 2]."""

    grid = torch.tensor([[1, 3, 5], [3, 1, 4], [1, 3, 5]])

    def factors(self, cos, sin):
        """The factor of each frame, from the angle of its first patch at period 1, which never wraps here."""
        first_y = [-2 / 3, 0.0, 0.0, 0.0, -2 / 3]
        first_x = [-4 / 5, -3 / 4, -3 / 4, -3 / 4, -4 / 5]
        starts = [0, 15, 19, 23, 27]
        angles = torch.atan2(sin, cos)
        slow = angles[starts][:, [3, 7]]  # the longest of four periods: 100^(6/8)
        factors_x = slow[:, 1] * 100**0.75 / (2 * torch.pi * torch.tensor(first_x))
        for frame, y in enumerate(first_y):  # one factor for both axes
            assert slow[frame, 0].item() == pytest.approx(
                2 * np.pi * y * factors_x[frame].item() / 100**0.75, abs=1e-5
            )
        return factors_x.tolist()

    def test_every_image_has_one_factor_and_all_frames_of_a_clip_the_same(self):
        torch.manual_seed(0)
        first, *clip, last = self.factors(*make_rope(training=True)(self.grid, 42))
        assert len({round(factor, 4) for factor in (first, clip[0], last)}) == 3
        assert clip == pytest.approx([clip[0]] * 3, abs=1e-5)
        assert all(0.5 <= factor <= 2 for factor in (first, clip[0], last))

    def test_a_batch_has_one_factor_for_each_image(self):
        torch.manual_seed(0)
        cos, sin = make_rope(training=True).dense(torch.zeros(5, 3, 12, 20), 3, 5)
        angles = torch.atan2(sin, cos)[:, 0, 7]
        assert len(set(angles.tolist())) == 5

    def test_factors_are_spread_evenly_on_a_logarithmic_scale(self):
        torch.manual_seed(0)
        embedding = make_rope(training=True, pos_embed_rescale=4.0)
        cos, sin = embedding(torch.tensor([[1, 1, 4]]).repeat(4000, 1), 16000)
        angles = torch.atan2(sin, cos)[::4, 7]
        logs = torch.log(angles * 100**0.75 / (2 * torch.pi * -3 / 4)) / np.log(4)
        assert -1 <= logs.min() < -0.99
        assert 0.99 < logs.max() <= 1
        assert abs(logs.mean()) < 0.05
        assert abs(logs.std() - 1 / 3**0.5) < 0.02

    def test_evaluation_draws_nothing(self):
        tower, inputs = make_model(), pack([make_image(3, 5)])
        state = torch.get_rng_state()
        assert torch.equal(tower(**inputs).pooler_output, tower(**inputs).pooler_output)
        assert torch.equal(torch.get_rng_state(), state)

    def test_none_turns_it_off(self):
        embedding = make_rope(training=True, pos_embed_rescale=None)
        torch.testing.assert_close(embedding(self.grid, 42), make_rope()(self.grid, 42))

    def test_training_draws_once_for_all_layers_and_anew_for_each_forward(self):
        tower, inputs = make_model().train(), pack([make_image(3, 5)])
        calls = []
        tower.rope.register_forward_hook(lambda *_: calls.append(1))
        torch.manual_seed(0)
        first, second = (tower(**inputs).pooler_output for _ in range(2))
        assert len(calls) == 2
        assert not torch.allclose(first, second)
        torch.manual_seed(0)
        assert torch.equal(tower(**inputs).pooler_output, first)
