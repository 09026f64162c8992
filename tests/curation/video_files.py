# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Small videos whose shots and motion are known."""

import io
from fractions import Fraction

import numpy as np
import pytest


def texture(seed, height=96, width=128):
    """A picture with detail at several scales, of its own colors, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for size in (4, 8, 16):
        small = rng.uniform(0, 255, (-(-height // size), -(-width // size), 3))
        picture += np.kron(small, np.ones((size, size, 1)))[:height, :width]
    return (0.6 * picture / 3 + 0.4 * rng.uniform(0, 255, 3)).astype(np.uint8)


def still(seed, count):
    return [texture(seed)] * count


def noisy(seed, count, sd=4):
    rng = np.random.default_rng(seed)
    return [np.clip(texture(seed) + rng.normal(0, sd, (96, 128, 3)), 0, 255).astype(np.uint8) for _ in range(count)]


def pan(seed, count, step):
    """The view moves to the right by `step` pixels a frame."""
    wide = texture(seed, width=128 + step * count)
    return [np.ascontiguousarray(wide[:, step * i : step * i + 128]) for i in range(count)]


def encode(frames, fps=24, form="mp4"):
    """The frames as a file's bytes, nearly without loss."""
    av = pytest.importorskip("av", reason="video files need the video extra (PyAV)")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
