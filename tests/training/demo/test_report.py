# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The report is a picture of the right size that shows the frames where they belong, for any captions."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from turingvit_hf.training.demo.report import RIGHT, Query, write_report


METRICS = {
    f"{direction}_{kind}@{k}": value
    for direction in ("image_to_text", "text_to_image")
    for k in (1, 5)
    for kind, value in (("R", 0.0), ("chance", 0.01))
}


@pytest.mark.parametrize("num_right", [0, 1, 3])
def test_right_pictures_are_framed(tmp_path, num_right):
    image = Image.new("RGB", (30, 10), "purple")
    query = Query("a caption with $ and _ and 星 " * 9, [image] * 3, [place < num_right for place in range(3)])
    write_report(
        tmp_path / "report.png",
        title="t",
        losses=[(1, 2.0), (2, 1.0)],
        before=METRICS,
        after=METRICS,
        queries=[query] * 2,
    )
    with Image.open(tmp_path / "report.png") as report:
        pixels = np.asarray(report.convert("RGB")).astype(int)
    assert 900 < pixels.shape[1] < 1500
    is_frame = (np.abs(pixels - ImageColor.getrgb(RIGHT)).max(-1) < 3).any(0)
    # a frame is two columns of green; count where they begin and end
    edges = np.diff(np.flatnonzero(is_frame)) > 1
    assert (edges.sum() + 1 if is_frame.any() else 0) == num_right
