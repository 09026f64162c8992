# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Questions and answers without a server: keys, what can be read, how fast to ask, how small a picture gets."""

import numpy as np
import pytest

from turingvit_hf.curation.models.answers import Answer, Failure, Question, key_of, read_answer
from turingvit_hf.curation.models.chat_client import EndpointChat
from turingvit_hf.curation.models.pacing import Pace
from turingvit_hf.curation.models.pictures import shrink, to_data_url
from turingvit_hf.curation.models.requests import retry_after_of
from turingvit_hf.curation.prompts import Verdict
from turingvit_hf.errors import InputError


def image_of(seed: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("value", "low", "high"), [("2", 2, 2), ("Wed, 21 Oct 2099 07:28:00 GMT", 1e9, 1e10)])
def test_retry_after_is_seconds_or_a_date(value, low, high):
    error = type("Error", (Exception,), {"response": type("Response", (), {"headers": {"retry-after": value}})})()
    assert low <= retry_after_of(error) <= high


@pytest.mark.parametrize("value", ["soon", "nan", "inf", ""])
def test_a_retry_after_that_makes_no_sense_is_none(value):
    error = type("Error", (Exception,), {"response": type("Response", (), {"headers": {"retry-after": value}})})()
    assert retry_after_of(error) is None


@pytest.mark.parametrize(
    "change",
    [{"image_hash": "other"}, {"prompt": "other"}, {"schema": Verdict}],
    ids=str,
)
def test_the_key_names_all_of_a_question(change):
    model = EndpointChat("m", "http://localhost/v1")
    values = {"prompt": "Describe it.", "images": (image_of(0),), "image_hash": "hash0", "schema": None}
    assert key_of(model, Question(**values)) != key_of(model, Question(**values | change))


@pytest.mark.parametrize(
    "change", [{"temperature": 1.0}, {"seed": 3}, {"max_pixels": 99}, {"revision": "r2"}], ids=str
)
def test_the_key_names_all_of_a_model(change):
    question = Question("Describe it.", (image_of(0),), "hash0")
    model, other = EndpointChat("m", "http://a/v1"), EndpointChat("m", "http://a/v1", **change)
    assert key_of(model, question) != key_of(other, question)
    assert key_of(model, question) == key_of(EndpointChat("m", "http://b/v1", concurrency=2), question)


def test_without_a_hash_the_pixels_are_the_image():
    model = EndpointChat("m", "http://a/v1")
    first, same, other = (key_of(model, Question("a", (image_of(seed),))) for seed in (0, 0, 1))
    assert first == same != other


def test_a_pace_spreads_what_it_hands_out():
    now = [0.0]
    pace = Pace(60, clock=lambda: now[0])
    assert [pace.reserve(), pace.reserve(), pace.reserve(2), pace.reserve()] == [0, 1, 2, 4]
    pace.correct(-1)
    assert pace.reserve() == 4
    now[0] = 100.0
    assert pace.reserve() == 0
    pace.pause(3)
    now[0] = 102.0
    assert pace.paused_for() == 1
    now[0] = 104.0
    assert pace.paused_for() == 0
    assert Pace(None).reserve(1e9) == 0


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (3, 3), (50, 50)])
def test_a_picture_keeps_its_limit_and_both_its_sides(size):
    picture = shrink(np.zeros((*size, 3), np.uint8), 100)
    assert picture.width * picture.height <= 100
    assert min(picture.size) >= 1
    assert to_data_url(np.zeros((*size, 3), np.uint8), max_pixels=100, quality=90).startswith(
        "data:image/jpeg;base64,"
    )


@pytest.mark.parametrize("thoughts", ["<think>A dog?</think>", "A dog? Yes.\n</think>\n\n"])
def test_thoughts_are_no_part_of_an_answer(thoughts):
    """Templates of some models begin them, so that their answers only end them."""
    assert read_answer(Answer(f"{thoughts} A boat.", "stop"), Question("a")).text == "A boat."


def test_thoughts_that_do_not_end_are_no_answer():
    assert read_answer(Answer("<think>A dog?", "stop"), Question("a")).failure.kind == "empty"


def test_braces_without_end_are_no_json():
    answer = read_answer(Answer('{"a":' * 5000, "stop"), Question("a", schema=Verdict))
    assert answer.failure.kind == "not JSON"


@pytest.mark.parametrize(
    "frame", ["%s", "```json\n%s\n```", "Here it is: %s Anything else?", "<think>{a}</think>\n%s"]
)
def test_json_with_words_around_it_is_json(frame):
    text = frame % '{"grounded": false, "hallucinated_phrases": ["a cat"], "quality": 2}'
    answer = read_answer(Answer(text, "stop"), Question("a", schema=Verdict))
    assert answer.value == Verdict(grounded=False, hallucinated_phrases=["a cat"], quality=2)


@pytest.mark.parametrize("text", ["Sorry sign on a door.", "I can see a dog.", "An apology."])
def test_a_caption_is_no_refusal(text):
    assert read_answer(Answer(text, "stop"), Question("a")).failure is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"concurrency": 0}, "concurrency must be more than 0, not 0"),
        ({"max_pixels": -1}, "max_pixels must be more than 0, not -1"),
        ({"requests_per_minute": 0}, "requests_per_minute must be more than 0"),
        ({"base_url": "localhost:8000"}, "base_url must start with http"),
    ],
)
def test_bad_options_are_refused(changes, text):
    with pytest.raises(InputError, match=text):
        EndpointChat(**{"model": "m", "base_url": "http://a/v1"} | changes)


def test_half_a_surrogate_pair_in_an_answer_can_be_written():
    """As JSON's escapes leave it of an emoji that was cut."""
    text = '{"grounded": false, "hallucinated_phrases": ["a \\ud83d"], "quality": 3}'
    assert read_answer(Answer(text=text), Question("?", schema=Verdict)).value.hallucinated_phrases == ["a \ufffd"]
    assert read_answer(Answer(text="A dog \ud83d"), Question("?")).text == "A dog \ufffd"
    failed = Answer(failure=Failure("refused", "no \ud83d", passing=False))
    assert read_answer(failed, Question("?")).failure.detail == "no \ufffd"
