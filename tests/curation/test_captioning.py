# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Captions, verdicts, fusion and judgment by models behind an endpoint: the steps, and what becomes of faults."""

import json
import pickle
from typing import ClassVar

import numpy as np
import pytest
from datasets import Dataset

from tests.curation.fault_server import FaultServer
from turingvit_hf.curation.decisions import CaptionThresholds
from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.models.answers import Answer
from turingvit_hf.curation.models.captioners import clean_caption
from turingvit_hf.curation.models.fusers import Fuser, Judge, caption_clips, caption_frames
from turingvit_hf.curation.models.registry import build
from turingvit_hf.curation.models.verifiers import Verifier, merge_verdicts
from turingvit_hf.curation.prompts import MAX_WORDS, STYLES, Verdict, VideoScores, caption_prompt, prompt_hash
from turingvit_hf.curation.steps.captions import CaptionStep
from turingvit_hf.curation.steps.verification import NOT_VERIFIED, VerificationStep
from turingvit_hf.curation.text import FEW_NOUNS, TOO_MANY_WORDS


for package in ("openai", "tenacity", "textblob"):
    pytest.importorskip(package)

LONG = "a dog and a cat and a kite and a boat and a tree and a lamp and a stone and a bird and a chair"


def pictures(number: int) -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8) for index in range(number)]


def spec(server: FaultServer, model: str = "captioner", **options) -> dict:
    quick = {"max_wait": 0.1, "timeout": 60, "max_retries": 1}
    return {"kind": "endpoint", "model": model, "base_url": server.base_url, **quick, **options}


def batch_of(number: int, raw: str | None = "a raw caption") -> dict:
    return {
        "image": pictures(number),
        "raw_caption": [raw] * number,
        "sha256": [f"hash{index}" for index in range(number)],
    }


@pytest.fixture
def server():
    with FaultServer() as running:
        yield running


def test_candidates_are_the_raw_caption_and_one_of_each_style(server):
    step = CaptionStep(captioners=[spec(server, revision="r1", seed=4)])
    batch = batch_of(2)
    made = step(batch)
    assert made["error"] == [None, None]
    assert made["caption_failures"] == [[], []]
    for row in made["candidates"]:
        assert [candidate["origin"] for candidate in row] == ["raw", *["model"] * 5]
        assert [candidate["style"] for candidate in row] == [None, *STYLES]
        assert len({frozenset(candidate) for candidate in row}) == 1  # all have the same fields, as Parquet wants it
        model = row[1]
        assert (model["captioner"], model["captioner_revision"], model["seed"]) == ("captioner", "r1", 4)
        assert model["prompt_hash"] == prompt_hash(caption_prompt("creative"))
        assert (model["finish_reason"], model["prompt_tokens"], model["completion_tokens"]) == ("stop", 100, 10)
        assert 0 < model["num_words"] <= MAX_WORDS
        assert model["flags"] == []
    assert [usage["num_calls"] for usage in made["caption_usage"]] == [5, 5]
    assert len(server.requests) == 10


def test_the_prompts_are_those_of_the_figure():
    assert len(STYLES) == 5
    for style in STYLES:
        prompt = caption_prompt(style)
        assert "no more than 20 words" in prompt
        assert "more than 30% of them nouns" in prompt
        assert STYLES[style] in prompt
    assert "the weather" in caption_prompt("the weather")


def test_several_captioners_and_raw_captions_are_all_candidates(server):
    step = CaptionStep(captioners=[spec(server, "one"), spec(server, "two")], styles=("overall", "layout"))
    batch = batch_of(1)
    batch["raw_caption"] = [["first", "second", " ", "first", None]]
    row = step(batch)["candidates"][0]
    assert [candidate["text"] for candidate in row[:2]] == ["first", "second"]
    assert [(candidate["captioner"], candidate["style"]) for candidate in row[2:]] == [
        ("one", "overall"),
        ("one", "layout"),
        ("two", "overall"),
        ("two", "layout"),
    ]


def test_without_a_captioner_raw_captions_are_the_only_candidates():
    made = CaptionStep()({"raw_caption": ["a dog", None]})
    assert [[candidate["text"] for candidate in row] for row in made["candidates"]] == [["a dog"], []]
    assert made["caption_usage"] == [{}, {}]
    assert CaptionStep(use_raw=False)({"raw_caption": ["a dog"]})["candidates"] == [[]]


def test_a_row_without_an_image_is_not_asked_about(server):
    batch = batch_of(2)
    batch["image"][0] = None
    made = CaptionStep(captioners=[spec(server)])(batch)
    assert [len(row) for row in made["candidates"]] == [1, 6]
    assert made["error"] == [None, None]


@pytest.mark.parametrize(("fault", "kind"), [("500", "server error"), ("time-out", "time-out")])
def test_a_fault_that_passes_makes_the_row_an_error_and_a_retry_asks_only_for_what_is_missing(server, fault, kind):
    failing = STYLES["layout"]
    server.fail(fault, times=None, when=lambda request: failing in request.prompt)
    journal = Journal()
    step = CaptionStep(captioners=[spec(server, timeout=2.5 if fault == "time-out" else 60)])
    step.journal = journal
    made = step(batch_of(2))
    assert [len(row) for row in made["candidates"]] == [5, 5]
    assert all(error.startswith(f"captioner: 1 answers are missing; {kind}") for error in made["error"])
    assert [failure["style"] for failures in made["caption_failures"] for failure in failures] == ["layout"] * 2
    server.heal()
    num_before = len(server.requests)
    again = step(batch_of(2))
    assert again["error"] == [None, None]
    assert [len(row) for row in again["candidates"]] == [6, 6]
    assert len(server.requests) - num_before == 2
    with FaultServer() as untroubled:
        expected = CaptionStep(captioners=[spec(untroubled)])(batch_of(2))["candidates"]
    assert without_latency(again["candidates"]) == without_latency(expected)


def without_latency(rows: list[list[dict]]) -> list[list[dict]]:
    return [[{**candidate, "latency": None} for candidate in row] for row in rows]


@pytest.mark.parametrize(
    ("fault", "kind"), [("refusal", "refused"), ("empty", "empty"), ("length", "cut short"), ("400", "rejected")]
)
def test_an_answer_that_never_comes_is_counted_and_the_row_goes_on_with_the_others(server, fault, kind):
    server.fail(fault, times=None, when=lambda request: STYLES["creative"] in request.prompt)
    made = CaptionStep(captioners=[spec(server)])(batch_of(1))
    assert made["error"] == [None]
    assert len(made["candidates"][0]) == 5
    failure = made["caption_failures"][0][0]
    assert (failure["kind"], failure["style"], failure["passing"]) == (kind, "creative", False)
    assert made["caption_usage"][0]["num_failures"] == 1


def test_a_captioner_that_gives_nothing_usable_is_an_error(server):
    server.fail("refusal", times=None)
    made = CaptionStep(captioners=[spec(server)])(batch_of(1))
    assert made["error"] == ["captioner: 5 answers are missing; refused: it is a refusal: 'I will not look at this.'"]
    assert [candidate["origin"] for candidate in made["candidates"][0]] == ["raw"]


def test_a_caption_that_breaks_a_limit_gets_one_more_try():
    def answer(prompt, images):
        return "A dog on a boat." if "Your last caption was" in prompt else LONG

    with FaultServer(answer) as server:
        made = CaptionStep(captioners=[spec(server)], styles=("overall",), use_raw=False)(batch_of(1))
        assert len(server.requests) == 2
        assert "and 20 are allowed" in server.requests[1].prompt
    candidate = made["candidates"][0][0]
    assert (candidate["text"], candidate["flags"]) == ("A dog on a boat.", [])
    assert made["caption_usage"][0]["num_calls"] == 2


def test_a_caption_that_breaks_it_again_is_flagged_and_kept():
    with FaultServer(lambda prompt, images: LONG if "layout" in prompt else "it is so") as server:
        step = CaptionStep(captioners=[spec(server)], styles=("layout", "overall"), use_raw=False)
        long, poor = step(batch_of(1))["candidates"][0]
    assert long["flags"] == [TOO_MANY_WORDS]
    assert poor["flags"] == [FEW_NOUNS]
    assert long["num_words"] > 20


def test_the_thresholds_of_the_run_decide_what_gets_one_more_try():
    with FaultServer(lambda prompt, images: "a dog runs") as server:
        thresholds = CaptionThresholds(max_words=2, min_noun_ratio=None)
        step = CaptionStep(captioners=[spec(server)], styles=("overall",), thresholds=thresholds)
        assert step(batch_of(1))["candidates"][0][1]["flags"] == [TOO_MANY_WORDS]
        assert "no more than 2 words" in server.requests[0].prompt


def test_a_second_try_that_fails_in_passing_is_mended_by_a_retry():
    def answer(prompt, images):
        return "A dog on a boat." if "Your last caption was" in prompt else LONG

    with FaultServer(answer) as server:
        server.fail("500", times=None, when=lambda request: "Your last caption was" in request.prompt)
        step = CaptionStep(captioners=[spec(server)], styles=("overall",), use_raw=False)
        assert step(batch_of(1))["error"] != [None]
        server.heal()
        made = step(batch_of(1))
        assert made["error"] == [None]
        assert made["candidates"][0][0]["text"] == "A dog on a boat."


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ('"A dog on a boat."', "A dog on a boat."),
        ("Caption: A dog\non a boat.", "A dog on a boat."),
        ("**Caption:** A dog.", "A dog."),
        ('*Caption*: "A dog."', "A dog."),
        ('A "dog" on a "boat"', 'A "dog" on a "boat"'),
        ('"dog" on a "boat"', '"dog" on a "boat"'),
        ("<b>A dog</b> & <script>alert(1)</script>", "<b>A dog</b> & <script>alert(1)</script>"),
        ("Captions on a wall: one", "Captions on a wall: one"),
    ],
)
def test_an_answer_becomes_a_caption(answer, caption):
    assert clean_caption(answer) == caption


def test_html_in_captions_comes_through_all_steps():
    html = '<img src=x onerror="alert(1)"> a dog & a "kite"'
    with FaultServer(lambda prompt, images: html) as server:
        step = CaptionStep(captioners=[spec(server)], styles=("overall",))
        texts = [candidate["text"] for candidate in step(batch_of(1, raw=html))["candidates"][0]]
    assert texts == [html, html]


def test_steps_run_in_datasets_map_and_in_other_processes(server):
    table = Dataset.from_dict({"image": [image.tolist() for image in pictures(2)], "raw_caption": ["a", "b"]})
    step = pickle.loads(pickle.dumps(CaptionStep(captioners=[spec(server)], styles=("overall",))))

    def called(batch):
        return step(batch | {"image": [np.asarray(image, np.uint8) for image in batch["image"]]})

    made = table.map(called, batched=True, remove_columns=table.column_names)
    assert [len(row) for row in made["candidates"]] == [2, 2]


def verified(server: FaultServer, *models: str, **options) -> dict:
    batch = CaptionStep()(batch_of(1)) | batch_of(1)
    step = VerificationStep(verifiers=[spec(server, model) for model in models or ("verifier",)], **options)
    return step(batch)


def test_a_verdict_is_kept_as_it_was_given(server):
    made = verified(server)
    candidate = made["candidates"][0][0]
    assert candidate["verdict"]["grounded"] is True
    assert candidate["verifier"] == "verifier"
    assert candidate["verdicts"][0]["verifier"] == "verifier"
    assert (made["error"], made["verification_usage"][0]["num_calls"]) == ([None], 1)
    assert "a raw caption" in server.requests[0].prompt


def test_several_verifiers_agree_or_they_do_not():
    def answer(prompt, images):
        return json.dumps({"grounded": bool(turns.pop()), "hallucinated_phrases": ["a cat"], "quality": 4})

    turns = [True, False]
    with FaultServer(answer) as server:
        candidate = verified(server, "one", "two")["candidates"][0][0]
    assert candidate["verdict"] == {"grounded": False, "hallucinated_phrases": ["a cat"], "quality": 4}
    assert [verdict["grounded"] for verdict in candidate["verdicts"]] == [False, True]
    assert candidate["verifier"] == "one + two"


def test_verdicts_are_merged_with_care():
    first = Verdict(grounded=True, hallucinated_phrases=["a cat"], quality=5)
    second = Verdict(grounded=True, hallucinated_phrases=["a hat", "a cat"], quality=2)
    merged = {"grounded": True, "hallucinated_phrases": ["a cat", "a hat"], "quality": 2}
    assert merge_verdicts([first, second]) == merged


@pytest.mark.parametrize("fault", ["truncated json", "wrong schema", "refusal", "empty", "500", "connection reset"])
def test_a_verdict_that_never_comes_is_an_error_and_one_that_comes_late_is_not(server, fault):
    server.fail(fault, times=None)
    made = verified(server)
    candidate = made["candidates"][0][0]
    assert (candidate["verdict"], candidate["verifier"]) == (None, None)
    assert candidate["flags"] == [NOT_VERIFIED]
    assert made["error"][0].startswith("verifier: 1 answers are missing")
    server.heal()
    server.fail(fault, times=1, when=lambda request: "could not be used" not in request.prompt)
    assert verified(server)["error"] == [None]


def test_raw_captions_are_verified_only_where_wanted(server):
    made = verified(server, verify_raw=False)
    assert server.requests == []
    assert made["error"] == [None]
    assert "verdict" not in made["candidates"][0][0]


def test_captions_of_frames_and_clips_are_fused_and_judged(server):
    model, journal = build("captioner", spec(server)), Journal()
    clips, hashes = [pictures(3), pictures(2)], ["clip0", "clip1"]
    frames = caption_frames(model, clips, hashes, journal)
    wholes = caption_clips(model, clips, hashes, journal)
    assert [len(answers) for answers in frames] == [3, 2]
    assert len(server.requests[-1].images) in (2, 3)
    texts = [[answer.text for answer in answers] for answers in frames]
    fused = Fuser(build("fuser", spec(server))).fuse([answer.text for answer in wholes], texts, journal)
    assert texts[0][2] in server.requests[-1].prompt + server.requests[-2].prompt
    assert server.requests[-1].images == []
    judged = Judge(build("judge", spec(server))).judge(clips, hashes, [answer.text for answer in fused], journal)
    assert all(isinstance(answer.value, VideoScores) for answer in judged)
    assert len(journal) == 5 + 2 + 2 + 2
    num_before = len(server.requests)
    assert all(answer.recorded for answer in caption_clips(model, clips, hashes, journal))
    assert len(server.requests) == num_before


class PixelReader:
    """Says what gray its pictures have, and that it is grounded."""

    name = model = "pixels"
    revision = None
    parameters: ClassVar[dict] = {}

    def answer(self, questions, done):
        for index, question in enumerate(questions):
            grays = [int(image[0, 0, 0]) for image in question.images]
            verdict = json.dumps({"grounded": min(grays) > 0, "hallucinated_phrases": [], "quality": 3})
            done(index, Answer(text=verdict if question.schema else f"Gray {grays}", finish_reason="stop"))


def test_answers_about_other_frames_of_a_clip_are_not_taken_out_of_the_journal():
    """As where `caption.num_frames` changes: the second of two frames is another one than the second of four."""
    frames = [np.full((16, 16, 3), gray, np.uint8) for gray in (0, 50, 100, 150)]
    journal, model = Journal(), PixelReader()
    for chosen in (frames, frames[1::2], frames):
        (answers,) = caption_frames(model, [chosen], ["clip"], journal)
        assert [answer.text for answer in answers] == [f"Gray [{frame[0, 0, 0]}]" for frame in chosen]
        (verdict,) = Verifier(model).verify([tuple(chosen)], ["clip"], ["A caption."], journal)
        assert verdict.value.grounded == (len(chosen) == 2)
    assert all(answer.recorded for answer in answers)
    assert verdict.recorded
