# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""YAML as people mean it: `1e-4` is a number, `no` is a word, and a key that stands twice is an error."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from turingvit_hf.errors import InputError


# the scalars of YAML 1.2's core schema, without 1.1's `no`, `off`, `010` (octal) and `12:30` (sexagesimal)
SCALARS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.inf|\.nan",
        "-+0123456789.",
    ),
)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, firsts in SCALARS:
        for first in firsts:
            found.setdefault(first, []).append((tag, re.compile(rf"(?:{pattern})\Z")))
    return found


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError(f"{line}: a key must be a word")
            if key_node.value in seen:
                raise InputError(f"{line}: {key_node.value} was already given in line {seen[key_node.value]}")
            seen[key_node.value] = line
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _resolvers()


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text: numbers, strings, booleans, None, lists and dictionaries.

    Args:
        text: one document.
        source: where it stands, for errors.

    Raises:
        InputError: it is not YAML, or a key stands twice; the text names the line.
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader with other scalars
    except InputError as error:
        raise InputError(f"{source}, line {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}{place}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{source}: {error}") from error


def read_yaml(path: Path) -> Any:
    """The value that a YAML file holds.

    Raises:
        InputError: the file cannot be read or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return parse_yaml(text, str(path))


def dump_yaml(value: Any) -> str:
    """The YAML text of plain values, keys in their order; `parse_yaml` gives an equal value, tuples as lists."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
