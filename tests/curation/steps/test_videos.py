# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Videos become clips with measurements, captions and marks; what is broken is a fault of its row alone."""

import json

import numpy as np
import pytest

from tests.curation.video_files import encode, pan, still
from turingvit_hf.curation.models.answers import Answer, Failure
from turingvit_hf.curation.models.scorers import TextEmbeddings
from turingvit_hf.curation.prompts import VideoScores
from turingvit_hf.curation.steps.clip_captions import CaptionClips, EmbedClips, JudgeClips
from turingvit_hf.curation.steps.videos import CutVideos, MeasureConsistency, MeasureMotion, ReadClips


class ColorScorer:
    """Embeds an image by its mean color and a text by the color that it names."""

    name, revision, tau, is_sigmoid = "colors", None, 0.1, False

    def embed_images(self, images):
        return np.stack([_unit(image.mean((0, 1)) / 255) for image in images])

    def embed_texts(self, texts):
        colors = {"red": (1, 0, 0), "blue": (0, 0, 1)}
        vectors = [_unit(next((c for word, c in colors.items() if word in text), (1, 1, 1))) for text in texts]
        return TextEmbeddings(np.stack(vectors), [len(text) > 60 for text in texts])


class Parrot:
    """Answers with what it was asked about, and counts; `broken` prompts fail."""

    revision, parameters = None, {"seed": 0}

    def __init__(self, broken="", name="parrot", price=0.0):
        self.asked, self.broken = [], broken
        self.model = self.name = name
        self.prompt_price = self.completion_price = price

    def answer(self, questions, done):
        for index, question in enumerate(questions):
            self.asked.append(question)
            if self.broken and self.broken in question.prompt:
                done(index, Answer(failure=Failure("time-out", "no response", passing=True)))
            elif question.schema is VideoScores:
                done(index, Answer(json.dumps({"quality": 0.9, "relevance": 0.6, "consistency": 0.6}), "stop"))
            else:
                kind = "fused" if not question.images else "clip" if len(question.images) > 1 else "frame"
                done(index, Answer(f"A red {kind} of {len(question.images)} pictures.", "stop", 10, 5))


def _unit(vector):
    vector = np.asarray(vector, np.float32)
    return (vector / np.linalg.norm(vector)).astype(np.float16)


def red(frames):
    return [np.stack((frame[..., 0], frame[..., 1] // 8, frame[..., 2] // 8), -1) for frame in frames]


@pytest.fixture(scope="module")
def video():
    return encode([*red(pan(0, 40, 2)), *still(5, 36), *pan(6, 6, 1)])


@pytest.fixture
def clips(video):
    """The rows that cutting gives, as columns."""
    found = CutVideos()({"media": [video]})
    chunks = found["chunks"][0]
    batch = {name: [chunk[name] for chunk in chunks] for name in chunks[0]}
    return batch | {"media": [video] * len(chunks)}


def test_videos_are_cut_into_clips(video):
    found = CutVideos(max_seconds=1.0, min_seconds=0.5)({"media": [video]})
    spans = [(chunk["first_frame"], chunk["num_frames"], chunk["shot"]) for chunk in found["chunks"][0]]
    assert spans == [(0, 20, 0), (20, 20, 0), (40, 18, 1), (58, 18, 1)]
    assert found["fault"] == found["error"] == [None]


def test_what_cannot_be_cut_says_why(video, tmp_path):
    media = [video, b"no video", None, str(tmp_path / "none.mp4"), encode(still(0, 5)), b""]
    faults = [None, None, None, None, None, "video is empty"]
    found = CutVideos()({"media": media, "fault": faults, "fault_detail": [None] * 6})
    reasons = [None, "video cannot be read", "row has no video", None, "no shot is long enough", "video is empty"]
    assert found["fault"] == reasons
    assert [bool(error) for error in found["error"]] == [False, False, False, True, False, False]
    assert "0.21 s" in found["fault_detail"][4]


def test_clips_are_read_and_measured(clips):
    frames = ReadClips(num_frames=4)(clips)
    assert [len(clip) for clip in frames["image"]] == [4, 4]
    assert frames["width"] == [128, 128]
    assert len(set(clips["sha256"])) == 2
    motion = MeasureMotion()(clips)
    assert motion["motion"][0] > 0.1 > 1e-3 > motion["motion"][1]
    assert motion["min_side"] == [96, 96]
    consistency = MeasureConsistency(scorer=ColorScorer())(clips | frames)
    assert consistency["adjacent_mean"][1] == pytest.approx(1, abs=1e-3)


def test_a_file_that_went_away_is_an_error_of_its_row(clips, tmp_path):
    clips["media"] = [str(tmp_path / "gone.mp4"), clips["media"][1]]
    for step in (ReadClips(), MeasureMotion()):
        errors = step(clips)["error"]
        assert "cannot read frames" in errors[0]
        assert errors[1] is None


def test_clips_of_a_video_that_was_replaced_are_errors(clips, tmp_path):
    video = tmp_path / "pan.mp4"
    video.write_bytes(clips["media"][0])
    batch = clips | {"media": [str(video), clips["media"][1]]}
    for step in (ReadClips(), MeasureMotion()):
        assert step(batch)["error"] == [None, None]
    video.write_bytes(encode(pan(4, 40, 2)))
    for step in (ReadClips(), MeasureMotion()):
        assert [bool(error) for error in step(batch)["error"]] == [True, False]
        assert "run with --from-stage cut" in step(batch)["error"][0]


def test_small_frames_have_no_motion():
    video = encode([frame[:8, :64].copy() for frame in pan(0, 30, 1)])
    found = MeasureMotion()({"media": [video], "first_frame": [0], "num_frames": [30], "fps": [24.0]})
    assert found["motion"] == [None]
    assert (found["min_side"], found["aspect"]) == ([8], [8.0])


def test_captions_of_clips_are_fused_and_judged(clips):
    parrot = Parrot()
    batch = clips | ReadClips(num_frames=3)(clips) | {"raw_caption": ["a red pan", None]}
    captioned = CaptionClips(captioners=[parrot])(batch)
    assert [[c["text"] for c in row] for row in captioned["candidates"]] == [
        ["a red pan", "A red clip of 3 pictures.", "A red fused of 0 pictures."],
        ["A red clip of 3 pictures.", "A red fused of 0 pictures."],
    ]
    assert [c["style"] for c in captioned["candidates"][1]] == ["clip", "fused"]
    assert captioned["frame_captions"][0] == ["A red frame of 1 pictures."] * 3
    assert len(parrot.asked) == 2 * 3 + 2 + 1  # two equal questions about text alone are asked once
    assert captioned["error"] == [None, None]
    assert captioned["caption_usage"][0]["num_calls"] == 5

    batch |= captioned
    judged = JudgeClips(judge=Parrot())(batch)
    assert (judged["judge_quality"], judged["judge_relevance"]) == ([0.9, 0.9], [0.6, 0.6])
    assert judged["judge_mean"] == [pytest.approx(0.7)] * 2

    embedded = EmbedClips(scorer=ColorScorer())(batch)
    own, other = embedded["candidates"]
    assert own[0]["alignment"] > other[0]["alignment"]  # the first clip is red, the second is not
    assert embedded["image_embedding"][0].dtype == np.float16
    assert [len(row) for row in embedded["candidate_embeddings"]] == [3, 2]
    assert own[0]["entropy"] > 0


def test_captions_that_are_missing_are_errors_and_asked_again_alone(clips):
    batch = clips | ReadClips(num_frames=2)(clips) | {"raw_caption": [None, None]}
    broken = Parrot(broken="one video clip, in order. Write")
    step = CaptionClips(captioners=[broken])
    found = step(batch)
    assert found["candidates"] == [[], []]
    assert all("time-out" in error for error in found["error"])
    asked = len(broken.asked)
    broken.broken = ""
    again = step(batch)
    assert len(broken.asked) == asked + 2 + 1  # the two clips and their fusion, no frame
    assert again["error"] == [None, None]


def test_a_fuser_is_paid_and_blamed_for_its_own_answers(clips):
    batch = clips | ReadClips(num_frames=3)(clips) | {"raw_caption": [None, None]}
    captioner, fuser = Parrot(name="captioner", price=1e6), Parrot(name="fuser", price=1000e6)
    found = CaptionClips(captioners=[captioner], fuser=fuser)(batch)
    assert [candidate["captioner"] for candidate in found["candidates"][0]] == ["captioner", "fuser"]
    # three frames and the whole, and one fusion, of 15 tokens each; that of the second clip is the same question
    assert found["caption_usage"][0]["cost"] == 4 * 15 + 1000 * 15
    assert found["caption_usage"][0]["num_calls"] == 5

    fuser.broken = "Join them"
    failed = CaptionClips(captioners=[captioner], fuser=fuser)(batch)
    assert [failure["model"] for failure in failed["caption_failures"][0]] == ["fuser"]
    assert failed["error"][0].startswith("fuser: ")


def test_a_clip_is_judged_with_its_own_caption_and_not_a_copys(clips):
    own, other, copied = "the first of its own", "another of its own", "that of a copy"
    raw = [{"text": text, "origin": "raw"} for text in (own, other, copied)]
    written = [{"text": text, "origin": "model"} for text in ("of the clip", "fused")]
    parrot = Parrot()
    JudgeClips(judge=parrot)(clips | ReadClips(num_frames=2)(clips) | {"candidates": [raw, raw + written]})
    assert [own in parrot.asked[0].prompt, "fused" in parrot.asked[1].prompt] == [True, True]


def test_a_judge_that_fails_is_an_error(clips):
    batch = clips | ReadClips(num_frames=2)(clips) | {"candidates": [[{"text": "x", "origin": "raw"}], []]}
    found = JudgeClips(judge=Parrot(broken="judged"))(batch)
    assert "time-out" in found["error"][0]
    assert found["error"][1] is None
    assert found["judge_mean"] == [None, None]
