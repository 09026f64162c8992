# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What typed sections of YAML files share: unknown keys are refused, and switches are said as people say them."""

import dataclasses
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict


STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=False)


def _switch(value: Any) -> Any:
    """YAML's words for true and false as what they mean; anything else as it is."""
    words = {"yes": True, "on": True, "no": False, "off": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


Switch = Annotated[bool, BeforeValidator(_switch)]


def section_in(wanted: Any) -> Any:
    """The dataclass inside `X | None` or `tuple[X, ...]`, or None."""
    if dataclasses.is_dataclass(wanted):
        return wanted
    if isinstance(wanted, types.UnionType) or typing.get_origin(wanted) in (typing.Union, tuple):
        return next((found for part in typing.get_args(wanted) if (found := section_in(part)) is not None), None)
    return None


def keys_at(wanted: Any, place: Iterable[str | int]) -> list[str]:
    """The keys of the section at this place of another one, empty where there is none."""
    section = section_in(wanted)
    for key in place:
        if isinstance(key, int):
            continue  # an element of a list has the type that the list was unwrapped to
        section = section_in(typing.get_type_hints(section).get(str(key))) if section is not None else None
    return [entry.name for entry in dataclasses.fields(section)] if section is not None else []
