# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Recipes by name or file: read, extended, overridden and checked, so that a misspelt key never goes unnoticed.

A recipe file holds the keys of `StageRecipe` and, optionally, `extends`: the file or shipped recipe that it differs
from. Mappings are merged key by key, everything else replaces what was there, and `null` takes away: the key is as if
nobody had named it. A chain lists stages instead:

    stages: [tiny/stage1, tiny/stage2]
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from turingvit_hf.errors import InputError
from turingvit_hf.files.yaml_files import parse_yaml, read_yaml
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.recipe_checks import (
    check_model,
    check_sections,
    check_training,
    describe_error,
    did_you_mean,
    without_nulls,
)


SHIPPED = Path(__file__).with_name("recipes")
SUFFIXES = (".yaml", ".yml")
COMMAND_LINE = "--set"

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class ChainRecipe:
    """Stages that run one after another, each from the tower that the one before it left."""

    name: str
    stages: tuple[StageRecipe, ...]

    def in_folder(self, root: Path) -> list[tuple[Path, StageRecipe]]:
        """Each stage with its folder, `stage1` and so on; it starts from the one before unless its recipe has an
        `init_from` of its own."""
        folders = [root / f"stage{number}" for number in range(1, len(self.stages) + 1)]
        linked = [self.stages[0]]
        for before, recipe in zip(folders, self.stages[1:], strict=False):
            linked.append(recipe if recipe.init_from else dataclasses.replace(recipe, init_from=str(before)))
        return list(zip(folders, linked, strict=True))


@dataclass
class _Draft:
    """A recipe before it is checked: its values, and which file each of them comes from."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, str] = field(default_factory=dict)

    def merge(self, values: dict[str, Any], origin: str, place: Place = ()) -> None:
        """Merges a mapping into the one at `place`; what it holds besides mappings replaces what was there.

        Raises:
            InputError: an empty mapping stands where something is inherited, to which it would add nothing.
        """
        target: Any = self.values
        for key in place:
            target = target[key]
        for key, value in values.items():
            inside = (*place, key)
            if isinstance(value, dict) and isinstance(target.get(key), dict):
                if target[key] and not value:
                    path = ".".join(map(str, inside))
                    raise InputError(f"{origin}: {path}: {{}} adds nothing to what is inherited; null takes it away")
                self.merge(value, origin, inside)
            else:
                target[key] = value
                self.origins = {known: file for known, file in self.origins.items() if known[: len(inside)] != inside}
                self.origins[inside] = origin

    def set(self, place: list[str], value: Any) -> None:
        """Sets one value from the command line; mappings on the way are made, elements of lists are chosen by number.

        Raises:
            InputError: the way leads through something that is neither.
        """
        target: Any = self.values
        for depth, key in enumerate(place):
            is_last = depth == len(place) - 1
            if isinstance(target, list):
                if not (key.isdecimal() and int(key) < len(target)):
                    raise InputError(
                        f"{COMMAND_LINE} {'.'.join(place)}: {'.'.join(place[:depth])} has {len(target)} elements, "
                        f"{key!r} is none of them"
                    )
                index: Any = int(key)
            elif isinstance(target, dict):
                index = key
            else:
                raise InputError(
                    f"{COMMAND_LINE} {'.'.join(place)}: {'.'.join(place[:depth])} is {target!r} and has no keys"
                )
            if is_last:
                target[index] = value
            elif isinstance(target, dict) and target.get(index) is None:
                target[index] = {}
                self.origins[tuple(place[: depth + 1])] = COMMAND_LINE
            target = target[index]
        self.origins[tuple(place)] = COMMAND_LINE

    def origin(self, place: Place) -> str:
        """The file that the value at this place comes from; for what stands in none, the outermost file."""
        words = tuple(map(str, place))
        for length in range(len(words), 0, -1):
            for known, file in self.origins.items():
                if tuple(map(str, known)) == words[:length]:
                    return file
        beside = [file for known, file in self.origins.items() if known[:1] == place[:1]]
        return (beside or [self.origins[()]])[-1]


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package, such as `"tiny/stage2"`, sorted."""
    return sorted(file.relative_to(SHIPPED).with_suffix("").as_posix() for file in SHIPPED.rglob("*.yaml"))


def describe_shipped() -> dict[str, str]:
    """The shipped recipes by name, each with the first sentence of the comment that its file begins with."""
    described = {}
    for name in shipped_recipes():
        lines = itertools.takewhile(
            lambda line: line.startswith("#"), (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        )
        described[name] = " ".join(line.lstrip("# ") for line in lines).partition(". ")[0].rstrip(".")
    return described


def is_chain(name_or_path: str | Path) -> bool:
    """Whether this recipe lists stages, and is none itself."""
    return "stages" in _read_mapping(_find(str(name_or_path), None))


def load_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> StageRecipe:
    """The recipe of one stage, complete and checked.

    Args:
        name_or_path: a shipped name such as `"18l/stage2"`, or a YAML file.
        overrides: `"key.path=value"`, the value in YAML; applied in order, after everything else.

    Raises:
        InputError: no such recipe, or a key or value is at fault; the text names file, key and what was allowed.
    """
    file = _find(str(name_or_path), None)
    if "stages" in _read_mapping(file):
        raise InputError(f"{_display(file)} is a chain of stages, one stage was asked for")
    draft = _read(file, ())
    for place, value in map(_parse_override, overrides):
        draft.set(place, value)
    if not draft.values.get("name"):
        draft.values["name"] = _display(file).removesuffix(".yaml")
    return _check(draft)


def load_chain(name_or_path: str | Path, overrides: Iterable[str] = ()) -> ChainRecipe:
    """The recipes of a chain of stages.

    Args:
        name_or_path: a shipped name such as `"tiny/all"`, or a YAML file with the key `stages`: a list of shipped
            names and of files, relative to this one.
        overrides: as for `load_recipe`; they hold for all stages, or for the second only with `stage2.` in front.

    Raises:
        InputError: as `load_recipe`; or the file has other keys, or lists no stage.
    """
    file = _find(str(name_or_path), None)
    values = _read_mapping(file)
    allowed = ("stages", "name")
    for key in values:
        if key not in allowed:
            raise InputError(f"{_display(file)}: a chain has no key {key}{did_you_mean(key, allowed)}")
    names = values.get("stages")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{_display(file)}: stages={names!r} must be a list of recipes, one at least")
    numbers = range(1, len(names) + 1)
    stages = []
    chosen = [(override, _stage_of(override)) for override in overrides]
    for override, number in chosen:
        if number is not None and number not in numbers:
            raise InputError(f"{COMMAND_LINE} {override}: the chain has the stages 1 to {len(names)}")
    for number, name in zip(numbers, names, strict=True):
        own = [
            override.partition(".")[2] if wanted else override
            for override, wanted in chosen
            if wanted in (None, number)
        ]
        stages.append(load_recipe(_find(name, file), own))
    return ChainRecipe(values.get("name") or _display(file).removesuffix(".yaml"), tuple(stages))


def _stage_of(override: str) -> int | None:
    """The number of the stage that an override is for, None for all."""
    first, dot, _ = override.partition("=")[0].partition(".")
    number = first.removeprefix("stage")
    return int(number) if dot and first != number and number.isdecimal() else None


def _find(name: str, beside: Path | None) -> Path:
    """The file of a shipped name, or of a path relative to the file that mentions it."""
    if name.endswith(SUFFIXES):
        path = Path(name).expanduser()
        path = beside.parent / path if beside is not None else path
        if not path.is_file():
            at_fault = f"{_display(beside)}: " if beside is not None else ""
            raise InputError(f"{at_fault}there is no recipe file {path}")
        return path
    names = shipped_recipes()
    if name not in names:
        at_fault = f"{_display(beside)}: " if beside is not None else ""
        raise InputError(
            f"{at_fault}there is no recipe {name!r}{did_you_mean(name, names)}; shipped are {', '.join(names)}, and a "
            "file ends in .yaml"
        )
    return SHIPPED / f"{name}.yaml"


def _display(file: Path) -> str:
    """How a file is named in errors: shipped ones by their name."""
    return file.relative_to(SHIPPED).as_posix() if file.is_relative_to(SHIPPED) else str(file)


def _read_mapping(file: Path) -> dict[str, Any]:
    values = read_yaml(file)
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{_display(file)}: a recipe is a mapping of keys to values, this is {values!r:.80}")
    return values


def _read(file: Path, readers: tuple[Path, ...]) -> _Draft:
    """The draft of a file on top of what it extends."""
    file = file.resolve() if not file.is_relative_to(SHIPPED) else file
    if file in readers:
        way = " extends ".join(_display(reader) for reader in (*readers[readers.index(file) :], file))
        raise InputError(f"recipes extend each other in a circle: {way}")
    values = _read_mapping(file)
    base = values.pop("extends", None)
    draft = _Draft()
    if base is not None:
        if not isinstance(base, str):
            raise InputError(f"{_display(file)}: extends={base!r} must be one file or one shipped name")
        draft = _read(_find(base, file), (*readers, file))
        draft.values.pop("name", None)
    draft.merge(values, _display(file))
    draft.origins[()] = _display(file)
    return draft


def _parse_override(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    place = key.strip().split(".")
    if not equals or not all(place):
        raise InputError(f"{COMMAND_LINE} {override}: it must read key=value, with dots between nested keys")
    return place, parse_yaml(text, f"{COMMAND_LINE} {override}")


def _check(draft: _Draft) -> StageRecipe:
    """The typed recipe.

    Raises:
        InputError: with every fault that was found.
    """
    faults = []
    try:
        text = json.dumps(without_nulls(draft.values))
    except TypeError as error:
        raise InputError(f"the recipe holds a value that is no number, text, list or mapping: {error}") from error
    try:
        # JSON's own types make strictness bearable: lists become tuples, and nothing else is converted
        recipe = TypeAdapter(StageRecipe).validate_json(text, strict=True)
    except ValidationError as error:
        faults = [
            f"{draft.origin(place)}: {fault}" for place, fault in (describe_error(entry) for entry in error.errors())
        ]
        raise InputError("; ".join(faults)) from None
    for section, check in (("model", check_model), ("training", check_training)):
        for key, fault in check(getattr(recipe, section)):
            faults.append(f"{draft.origin((section, key))}: {fault}")
    faults += [f"{draft.origin(place)}: {fault}" for place, fault in check_sections(recipe)]
    if faults:
        raise InputError("; ".join(faults))
    return recipe
