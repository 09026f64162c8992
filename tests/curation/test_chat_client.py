# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The client of endpoints: no fault loses a question, no answer is asked for twice, limits are kept."""

import asyncio
import hashlib
import io
import json
import pickle
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests.curation.fault_server import FaultServer, default_answer
from tests.processes import PATIENCE
from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.models.answers import Answer, Question, ask, usage_of
from turingvit_hf.curation.models.chat_client import EndpointChat
from turingvit_hf.curation.prompts import Verdict, verification_prompt
from turingvit_hf.errors import InputError


pytest.importorskip("openai")

QUICK = {"max_wait": 0.2, "timeout": 60, "max_retries": 2}


def image_of(seed: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def questions_of(number: int, schema: type | None = None) -> list[Question]:
    text = verification_prompt("A dog.") if schema else "Describe it."
    return [Question(text, (image_of(seed),), f"hash{seed}", schema) for seed in range(number)]


def client_of(server: FaultServer, **changes) -> EndpointChat:
    return EndpointChat("m", server.base_url, **QUICK | changes)


@pytest.fixture
def server():
    with FaultServer() as running:
        yield running


def patience(fault: str) -> dict[str, float]:
    """As short a time as a busy machine allows where a time-out is waited for."""
    return {"timeout": 2.5} if fault == "time-out" else {}


PASSING = {
    "429": "rate limit",
    "500": "server error",
    "503 with html": "server error",
    "time-out": "time-out",
    "connection reset": "connection",
    "cut body": "connection",
    "no choices": "bad response",
}
LASTING = {
    "400": "rejected",
    "refusal": "refused",
    "refusal in words": "refused",
    "empty": "empty",
    "length": "cut short",
}
LASTING_FOR_JSON = {"truncated json": "not JSON", "wrong schema": "wrong schema"}


@pytest.mark.parametrize("fault", PASSING)
def test_what_fails_once_in_passing_is_answered_at_the_second_try(server, fault):
    server.fail(fault, times=1)
    answers = ask(client_of(server, **patience(fault)), questions_of(3), Journal())
    assert [answer.failure for answer in answers] == [None] * 3
    assert [answer.num_tries for answer in answers] == [2] * 3
    assert set(server.counts.values()) == {2}


@pytest.mark.parametrize("fault", PASSING)
def test_what_fails_for_good_is_an_error_that_a_retry_may_mend(server, fault):
    server.fail(fault, times=None, when=lambda request: request.prompt == "Describe this one.")
    journal = Journal()
    questions = [*questions_of(2), Question("Describe this one.", (image_of(9),))]
    first, second, third = ask(client_of(server, **patience(fault)), questions, journal)
    assert first.failure is None
    assert second.failure is None
    assert third.failure.kind == PASSING[fault]
    assert third.failure.passing
    assert third.num_tries == 3
    assert len(journal) == 2

    server.heal()
    before = server.counts
    again = ask(client_of(server), questions, journal)
    assert [answer.failure for answer in again] == [None] * 3
    assert [answer.recorded for answer in again] == [True, True, False]
    assert sum((server.counts - before).values()) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"choices": "none"},
        {"choices": ["A dog."]},
        {"choices": [{"index": 0}]},
        {"choices": [{"message": "A dog."}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": {"0": {}}},
        [1],
        None,
        {"error": {"message": "model is overloaded"}},
    ],
    ids=json.dumps,
)
def test_a_response_of_another_shape_is_a_failure_of_its_question_alone(server, body):
    server.replace(body, when=lambda request: request.prompt == "Describe this one.")
    questions = [*questions_of(1), Question("Describe this one.", (image_of(9),))]
    sound, odd = ask(client_of(server, max_retries=0), questions, Journal())
    assert sound.failure is None
    assert odd.failure.kind == "bad response"
    assert odd.failure.passing
    assert "overloaded" in odd.failure.detail or "error" not in str(body)


@pytest.mark.parametrize("usage", ["many", {"prompt_tokens": "12", "completion_tokens": 3.5}, None], ids=json.dumps)
def test_an_answer_in_parts_and_tokens_that_are_not_counted_do_no_harm(server, usage):
    content = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "A dog."}]
    server.replace({"choices": [{"message": {"content": content}}], "usage": usage})
    (answer,) = ask(client_of(server), questions_of(1), Journal())
    assert (answer.text, answer.failure, answer.prompt_tokens, answer.completion_tokens) == ("A dog.", None, 0, 0)


@pytest.mark.parametrize("fault", LASTING | LASTING_FOR_JSON)
def test_an_answer_that_cannot_be_used_for_good_is_counted_with_its_kind(server, fault):
    server.fail(fault, times=None)
    journal = Journal()
    schema = Verdict if fault in LASTING_FOR_JSON else None
    answers = ask(client_of(server), questions_of(2, schema), journal)
    assert {answer.failure.kind for answer in answers} == {(LASTING | LASTING_FOR_JSON)[fault]}
    assert not any(answer.failure.passing for answer in answers)
    # one more try, with another text; what the server rejects it would reject again
    assert len(server.requests) == (2 if fault == "400" else 4)
    assert len(journal) == 0
    assert usage_of(answers)["num_failures"] == 2


@pytest.mark.parametrize("fault", [fault for fault in LASTING | LASTING_FOR_JSON if fault != "400"])
def test_an_answer_that_cannot_be_used_once_gets_one_more_try_that_says_why(server, fault):
    schema = Verdict if fault in LASTING_FOR_JSON else None
    question = questions_of(1, schema)[0]
    server.fail(fault, when=lambda request: request.prompt == question.prompt)
    journal = Journal()
    answer = ask(client_of(server), [question], journal)[0]
    assert answer.failure is None
    assert answer.num_tries == 2
    assert (answer.prompt_tokens, answer.completion_tokens) == (200, 20)
    assert "could not be used" in server.requests[1].prompt
    # and it is the answer to the question as it was
    assert ask(client_of(server), [question], journal)[0].recorded
    assert len(server.requests) == 2


def test_what_the_server_asks_to_wait_is_waited_for_by_all(server):
    server.fail("429", times=1, when=lambda request: "first" in request.prompt, retry_after="1")
    questions = [Question("first"), *(Question(f"later {number}") for number in range(3))]
    answers = ask(client_of(server, max_wait=2, concurrency=1), questions, Journal())
    assert all(answer.failure is None for answer in answers)
    assert server.requests[1].started - server.requests[0].started >= 1


def test_a_wait_that_is_too_long_ends_the_tries(server):
    server.fail("429", times=None, retry_after="3600")
    answer = ask(client_of(server), [Question("a")], Journal())[0]
    assert answer.failure.kind == "rate limit"
    assert answer.failure.passing
    assert len(server.requests) == 1


@pytest.mark.parametrize(("fault", "hint"), [("401", "answers 401"), ("404", "does it serve the model 'm'")])
def test_what_no_question_would_get_past_ends_the_run(server, fault, hint):
    server.fail(fault, times=None)
    with pytest.raises(InputError, match=hint):
        ask(client_of(server), questions_of(2), Journal())


def test_an_endpoint_that_is_down_for_good_ends_the_run_and_what_was_answered_is_kept(server):
    server.fail("500", times=None, when=lambda request: request.prompt.startswith("bad"))
    journal = Journal()
    questions = [*(Question(f"good {number}") for number in range(3)), *(Question(f"bad {i}") for i in range(40))]
    client = client_of(server, give_up_after=5, concurrency=1, max_retries=0)
    with pytest.raises(InputError, match="answered none of the last 5 questions, each tried up to 1 times"):
        ask(client, questions, journal)
    assert len(journal) == 3
    assert len(server.requests) == 8


def test_nobody_there_is_a_failed_connection():
    client = EndpointChat("m", "http://127.0.0.1:9/v1", **QUICK)
    assert ask(client, [Question("a")], Journal())[0].failure.kind == "connection"


def test_an_answer_that_is_recorded_is_never_asked_for(server, tmp_path):
    questions = questions_of(4, Verdict)
    first = ask(client_of(server), questions, Journal(tmp_path / "calls.jsonl"))
    # on another port, after a restart
    with FaultServer() as other:
        second = ask(client_of(other), questions, Journal(tmp_path / "calls.jsonl"))
        assert other.requests == []
    assert [answer.value for answer in second] == [answer.value for answer in first]
    assert all(answer.recorded for answer in second)
    assert usage_of(second)["num_calls"] == 0


def test_answers_are_on_disk_one_by_one(server, tmp_path):
    server.fail("401", when=lambda request: request.prompt == "last")
    journal = tmp_path / "calls.jsonl"
    with pytest.raises(InputError):
        ask(client_of(server, concurrency=1), [Question("first"), Question("last")], Journal(journal))
    assert len(journal.read_text().splitlines()) == 1


def test_equal_questions_are_asked_once(server):
    question = questions_of(1)[0]
    answers = ask(client_of(server), [question] * 5, Journal())
    assert len(server.requests) == 1
    assert len({answer.text for answer in answers}) == 1
    usage = usage_of(answers)
    assert (usage["num_calls"], usage["num_recorded"], usage["prompt_tokens"]) == (1, 4, 100)


def test_no_more_requests_are_under_way_than_allowed():
    three = threading.Barrier(3, timeout=PATIENCE)

    def answer(prompt, images):
        three.wait()  # passed only if three are under way at the same time
        return default_answer(prompt, images)

    with FaultServer(answer, seconds=0.05) as server:
        ask(client_of(server, concurrency=3), questions_of(12), Journal())
        assert server.max_active == 3


def test_questions_about_one_image_follow_each_other():
    with FaultServer() as server:
        questions = [Question(f"style {style}", (image_of(seed),)) for seed in range(3) for style in range(5)]
        ask(client_of(server, concurrency=1), questions, Journal())
        hashes = [hashlib.sha256(request.images[0]).hexdigest() for request in server.requests]
    assert len(set(hashes)) == 3
    assert [len(set(hashes[start : start + 5])) for start in (0, 5, 10)] == [1, 1, 1]
    parts = server.requests[0].body["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]  # what is common comes first


def test_requests_per_minute_are_kept(server):
    began = time.monotonic()
    ask(client_of(server, requests_per_minute=480), questions_of(9), Journal())
    assert server.requests[-1].started - began >= 8 * 60 / 480


def test_tokens_per_minute_are_kept(server):
    # 110 tokens an answer by the server's count, whatever was expected
    client = client_of(server, tokens_per_minute=33_000, max_tokens=10, concurrency=1)
    began = time.monotonic()
    ask(client, questions_of(6), Journal())
    assert server.requests[-1].started - began >= 5 * 60 * 110 / 33_000


def test_images_are_made_small_here_and_sent_as_jpeg(server):
    image = np.full((600, 1000, 3), 77, np.uint8)
    ask(client_of(server, max_pixels=15_000), [Question("a", (image,))], Journal())
    with Image.open(io.BytesIO(server.requests[0].images[0])) as sent:
        assert sent.format == "JPEG"
        assert sent.size == (158, 94)
        assert abs(np.asarray(sent).astype(int) - 77).max() <= 1


def test_a_schema_is_sent_with_the_question(server):
    answer = ask(client_of(server, seed=5, extra_body={"top_k": 1}), questions_of(1, Verdict), Journal())[0]
    assert answer.value.grounded
    body = server.requests[0].body
    assert body["response_format"]["json_schema"]["schema"] == Verdict.model_json_schema()
    assert (body["model"], body["temperature"], body["seed"], body["top_k"]) == ("m", 0.0, 5, 1)
    ask(client_of(server, temperature=None, max_tokens=None), [Question("a")], Journal())
    assert not {"temperature", "max_tokens", "seed", "response_format"} & server.requests[1].body.keys()


def test_a_server_that_trickles_is_given_up(server):
    server.fail("trickle", times=1)
    started = time.monotonic()
    answer = ask(client_of(server, timeout=2.5), [Question("a")], Journal())[0]
    assert answer.failure is None
    assert answer.num_tries == 2
    assert time.monotonic() - started < 25  # it trickles for 30


def test_a_server_that_rejects_schemas_is_asked_without(server):
    ask(client_of(server, structured=False), questions_of(1, Verdict), Journal())
    assert "response_format" not in server.requests[0].body


def test_html_in_an_answer_comes_through():
    html = '<script>alert("1")</script> & <b>a dog</b> \u202e {{7*7}}'
    with FaultServer(lambda prompt, images: html) as server:
        journal = Journal()
        assert [ask(client_of(server), [Question("a")], journal)[0].text for _ in range(2)] == [html] * 2


def test_usage_and_cost_are_counted(server):
    server.fail("500", times=1)
    answers = ask(client_of(server), questions_of(3), Journal())
    usage = usage_of(answers, prompt_price=2.0, completion_price=10.0)
    assert usage == {
        "num_calls": 6,
        "num_recorded": 0,
        "num_retries": 3,
        "num_failures": 0,
        "prompt_tokens": 300,
        "completion_tokens": 30,
        "cost": pytest.approx((300 * 2 + 30 * 10) / 1e6),
    }


def test_it_works_where_an_event_loop_runs_already(server):
    async def notebook() -> Answer:
        return ask(client_of(server), [Question("a")], Journal())[0]

    assert asyncio.run(notebook()).text == default_answer("a", [])


def test_it_works_in_threads_and_after_pickling(server):
    client = pickle.loads(pickle.dumps(client_of(server, requests_per_minute=1e6)))
    answers = []
    threads = [
        threading.Thread(target=lambda n=n: answers.extend(ask(client, [Question(f"a{n}")], Journal())))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.text for answer in answers} == {default_answer(f"a{number}", []) for number in range(3)}


def test_a_key_comes_from_the_environment_and_goes_nowhere_else(server, monkeypatch, tmp_path):
    client = client_of(server, api_key_variable="MY_KEY")
    with pytest.raises(InputError, match="environment variable MY_KEY"):
        ask(client, [Question("a")], Journal())
    monkeypatch.setenv("MY_KEY", "secret-123")
    ask(client, [Question("a")], Journal(tmp_path / "calls.jsonl"))
    assert "secret-123" not in (tmp_path / "calls.jsonl").read_text() + json.dumps(client.parameters)
