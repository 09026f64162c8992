# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A VLM with random weights as captioner: in this process, and behind `transformers serve`."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.curation import tiny_models
from tests.integrations.test_serving import COMMANDS, needs_server, served
from turingvit_hf.curation.decisions import CaptionThresholds
from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.models.answers import Question, ask
from turingvit_hf.curation.models.local_vlm import LocalVLM
from turingvit_hf.curation.prompts import STYLES
from turingvit_hf.curation.steps.captions import CaptionStep
from turingvit_hf.curation.steps.verification import VerificationStep
from turingvit_hf.errors import InputError


ANY = CaptionThresholds(max_words=None, min_noun_ratio=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny_models.save_vlm(tmp_path_factory.mktemp("vlm") / "vlm"))


def pictures(number: int = 3) -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (20 + 9 * index, 30, 3), dtype=np.uint8) for index in range(number)]


def questions() -> list[Question]:
    first, second, third = pictures()
    return [
        Question("w10 w11", (first,)),
        Question("w9 w12 w13"),
        Question("w20 w21 w22 w23", (second,)),
        Question("w14", (first, second, third)),
        Question("w10", (third,)),
    ]


def expected_text(folder: str, question: Question) -> str:
    """What the model says when it is asked this alone."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    images = [Image.fromarray(image) for image in question.images] or None
    text = f"user {'<image> ' * len(question.images)}{question.prompt} w30"
    inputs = processor(images=images, text=text, return_tensors="pt")
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=60, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    ends = model.generation_config.eos_token_id
    return processor.tokenizer.decode(tokens[:-1] if tokens[-1] in ends else tokens)


def test_answers_are_the_models_own_in_any_batch(folder):
    expected = [expected_text(folder, question) for question in questions()]
    for batch_size in (1, 2, 8):
        model = LocalVLM(folder, device="cpu", max_tokens=60, batch_size=batch_size)
        answers = ask(model, questions(), Journal())
        assert [answer.text for answer in answers] == expected
        assert all(answer.failure is None for answer in answers)
    assert len(set(expected)) > 1


def test_tokens_are_counted_and_an_answer_without_end_is_cut_short(folder):
    answers = ask(LocalVLM(folder, device="cpu", max_tokens=3), questions()[:2], Journal())
    assert {answer.failure.kind for answer in answers} == {"cut short"}
    # the role, 16 tokens of the image, the words, the beginning of the answer
    first = LocalVLM(folder, device="cpu", max_tokens=60)
    collected = []
    first.answer(questions()[:1], lambda index, answer: collected.append(answer))
    assert collected[0].prompt_tokens == 1 + 16 + 2 + 1
    assert collected[0].completion_tokens == len(collected[0].text.split()) + 1


def test_it_answers_alike_in_another_process(folder):
    model = LocalVLM(folder, device="cpu", max_tokens=60)
    before = [answer.text for answer in ask(model, questions(), Journal())]
    assert [answer.text for answer in ask(pickle.loads(pickle.dumps(model)), questions(), Journal())] == before


def test_a_model_that_cannot_write_json_gives_counted_failures(folder):
    step = VerificationStep(verifiers=[{"kind": "local", "model": folder, "device": "cpu", "max_tokens": 60}])
    candidate = {"text": "w10", "origin": "raw", "style": None, "flags": []}
    made = step({"image": pictures(1), "candidates": [[candidate]]})
    assert made["verification_failures"][0][0]["kind"] == "not JSON"
    assert made["error"][0] is not None


def test_a_model_that_is_not_there_or_has_no_chat_template_is_an_error_of_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot load"):
        ask(LocalVLM(str(tmp_path / "missing"), device="cpu"), questions(), Journal())
    tiny_models.save_vlm(tmp_path / "mute", chat_template=None)
    with pytest.raises(InputError, match="no chat template"):
        ask(LocalVLM(str(tmp_path / "mute"), device="cpu"), questions(), Journal())


def candidates_of(step: CaptionStep) -> list[list[str]]:
    """Captions of two plain pictures, which a JPEG leaves as they are."""
    plain = [np.full((24, 24, 3), color, np.uint8) for color in ((250, 20, 20), (0, 0, 0))]
    made = step({"image": plain, "raw_caption": [None, None]})
    assert made["error"] == [None, None]
    return [[candidate["text"] for candidate in row] for row in made["candidates"]]


@needs_server
@pytest.mark.slow
def test_transformers_serve_captions_as_the_model_does_here(folder, tmp_path):
    for package in ("tenacity", "textblob"):
        pytest.importorskip(package)
    local = {"kind": "local", "model": folder, "device": "cpu", "max_tokens": 60}
    expected = candidates_of(CaptionStep(captioners=[local], thresholds=ANY))
    with served(COMMANDS["transformers serve"], folder, tmp_path) as address:
        remote = {"kind": "endpoint", "model": folder, "base_url": f"{address}/v1", "max_tokens": 60, "concurrency": 2}
        step = CaptionStep(captioners=[remote], thresholds=ANY)
        journal = Journal(tmp_path / "calls.jsonl")
        step.journal = journal
        texts = candidates_of(step)
        assert len(journal) == 2 * len(STYLES)
        # it takes no schema and says so in its log; the answer is checked here, and is no verdict
        verifier = VerificationStep(verifiers=[remote | {"max_retries": 0}])
        candidate = {"text": "w10", "origin": "raw", "style": None, "flags": []}
        verdicts = verifier({"image": pictures(1), "candidates": [[candidate]]})
        assert verdicts["verification_failures"][0][0]["kind"] in ("not JSON", "cut short")
    # this server leaves the word in that ended an answer; with real models that is a mark, and gone
    assert [[text.rpartition(" ")[0] for text in row] for row in texts] == expected
    # the server is gone, and the answers are there
    again = CaptionStep(captioners=[remote], thresholds=ANY)
    again.journal = Journal(tmp_path / "calls.jsonl")
    assert candidates_of(again) == texts
