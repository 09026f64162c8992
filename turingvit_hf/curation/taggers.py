# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Parts of speech and noun phrases of captions: by a spaCy model of the user's choice, or by a lexicon at hand."""

import re
import string
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple, Protocol

from turingvit_hf.curation.optional import require
from turingvit_hf.errors import InputError


Part = Literal["noun", "pronoun", "verb", "adjective", "adverb", "determiner", "number", "other"]


class Word(NamedTuple):
    """A word and its part of speech."""

    text: str
    part: Part


@dataclass(frozen=True)
class TaggedText:
    """A caption's words, punctuation left out, and its noun phrases, each with all of its words."""

    words: tuple[Word, ...]
    phrases: tuple[tuple[Word, ...], ...]


class Tagger(Protocol):
    """What tells nouns from other words. `name` is part of a caption's provenance."""

    name: str

    def tag(self, text: str) -> TaggedText:
        """Return the words of a caption with their parts of speech, and its noun phrases."""
        ...


# Universal Dependencies' classes, which all models of spaCy use
UNIVERSAL_PARTS: dict[str, Part] = {
    "NOUN": "noun",
    "PROPN": "noun",
    "PRON": "pronoun",
    "VERB": "verb",
    "ADJ": "adjective",
    "ADV": "adverb",
    "DET": "determiner",
    "NUM": "number",
}
# beginnings of the Penn Treebank's tags
PENN_PARTS: dict[str, Part] = {
    "NN": "noun",
    "PRP": "pronoun",
    "WP": "pronoun",
    "VB": "verb",
    "JJ": "adjective",
    "RB": "adverb",
    "DT": "determiner",
    "PDT": "determiner",
    "WDT": "determiner",
    "CD": "number",
}


class SpacyTagger:
    """A model of spaCy; it is loaded at the first caption.

    Args:
        model: the name of an installed model, such as `en_core_web_sm`, or its folder. Its parser must know noun
            chunks.
    """

    def __init__(self, model: str = "en_core_web_sm"):
        self.model = model
        self.name = model

    def tag(self, text: str) -> TaggedText:
        """Return words and noun phrases of a caption.

        Raises:
            InputError: spaCy or the model is not installed, or the model has no parser.
        """
        document = self._pipeline(text)
        try:
            chunks = [
                tuple(_spacy_word(token) for token in chunk if _is_word(token.text)) for chunk in document.noun_chunks
            ]
        except (ValueError, NotImplementedError) as error:
            raise InputError(f"the spaCy model {self.model!r} finds no noun phrases: {error}") from error
        words = tuple(_spacy_word(token) for token in document if _is_word(token.text))
        return TaggedText(words, tuple(chunk for chunk in chunks if chunk))

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; it loads the model itself."""
        return {"model": self.model, "name": self.name}

    @cached_property
    def _pipeline(self) -> Any:
        spacy = require("spacy", "curate-nlp")
        try:
            return spacy.load(self.model, exclude=["ner", "lemmatizer"])
        except OSError as error:
            raise InputError(
                f"there is no spaCy model {self.model!r}: python -m spacy download {self.model}, or use the tagger "
                "'lexicon', which needs no download"
            ) from error


class LexiconTagger:
    """TextBlob's pattern tagger and chunker for English, whose lexicon of 94,000 words lies inside the package."""

    name = "lexicon"

    def tag(self, text: str) -> TaggedText:
        """Return words and noun phrases of a caption.

        Raises:
            InputError: TextBlob is not installed.
        """
        words: list[Word] = []
        phrases: list[list[Word]] = []
        is_open = False
        for sentence in _lexicon_parser()(_spaced(text)).split():
            for token, tag, chunk, *_ in sentence:
                if not _is_word(token):
                    is_open = False
                    continue
                word = Word(token.strip(string.punctuation), _penn_part(tag))
                words.append(word)
                if chunk == "B-NP" or (chunk == "I-NP" and not is_open):
                    phrases.append([word])
                elif chunk == "I-NP":
                    phrases[-1].append(word)
                is_open = chunk in ("B-NP", "I-NP")
            is_open = False
        return TaggedText(tuple(words), tuple(map(tuple, phrases)))


def load_tagger(name: str) -> Tagger:
    """Return the tagger of a name: `"lexicon"`, or a model of spaCy."""
    return LexiconTagger() if name == "lexicon" else SpacyTagger(name)


@cache
def _lexicon_parser() -> Callable[[str], Any]:
    """TextBlob's parser, its lexicon read: it leaves those files to be closed by Python, which complains."""
    parse = require("textblob.en").parse
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        parse("a")
    return parse


def _spaced(text: str) -> str:
    """Hyphens and dashes inside words and all slashes as spaces: the lexicon has no compounds, and the parser's
    own format is made of slashes."""
    return re.sub(r"(?<=\w)[-\u2013\u2014](?=\w)|/", " ", text)


def _is_word(token: str) -> bool:
    return any(map(str.isalnum, token))


def _spacy_word(token: Any) -> Word:
    return Word(token.text, UNIVERSAL_PARTS.get(token.pos_, "other"))


def _penn_part(tag: str) -> Part:
    return next((part for beginning, part in PENN_PARTS.items() if tag.startswith(beginning)), "other")
