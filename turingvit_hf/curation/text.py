# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What captions are measured by: words, entropy, nouns, and the phrases that a detector looks for."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from turingvit_hf.curation.decisions import CaptionThresholds
from turingvit_hf.curation.taggers import Tagger, Word


# ideographs and kana are words of their own: no space parts them
_IDEOGRAPH = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
_LETTERS = r"(?:(?!" + _IDEOGRAPH + r")[^\W_])+"
# as people count them: a compound with hyphens is one word
COUNTED_WORD = re.compile(rf"{_IDEOGRAPH}|{_LETTERS}(?:[-'\u2019]{_LETTERS})*")
# as entropy counts them, which fits the figure's numbers only with hyphens split
SPLIT_WORD = re.compile(rf"{_IDEOGRAPH}|{_LETTERS}(?:['\u2019]{_LETTERS})*")

# percentiles of a run's entropies that take their place
PERCENTILES = (1.0, 99.0)

TOO_MANY_WORDS = "too many words"
FEW_NOUNS = "few nouns"

CONTENT_PARTS = ("noun", "verb", "adjective", "adverb")
# heads of phrases that no detector can find. Captions about mood and composition are full of them, and would be
# punished for it
_ABSTRACT_HEADS = """
aesthetic angle appearance arrangement atmosphere attention background balance beauty blend brightness calm center
charm color colors colour colours comfort composition contrast contrasts corner day depth description design detail
details distance effect elegance element elements emotion energy environment expression feel feeling feelings focus
foreground front grace happiness harmony hint hue hues idea image impression innocence intensity joy kind layout
left lighting look lot love middle moment mood motion movement mystery nature nostalgia palette part pattern
patterns peace perspective photo photograph picture place pose position presence quality right scene sense serenity
set setting shade shades side simplicity softness story style surroundings symmetry tension texture textures theme
time tone tones top touch tranquility type variety vibe view viewer warmth way whimsy wonder
"""
ABSTRACT_HEADS = frozenset(_ABSTRACT_HEADS.split())


class EntropyScale(NamedTuple):
    """The entropies, in bits, that stand for a text quality of 0 and of 1."""

    low: float
    high: float


# fitted to the four captions of VISTA's figure
AFFINE_SCALE = EntropyScale(1.5, 4.1)


def is_visible(text: str) -> bool:
    """Return whether a text has a sign to see: neither spaces nor marks of no width alone."""
    return any(sign.isprintable() and not sign.isspace() for sign in text)


def well_formed(value: Any) -> Any:
    """Return a value of JSON whose texts can be written as UTF-8.

    Half a surrogate pair, which JSON's escapes may leave of an emoji, becomes U+FFFD.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [well_formed(entry) for entry in value]
    if isinstance(value, dict):
        return {well_formed(name): well_formed(entry) for name, entry in value.items()}
    return value


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, hyphens split."""
    return SPLIT_WORD.findall(text.lower())


def count_words(text: str) -> int:
    """Return the number of words of a text; a compound with hyphens is one."""
    return len(COUNTED_WORD.findall(text))


def entropy(text: str) -> float:
    """Return the Shannon entropy of a text's own words in bits: 0 of none or of one word said over and over.

    H = - sum p log2 p over the distinct words, p being a word's share in the text. Without repetition it is the
    logarithm of the number of words: 4.32 for the 20 that are allowed.
    """
    counts = Counter(split_words(text)).values()
    total = sum(counts)
    return math.fsum(count / total * math.log2(total / count) for count in counts)


def text_quality(entropies: Sequence[float] | np.ndarray, scale: EntropyScale = AFFINE_SCALE) -> np.ndarray:
    """Return the text quality T of captions, 0 to 1, float64: their entropies between the ends of a scale."""
    values = np.asarray(entropies, np.float64)
    return np.clip((values - scale.low) / (scale.high - scale.low), 0.0, 1.0)


def percentile_scale(entropies: Sequence[float] | np.ndarray) -> EntropyScale:
    """Return the first and the 99th percentile of a run's entropies, for `text_quality`.

    A run stores them: resumed or extended, it must go on with the same numbers.

    Raises:
        ValueError: there are no captions, or all have the same entropy.
    """
    values = np.asarray(entropies, np.float64)
    if not len(values):
        raise ValueError("there are no captions whose entropies could be scaled")
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    if not low < high:
        raise ValueError(f"all captions have the entropy {low:.3f}: it tells nothing apart; use the affine scale")
    return EntropyScale(low, high)


def noun_ratio(text: str, tagger: Tagger, denominator: Literal["all", "content"] = "all") -> float | None:
    """Return the share of nouns, proper ones included, in the words of a text.

    Args:
        text: a caption.
        tagger: what tells nouns.
        denominator: `"all"` words, or `"content"` words: nouns, verbs, adjectives and adverbs.

    Returns:
        0 to 1; None where the denominator is 0.
    """
    parts = Counter(word.part for word in tagger.tag(text).words)
    total = sum(parts.values()) if denominator == "all" else sum(parts[part] for part in CONTENT_PARTS)
    return parts["noun"] / total if total else None


def noun_phrases(text: str, tagger: Tagger) -> list[str]:
    """Return the phrases of a text that a detector may find, each once, in order.

    They are the tagger's noun phrases without determiners and pronouns, cut at conjunctions; those without a noun, or
    whose last noun is abstract ("composition", "mood"), are left out.
    """
    phrases: dict[str, str] = {}
    for words in tagger.tag(text).phrases:
        for part in _without_joints(words):
            heads = [word.text.lower() for word in part if word.part == "noun"]
            if heads and heads[-1] not in ABSTRACT_HEADS:
                phrase = " ".join(word.text for word in part)
                phrases.setdefault(phrase.lower(), phrase)
    return list(phrases.values())


def check_caption(text: str, tagger: Tagger, thresholds: CaptionThresholds) -> dict[str, Any]:
    """Return what the prompts asked for and a caption has: `num_words`, `noun_ratio`, and `flags`.

    `flags` names the limits that it breaks: `"too many words"`, after which a model's caption is no candidate, and
    `"few nouns"`, for which it is only marked.
    """
    num_words = count_words(text)
    ratio = noun_ratio(text, tagger, thresholds.noun_denominator)
    flags = []
    if thresholds.max_words is not None and num_words > thresholds.max_words:
        flags.append(TOO_MANY_WORDS)
    if thresholds.min_noun_ratio is not None and (ratio is None or ratio < thresholds.min_noun_ratio):
        flags.append(FEW_NOUNS)
    return {"num_words": num_words, "noun_ratio": ratio, "flags": flags}


def _without_joints(words: Sequence[Word]) -> list[list[Word]]:
    """The stretches between conjunctions and the like, without determiners and pronouns."""
    stretches: list[list[Word]] = [[]]
    for word in words:
        if word.part == "other":
            stretches.append([])
        elif word.part not in ("determiner", "pronoun"):
            stretches[-1].append(word)
    return stretches
