# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Reports, tuning and explanations of a run of videos."""

import io
import json

import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from tests.curation.looking_cases import Page
from tests.curation.run_cases import make_config, write_listing
from tests.curation.video_files import encode, pan, still
from turingvit_hf.curation.explain import as_table, explain, write_figure
from turingvit_hf.curation.report.page import write_report
from turingvit_hf.curation.runs import run
from turingvit_hf.curation.tune import tune
from turingvit_hf.errors import InputError


def config_of(folder, **motion):
    return make_config(
        folder,
        sources=[{"path": str(folder), "name": "videos", "kind": "video"}],
        cut={"max_seconds": 1.3, "min_seconds": 0.5},
        # the stand-in's vectors follow from the bytes of a frame: frames of one clip are no more alike than others
        thresholds={"quality": {"min_side": 32}, "consistency": {"low": None}, "motion": motion},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "videos"
    folder.mkdir()
    pytest.importorskip("scenedetect", reason="videos are cut by the extra curate-video")
    videos = {"moving.mp4": [*pan(0, 40, 2), *pan(1, 30, 1)], "still.mp4": still(2, 30)}
    for name, frames in videos.items():
        (folder / name).write_bytes(encode(frames))
    (folder / "broken.mp4").write_bytes(b"no video")
    write_listing(folder, [{"file_name": name, "caption": f"A view of {name}."} for name in (*videos, "broken.mp4")])
    run(config_of(folder, floor=0.01), folder.parent / "run")
    return folder.parent / "run"


def rows_of(out):
    return pq.read_table(out / "rows.parquet").to_pylist()


def test_the_report_plots_clips_and_shows_their_frames(finished):
    html, numbers = write_report(finished)
    page = Page(html.read_text(encoding="utf-8"))
    numbers = json.loads(numbers.read_text(encoding="utf-8"))
    rows = rows_of(finished)
    assert ("alt", "motion against consistency of clips") in page.attributes
    assert ("alt", "histogram: motion, diagonals a second") in page.attributes
    motions = [row["motion"] for row in rows if row["motion"] is not None]
    assert (numbers["rows"], numbers["values"]["motion"]["rows"]) == (len(rows), len(motions))
    assert numbers["values"]["motion"]["max"] == max(motions)
    kept = [row["sample_id"] for row in rows if row["status"] == "kept"]
    assert kept
    assert all(name in page.sections["Kept"] for name in kept)
    assert "no picture" not in page.sections["Kept"]
    assert "1 rows, at stage" in page.sections["Dropped: video cannot be read"]


def test_tuning_of_motion_equals_a_run_of_its_own(finished, tmp_path):
    motions = sorted(row["motion"] for row in rows_of(finished) if row["status"] == "kept")
    floor = (motions[0] + motions[-1]) / 2
    result = tune(finished, {"motion.floor": floor})
    run(config_of(finished.parent / "videos", floor=floor), tmp_path / "fresh")
    fresh = rows_of(tmp_path / "fresh")
    assert result.after["kept"] == sum(row["status"] == "kept" for row in fresh) < result.before["kept"]
    assert result.reasons["motion", "clip hardly moves"][1] == sum(
        row["drop_reason"] == "clip hardly moves" for row in fresh
    )
    looser = tune(finished, {"motion.floor": None})
    assert looser.unmeasured == looser.crossed["dropped", "kept"] > 0


def test_a_clip_is_explained_with_a_frame(finished, tmp_path):
    row = next(row for row in rows_of(finished) if row["status"] == "kept")
    explanation = explain(finished, row["sample_id"])
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(as_table(explanation))
    text = console.export_text()
    assert f"{row['motion']:.5g}" in text
    assert row["caption"] in text
    with Image.open(write_figure(finished, explanation, tmp_path / "clip.png")) as image:
        assert image.width > 1000
    # the clips of a video share the beginning of their ids
    with pytest.raises(InputError, match="samples have an id that begins with"):
        explain(finished, row["sample_id"].partition("-")[0])
