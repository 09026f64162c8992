# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A folder of videos, curated from end to end: cut, measured, captioned, verified, judged, scored, exported, read."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from tests.curation.run_cases import make_config, write_listing
from tests.curation.video_files import encode, noisy, pan, still
from turingvit_hf.curation.config_files import config_from_dict
from turingvit_hf.curation.exports import export
from turingvit_hf.curation.models.answers import Answer
from turingvit_hf.curation.plans import IMAGE_TOKENS, plan
from turingvit_hf.curation.prompts import Verdict, VideoScores
from turingvit_hf.curation.report import charts
from turingvit_hf.curation.report.page import write_report
from turingvit_hf.curation.report.summary import summarize
from turingvit_hf.curation.runs import run, status
from turingvit_hf.curation.stages import STAGES
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.tune import apply, tune
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.sources import open_source
from turingvit_hf.processing.video_files import read_frames


class Critic:
    """Judges and verifies by the caption: one that is about no button is not grounded."""

    name = model = "critic"
    revision, parameters = None, {}

    def answer(self, questions, done):
        for index, question in enumerate(questions):
            if question.schema is Verdict:
                value = {"grounded": "badly" not in question.prompt, "hallucinated_phrases": [], "quality": 4}
            else:
                assert question.schema is VideoScores
                value = dict.fromkeys(("quality", "relevance", "consistency"), 0.8)
            done(index, Answer(json.dumps(value), "stop"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    videos = {
        "moving.mp4": encode([*pan(0, 40, 2), *pan(1, 30, 1)]),
        "still.mp4": encode(still(2, 30)),
        "noise.mp4": encode(noisy(3, 30)),
        "short.mp4": encode(pan(4, 5, 1)),
        "broken.mp4": b"no video",
    }
    for name, content in videos.items():
        (folder / name).write_bytes(content)
    (folder / "copy.mp4").write_bytes(videos["moving.mp4"])
    rows = [{"file_name": name, "caption": f"The camera pans over {name}."} for name in (*videos, "copy.mp4")]
    write_listing(folder, rows)
    return folder


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory):
    critic = {"kind": "tests.curation.test_video_run:Critic"}
    return make_config(
        folder,
        log=tmp_path_factory.mktemp("log") / "asked",
        sources=[{"path": str(folder), "name": "videos", "kind": "video"}],
        shard_size=2,
        cut={"max_seconds": 1.3, "min_seconds": 0.5},
        verify={"verifiers": [critic]},
        judge={"judge": critic},
        # the stand-in's vectors follow from the bytes of a frame: frames of one clip are no more alike than others
        thresholds={"quality": {"min_side": 32}, "consistency": {"low": None}, "motion": {"floor": 0.01}},
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    outcomes = run(config, out)
    return out, outcomes, pq.read_table(out / "rows.parquet").to_pylist()


def test_every_clip_ends_somewhere(finished):
    _, outcomes, rows = finished
    assert outcomes.num_rows == len(rows) == outcomes.num_kept + outcomes.num_dropped + outcomes.num_errors
    ends = sorted((row["key"], row["start_ms"], row["end_ms"], row["status"], row["drop_reason"]) for row in rows)
    # the first by its id is kept, and so are all clips of one file
    kept_file = next(row["key"] for row in rows if row["status"] == "kept")
    other = ({"moving.mp4", "copy.mp4"} - {kept_file}).pop()
    spans = [(0, 833), (833, 1667), (1667, 2917)]
    assert [end for end in ends if end[0] == kept_file] == [(kept_file, *span, "kept", None) for span in spans]
    duplicate = "exact duplicate"
    assert [end for end in ends if end[0] == other] == [(other, *span, "dropped", duplicate) for span in spans]
    reasons = {end[0]: end[4] for end in ends if end[0] not in (kept_file, other)}
    assert reasons == {
        "still.mp4": "clip hardly moves",
        "noise.mp4": "clip hardly moves",
        "short.mp4": "no shot is long enough",
        "broken.mp4": "video cannot be read",
    }
    stages = {row["key"]: row["drop_stage"] for row in rows if row["key"] in reasons}
    assert stages == {"still.mp4": "motion", "noise.mp4": "motion", "short.mp4": "cut", "broken.mp4": "cut"}


def test_what_is_measured_of_clips_is_of_their_own_stages(finished, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    small = ("motion", "resolution is too low")
    tuned = tune(out, {"quality.min_side": 1000})
    assert tuned.reasons[small] == [0, 5]  # all that were cut and are no copies
    run(apply(out, tuned).config, out)
    folder = RunFolder(out)
    summary = summarize(folder.iterate_rows(), folder.config.thresholds)
    assert summary.drops[small] == 5
    assert all(entry.near.startswith("quality.min_side: 96") for entry in summary.borderline)
    names = []
    monkeypatch.setattr(charts, "_png", lambda figure: names.extend(figure.axes[0].get_yticklabels()))
    charts.draw_funnel(summary)
    assert [name.get_text() for name in names] == ["input", "cut", "deduplicate", "motion"]


def test_kept_clips_have_captions_and_scores(finished):
    _, _, rows = finished
    for row in rows:
        if row["status"] == "kept":
            assert row["caption"]
            assert row["judge_mean"] == pytest.approx(0.8)
            assert row["motion"] > 0.01
            assert row["overall"] is not None
            # its own, that of its copy, the clip's and the fused one
            assert row["num_candidates"] == 4
            assert row["verdict_quality"] == 4


def test_a_second_run_does_nothing_and_gives_the_same(finished, config):
    out, _, _ = finished
    before = (out / "rows.parquet").read_bytes()
    run(config, out)
    assert (out / "rows.parquet").read_bytes() == before


def test_clips_are_exported_and_read_by_pretraining(finished, tmp_path):
    out, outcomes, rows = finished
    exported = export(out, tmp_path / "clips")
    assert exported.num_rows == outcomes.num_kept
    source = open_source(SourceRecipe(str(tmp_path / "clips"), kind="video", streaming=False))
    assert len(source.rows) == outcomes.num_kept
    spans = {row["sample_id"]: row for row in rows}
    for index in range(len(source.rows)):
        sample = source.rows[index]
        frames, _ = read_frames(
            sample[source.media_columns[0]] if source.media_columns[0] in sample else sample["mp4"]
        )
        assert len(frames) == spans[sample["sample_id"]]["num_frames"]
        assert sample["txt"] == spans[sample["sample_id"]]["caption"]


def test_what_changes_an_answer_is_done_again_and_nothing_else(config):
    def changed(**values):
        caption = {**config.to_dict()["caption"], **values.pop("caption", {})}
        other = config_from_dict({**config.to_dict(), **values, "caption": caption}, "test")
        return {name for name, stage in STAGES.items() if stage.hash(other) != stage.hash(config)}

    endpoint = {**config.caption.captioners[0], "base_url": "http://other:8000/v1", "prompt_price": 3.0}
    assert changed(caption={"captioners": [endpoint]}) == set()
    assert changed(caption={"captioners": [{**endpoint, "log": "other"}]}) == {"caption"}
    assert changed(caption={"num_frames": 4}) == {"caption", "consistency", "verify", "judge", "embed"}
    scorer = {"kind": "transformers", "model": "other", "device": "cuda"}
    assert changed(embed={"scorer": scorer}) == {"consistency", "embed"}


def test_a_plan_counts_what_is_asked_about_clips(folder):
    one, other, third = ({"model": name, "base_url": "http://localhost:1/v1"} for name in ("one", "other", "third"))
    sources = [{"path": str(folder), "kind": "video"}]
    caption = {"captioners": [one], "num_frames": 3, "tagger": {"kind": "spacy"}}
    values = {"sources": sources, "caption": caption, "verify": {"verifiers": [other]}, "judge": {"judge": other}}
    found = plan(make_config(folder, **values))
    # the frames, the whole and the fusion; of these the last two are candidates, and so is the row's own caption
    assert found.calls == {"captioner one": 6 * 5, "verifier other": 6 * 3, "judge other": 6}
    pictures = 6 * (3 + 3 + 3 * 3 + 3)
    assert pictures * IMAGE_TOKENS < found.tokens[0] < pictures * IMAGE_TOKENS * 1.3
    assert "textblob" not in found.missing
    found = plan(make_config(folder, **{**values, "caption": {**caption, "fuser": third}}))
    assert found.calls == {"captioner one": 6 * 4, "fuser third": 6, "verifier other": 6 * 3, "judge other": 6}


def test_no_clip_is_asked_about_more_often_than_the_plan_says(folder, tmp_path):
    """Videos of one clip each, none of which is dropped."""
    moving = tmp_path / "moving"
    moving.mkdir()
    for seed in (10, 11):
        (moving / f"{seed}.mp4").write_bytes(encode(pan(seed, 30, 1)))
    write_listing(moving, [{"file_name": f"{seed}.mp4", "caption": f"Pan {seed}."} for seed in (10, 11)])
    critic = {"kind": "tests.curation.test_video_run:Critic"}
    config = make_config(
        moving,
        log=tmp_path / "log",
        sources=[{"path": str(moving), "kind": "video"}],
        verify={"verifiers": [critic]},
        judge={"judge": critic},
        thresholds={"quality": {"min_side": 32}, "consistency": {"low": None}},
    )
    assert run(config, tmp_path / "out").num_kept == 2
    asked = {stage["stage"]: stage["usage"].get("num_calls", 0) for stage in status(tmp_path / "out")["stages"]}
    planned = plan(config).calls
    roles = {"caption": "captioner", "verify": "verifier", "judge": "judge"}
    for stage, role in roles.items():
        assert [asked[stage]] == [count for name, count in planned.items() if name.startswith(role)]


def test_plan_and_report_speak_of_clips(finished, config):
    out, _, _ = finished
    text = plan(config).describe()
    assert "cut, deduplicate, motion, consistency, caption, verify, judge, embed, score" in text
    assert "judge: " in text
    page, _ = write_report(out)
    assert "motion against consistency" in page.read_text()
