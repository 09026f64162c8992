# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The classes of a data set: their names, and which one a row's label means."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turingvit_hf.errors import BadRowError, InputError
from turingvit_hf.evaluation.imagenet_names import OBJECTNET, TIMM_LISTS, imagenet_classes, objectnet_classes


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        keys: what labels call them, such as WordNet ids; "_" and a space are the same, as in names of folders.
        names: what prompts call them.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]

    def index_of(self, label: Any, numbers: Sequence[int | None] | None = None) -> int:
        """The number of the class that a label means: by key, by name, or by the number itself.

        Args:
            label: a text or a number.
            numbers: what the data's own numbers mean, see `numbers_of`; None: what they say.

        Raises:
            BadRowError: there is no such class.
        """
        if isinstance(label, bool) or label is None or label == "":
            raise BadRowError("row has no label", repr(label))
        if numbers is not None and isinstance(label, int) and 0 <= label < len(numbers):
            if (number := numbers[label]) is None:
                raise BadRowError("label is none of the classes", repr(label))
            return number
        text = str(label).strip()
        spaced = text.replace("_", " ")
        for entries in (self.keys, self.names):
            if isinstance(label, int):
                break
            if text in entries:
                return entries.index(text)
            # classes that are read from folders have spaces for underscores
            if spaced in (others := [entry.replace("_", " ") for entry in entries]):
                return others.index(spaced)
        if text.isdecimal() and int(text) < len(self.names):
            return int(text)
        raise BadRowError("label is none of the classes", repr(label))


def numbers_of(own: Sequence[str], classes: Classes) -> list[int | None] | None:
    """What the numbers of data that name their own classes mean among others: of each its class there, or None.

    Classes of these names may come in another order, or be more or fewer. Where some names are the same and the two
    have as many classes, others are written differently, as ImageNet's are, and numbers count; so do they where no
    name is the same. This is what None says.

    Args:
        own: the names of the data's own classes.
        classes: those that labels are to be of.
    """

    def find(name: str) -> int | None:
        with suppress(BadRowError):
            return classes.index_of(name)
        return None

    # a name that is a number would be taken for that of a class
    known = {entry.replace("_", " ") for entry in (*classes.keys, *classes.names)}
    found = [find(name) if name.strip().replace("_", " ") in known else None for name in own]
    num_found = sum(number is not None for number in found)
    if num_found < len(own) and (not num_found or len(own) == len(classes.names)):
        return None
    return found


def read_classes(source: str | Path) -> Classes:
    """The classes that a file names, or a list: `imagenet-1k`, `-v2`, `-sketch`, `-a` or `-r`, or `objectnet:FOLDER`.

    A text file has one name a line. A JSON file has a list of names, or an object of key and name: `{"n01440764":
    "tench", ...}`, where keys are what labels and folders are called; its order is that of numbered labels.

    ImageNet's names are WordNet's, and with `:clip` behind the name of a list, as in `imagenet-1k:clip`, those that
    CLIP's authors wrote; see `imagenet_names` for where the lists come from.

    Raises:
        InputError: there is no such file, it holds something else or a name twice, or a package is not installed.
    """
    if (pairs := imagenet_classes(str(source))) is not None:
        return make_classes(pairs, str(source))
    if str(source).startswith(OBJECTNET):
        return make_classes(objectnet_classes(str(source).removeprefix(OBJECTNET)), str(source))
    path = Path(source).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
        entries = json.loads(text) if path.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the classes {str(source)!r}: {error}; it is a file, one of {', '.join(TIMM_LISTS)} "
            f"(with :clip for CLIP's names), or {OBJECTNET}FOLDER"
        ) from error
    pairs = entries.items() if isinstance(entries, dict) else ((name, name) for name in entries)
    if not isinstance(entries, dict | list) or not entries:
        raise InputError(f"{path} holds no list of names and no object of key and name")
    return make_classes(list(pairs), str(path))


def make_classes(pairs: Sequence[tuple[Any, Any]], source: str) -> Classes:
    """The classes of pairs of key and name.

    Raises:
        InputError: a key or name is no text, or a key stands twice.
    """
    for key, name in pairs:
        if not isinstance(key, str) or not isinstance(name, str) or not name.strip():
            raise InputError(f"{source}: a class is a text, not {name!r}")
    keys = tuple(key.strip() for key, _ in pairs)
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"{source}: the class {twice!r} stands twice")
    return Classes(keys, tuple(name.strip() for _, name in pairs))
