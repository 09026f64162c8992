# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Configs by file: read, overridden and checked, so that a misspelt key never goes unnoticed; written resolved."""

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from turingvit_hf.curation.config import CurationConfig, hash_of
from turingvit_hf.errors import InputError
from turingvit_hf.files.sections import keys_at
from turingvit_hf.files.yaml_files import dump_yaml, parse_yaml, read_yaml


COMMAND_LINE = "--set"

Place = tuple[str | int, ...]


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> CurationConfig:
    """Return a config, complete and checked.

    Args:
        path: a YAML file with the keys that differ from the defaults; None: the defaults alone.
        overrides: `"key.path=value"`, the value in YAML; applied in order, after the file. Elements of lists are
            chosen by number, as in `"sources.0.path=pictures"`.

    Raises:
        InputError: no such file, or a key or value is at fault; the text names it and what was allowed.
    """
    values = {} if path is None else read_yaml(Path(path).expanduser())
    if values is None:
        values = {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path}: a config is a mapping of keys to values, this is {values!r:.80}")
    set_by_command_line = set()
    for override in overrides:
        place, value = _parse_override(override)
        _set(values, place, value)
        set_by_command_line.add(tuple(place))
    return _check(values, str(path) if path is not None else "defaults", set_by_command_line)


def config_from_dict(values: Mapping[str, Any], origin: str) -> CurationConfig:
    """Return the config of plain values, such as `CurationConfig.to_dict` gave.

    Args:
        values: of the config.
        origin: where they stand, for errors.

    Raises:
        InputError: a key or value is at fault.
    """
    return _check(dict(values), origin, set())


def with_overrides(config: CurationConfig, overrides: Iterable[str]) -> CurationConfig:
    """Return a config with some values changed, given as for `load_config`."""
    values = json.loads(json.dumps(config.to_dict()))
    places = set()
    for override in overrides:
        place, value = _parse_override(override)
        _set(values, place, value)
        places.add(tuple(place))
    return _check(values, "config", places)


def dump_config(config: CurationConfig) -> str:
    """Return the resolved config as YAML; the first line, a comment, holds its hash."""
    values = json.loads(json.dumps(config.to_dict()))
    return f"# hash {hash_of(values)}\n{dump_yaml(values)}"


def _parse_override(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    place = key.strip().split(".")
    if not equals or not all(place):
        raise InputError(f"{COMMAND_LINE} {override}: it must read key=value, with dots between nested keys")
    return place, parse_yaml(text, f"{COMMAND_LINE} {override}")


def _set(values: dict[str, Any], place: list[str], value: Any) -> None:
    """Sets one value; mappings on the way are made, elements of lists are chosen by number."""
    target: Any = values
    for depth, key in enumerate(place):
        before = ".".join(place[:depth])
        if isinstance(target, list):
            if not (key.isdecimal() and int(key) < len(target)):
                raise InputError(
                    f"{COMMAND_LINE} {'.'.join(place)}: {before} has {len(target)} elements, {key!r} is none of them"
                )
            index: Any = int(key)
        elif isinstance(target, dict):
            index = key
        else:
            raise InputError(f"{COMMAND_LINE} {'.'.join(place)}: {before} is {target!r} and has no keys")
        if depth == len(place) - 1:
            target[index] = value
        else:
            if isinstance(target, dict) and target.get(index) is None:
                target[index] = {}
            target = target[index]


def _check(values: dict[str, Any], origin: str, set_by_command_line: set[tuple[str, ...]]) -> CurationConfig:
    try:
        text = json.dumps(values)
    except TypeError as error:
        raise InputError(f"{origin}: it holds a value that is no number, text, list or mapping: {error}") from error
    try:
        # JSON's own types make strictness bearable: lists become tuples, and nothing else is converted
        return TypeAdapter(CurationConfig).validate_json(text, strict=True)
    except ValidationError as error:
        faults = []
        for entry in error.errors():
            place = tuple(map(str, entry["loc"]))
            is_set = any(place[: len(known)] == known or known[: len(place)] == place for known in set_by_command_line)
            faults.append(f"{COMMAND_LINE if is_set and place else origin}: {_describe(entry)}")
        raise InputError("; ".join(faults)) from None


def _describe(error: Mapping[str, Any]) -> str:
    """The sentence about one of pydantic's errors."""
    place: Place = tuple(error["loc"])
    path = ".".join(map(str, place))
    kind = error["type"]
    if kind == "unexpected_keyword_argument":
        *section, key = place
        allowed = keys_at(CurationConfig, section)
        near = difflib.get_close_matches(str(key), allowed, n=1)
        return f"there is no key {path}; " + (
            f"did you mean {near[0]}?" if near else f"allowed are {', '.join(allowed)}"
        )
    if kind in ("missing", "missing_argument"):
        return f"{path} is missing"
    if kind == "value_error":
        return f"{path}: {error['ctx']['error']}" if path else str(error["ctx"]["error"])
    message = error["msg"].replace("Input should", "it must")
    for json_word, word in (("a valid array", "a list"), ("an object", "a mapping"), ("a valid string", "a text")):
        message = message.replace(json_word, word)
    return f"{path}={error['input']!r:.120}: {message}"
