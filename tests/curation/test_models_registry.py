# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Models are found by kind, by dotted path and by entry point; a wrong option is an error that names it."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.models import registry
from turingvit_hf.curation.models.answers import Answer, Question, ask
from turingvit_hf.curation.models.chat_client import EndpointChat
from turingvit_hf.curation.models.detectors import TransformersDetector
from turingvit_hf.curation.models.local_vlm import LocalVLM
from turingvit_hf.curation.models.registry import GROUPS, build, check
from turingvit_hf.curation.models.scorers import TransformersScorer
from turingvit_hf.curation.steps.captions import CaptionStep
from turingvit_hf.curation.taggers import LexiconTagger, SpacyTagger
from turingvit_hf.errors import InputError


class Fixed:
    """A captioner that says one thing, as a plug-in may."""

    revision = "7"

    def __init__(self, model: str, *, says: str = "a dog on a boat"):
        self.name = self.model = model
        self.parameters = {"says": says}

    def answer(self, questions, done):
        for index in range(len(questions)):
            done(index, Answer(self.parameters["says"], "stop"))


ADDRESS = {"model": "m", "base_url": "http://localhost/v1"}


@pytest.mark.parametrize(
    ("role", "spec", "kind"),
    [
        ("captioner", {"kind": "endpoint", **ADDRESS}, EndpointChat),
        ("verifier", ADDRESS, EndpointChat),
        ("fuser", {"model": "m"}, LocalVLM),
        ("judge", {"kind": "local", "model": "m", "max_tokens": 9}, LocalVLM),
        ("scorer", {"model": "m"}, TransformersScorer),
        ("detector", {"kind": "transformers", "model": "m", "min_score": 0.2}, TransformersDetector),
        ("tagger", {"kind": "lexicon"}, LexiconTagger),
        ("tagger", {"kind": "spacy", "model": "en_core_web_sm"}, SpacyTagger),
        ("captioner", {"kind": "tests.curation.test_models_registry:Fixed", "model": "m"}, object),
    ],
)
def test_a_spec_gives_a_model_that_is_not_loaded_yet(role, spec, kind):
    before = dict(spec)
    assert isinstance(build(role, spec), kind)
    assert spec == before


def test_a_model_that_is_built_stays_as_it_is():
    model = Fixed("m")
    assert build("captioner", model) is model


def test_a_plugin_is_found_by_its_entry_point(monkeypatch):
    point = EntryPoint("fixed", "tests.curation.test_models_registry:Fixed", GROUPS["captioner"])
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    model = build("captioner", {"kind": "fixed", "model": "m", "says": "a cat"})
    assert model.parameters == {"says": "a cat"}
    with pytest.raises(InputError, match="no verifier 'fixed'; there are endpoint, local"):
        build("verifier", {"kind": "fixed", "model": "m"})


def test_a_plugin_captions():
    pytest.importorskip("textblob")
    step = CaptionStep(captioners=[Fixed("mine")], styles=("overall",), use_raw=False)
    made = step({"image": [np.zeros((2, 2, 3), np.uint8)], "raw_caption": [None]})
    values = [made["candidates"][0][0][name] for name in ("text", "captioner", "captioner_revision")]
    assert values == ["a dog on a boat", "mine", "7"]


def test_a_plugin_that_leaves_questions_open_is_named():
    class Silent(Fixed):
        def answer(self, questions, done):
            done(0, Answer("a dog", "stop"))

    with pytest.raises(InputError, match="the model 'mine' answered 1 of 2 questions"):
        ask(Silent("mine"), [Question("a"), Question("b")], Journal())


@pytest.mark.parametrize(
    ("role", "spec", "text"),
    [
        ("captioner", {"kind": "endpoint", "model": "m"}, "needs the option 'base_url'"),
        ("captioner", {**ADDRESS, "workers": 3}, "has no option 'workers'; it has model, base_url, name"),
        ("scorer", {"kind": "nothing", "model": "m"}, "no scorer 'nothing'; there are transformers"),
        ("scorer", {"kind": "no.such.module:Scorer"}, "cannot be imported"),
        ("scorer", {"kind": "json:Scorer"}, "cannot be imported"),
        ("painter", {"kind": "x"}, "no role 'painter'"),
        ("captioner", {"kind": 5}, "kind=5 of a captioner must be a text"),
        (
            "captioner",
            {**ADDRESS, "concurrency": "many"},
            "'endpoint': concurrency='many': it must be a valid integer",
        ),
        ("verifier", {**ADDRESS, "max_retries": None}, "max_retries=None: it must be a valid integer"),
        ("fuser", {"model": 5}, "'local': model=5: it must be a valid string"),
        ("detector", {"model": "m", "min_score": "0.5"}, "min_score='0.5': it must be a valid number"),
    ],
)
def test_what_is_wrong_is_named(role, spec, text):
    with pytest.raises(InputError, match=text):
        build(role, spec)


def test_whole_numbers_are_numbers_too():
    assert build("captioner", {**ADDRESS, "timeout": 5, "requests_per_minute": 60}).parameters["max_tokens"] == 256


@pytest.mark.parametrize(
    ("role", "spec", "text"),
    [
        ("captioner", {**ADDRESS, "warmth": 1}, "has no option 'warmth'"),
        ("captioner", {**ADDRESS, "concurrency": 0}, "concurrency must be more than 0"),
        ("judge", {"kind": "nothing"}, "no judge 'nothing'; there are endpoint, local"),
    ],
)
def test_a_check_names_what_is_wrong(role, spec, text):
    with pytest.raises(InputError, match=text):
        check(role, spec)


def test_a_check_imports_no_plugin(monkeypatch):
    check("captioner", {"kind": "no.such.module:Captioner"})
    point = EntryPoint("elsewhere", "no.such.module:Captioner", GROUPS["captioner"])
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    check("captioner", {"kind": "elsewhere"})
