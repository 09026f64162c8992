# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The captions of a row, which of them is taken, and all those of a source without its images."""

import math
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.sources import Source, iterate_rows, open_source
from turingvit_hf.errors import BadRowError


END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")  # the latter three: Chinese and Japanese


def choose_caption(source: Source, row: dict[str, Any], rng: random.Random | None) -> str:
    """Return one of a row's captions, with single spaces.

    The column is drawn by probability among those that hold a text, one text of a list evenly, and with probability
    `first_sentence` only the first sentence is taken. Without `rng`: the likeliest column, the first text, all of it.

    Raises:
        BadRowError: there is no text.
    """
    texts = {name: texts_of(source, row, name) for name, share in source.caption_columns.items() if share > 0}
    names = [name for name, found in texts.items() if found]
    if not names:
        raise BadRowError("caption is empty or no text", f"columns {list(texts)}")
    shares = [source.caption_columns[name] for name in names]
    if rng is None:
        return texts[names[shares.index(max(shares))]][0]
    caption = rng.choice(texts[rng.choices(names, shares)[0]])
    if rng.random() < source.recipe.first_sentence:
        caption = END_OF_SENTENCE.split(caption, maxsplit=1)[0]
    return caption


def texts_of(source: Source, row: dict[str, Any], column: str) -> list[str]:
    """Return the texts in a column of captions, none empty: a text, a list of texts, or the name of a class."""
    value = row.get(column)
    names = source.class_names.get(column, [])
    # -1 is how datasets say that there is no class
    if isinstance(value, int) and 0 <= value < len(names):
        value = names[value].replace("_", " ")
    values = value if isinstance(value, list | tuple) else [value]
    cleaned = [" ".join(text.split()) for text in values if isinstance(text, str)]
    return [text for text in cleaned if text]


def iterate_captions(sources: Sequence[SourceRecipe], *, num_captions: int) -> Iterator[str]:
    """Yield up to `num_captions` captions of the sources, from each in proportion to its weight, without its images.

    Every text of every column of captions counts. Rows by index are drawn evenly, streams are read from the front.
    """
    total = sum(recipe.weight for recipe in sources)
    for recipe in sources:
        left = math.ceil(num_captions * recipe.weight / total)
        source = open_source(recipe)
        for row, _ in iterate_rows(source, shuffled=True):
            if isinstance(row, BadRowError):
                continue
            texts = [text for column in source.caption_columns for text in texts_of(source, row, column)]
            yield from texts[:left]
            left -= len(texts)
            if left <= 0:
                break
