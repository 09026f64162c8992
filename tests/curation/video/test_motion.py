# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Flow tells stills from motion and motion from cuts, whatever the sampling; cosines tell cuts and stills apart."""

import numpy as np
import pytest

from tests.curation.video_files import noisy, pan, still, texture
from turingvit_hf.curation.video.motion import measure_consistency, measure_motion, motion_frame_indices


DIAGONAL = float(np.hypot(96, 128))


def test_a_pan_has_its_own_speed():
    for step in (1, 3):
        found = measure_motion(pan(0, 12, step), 1 / 24)
        assert found["motion"] == pytest.approx(24 * step / DIAGONAL, rel=0.15)
        assert found["motion_variation"] < 0.5  # a cut among sixteen frames is above 2


def test_sampling_more_often_changes_nothing():
    frames = pan(1, 25, 2)
    dense, sparse = measure_motion(frames, 1 / 24), measure_motion(frames[::3], 3 / 24)
    assert sparse["motion"] == pytest.approx(dense["motion"], rel=0.15)


def test_stills_do_not_move_and_noise_hardly():
    assert measure_motion(still(2, 6), 1 / 24) == {"motion": 0.0, "motion_variation": 0.0}
    assert measure_motion([texture(2)], 1 / 24) == {"motion": 0.0, "motion_variation": 0.0}
    assert measure_motion(noisy(2, 6), 1 / 24)["motion"] < measure_motion(pan(2, 6, 1), 1 / 24)["motion"] / 5


def test_a_hidden_cut_shows_in_the_variation():
    with_cut = measure_motion([*still(3, 8), *still(4, 8)], 1 / 24)
    assert with_cut["motion_variation"] > 2
    assert measure_motion(pan(3, 16, 2), 1 / 24)["motion_variation"] < 0.5


def test_bad_frames_are_refused():
    with pytest.raises(ValueError, match="one size"):
        measure_motion([texture(0), texture(0, height=80)], 1.0)
    with pytest.raises(ValueError, match="at least 16"):
        measure_motion([texture(0, height=8)] * 2, 1.0)
    with pytest.raises(ValueError, match="seconds_apart"):
        measure_motion(still(0, 2), 0.0)
    with pytest.raises(ValueError, match="one size"):
        measure_motion([], 1.0)


def test_cosines_of_frames():
    rng = np.random.default_rng(0)
    one, other = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 16)))
    same = measure_consistency(np.stack([one] * 5).astype(np.float16))
    assert same == pytest.approx(dict.fromkeys(same, 1.0), abs=2e-3)
    found = measure_consistency(np.stack([one, one, other, other]))
    cosine = float(one @ other)
    assert found["adjacent_min"] == pytest.approx(cosine)
    assert found["adjacent_mean"] == pytest.approx((2 + cosine) / 3)
    assert found["first_mean"] == pytest.approx((1 + 2 * cosine) / 3)
    assert measure_consistency(one[None]) == dict.fromkeys(same, 1.0)
    for wrong in (np.zeros((0, 4)), one, 2 * one[None]):
        with pytest.raises(ValueError, match="embeddings must"):
            measure_consistency(wrong)


@pytest.mark.parametrize(("count", "fps", "rate", "most"), [(240, 24.0, 8.0, 33), (1, 30.0, 8.0, 2), (5, 4.0, 8.0, 9)])
def test_motion_is_sampled_without_gaps(count, fps, rate, most):
    indices, apart = motion_frame_indices(100, count, fps, rate=rate, max_frames=most)
    steps = set(np.diff(indices).tolist())
    assert indices[0] == 100
    assert 1 <= len(indices) <= most
    assert len(steps) <= 1
    assert indices[-1] + (steps.pop() if steps else 1) > 100 + count - 1
    assert apart == pytest.approx((indices[1] - indices[0]) / fps if len(indices) > 1 else apart)
