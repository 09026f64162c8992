# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Models by what a config says of them: those that come with this package, and plug-ins.

A plug-in is named by a dotted path, `package.module:Class`, or by an entry point of one of the `GROUPS`. It is called
with `model` and the options of its config, and gives an object of the protocol of its role.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from turingvit_hf.errors import InputError


# entry points of plug-ins, by role
GROUPS = {
    role: f"turingvit_hf.{role}s"
    for role in ("captioner", "verifier", "fuser", "judge", "scorer", "detector", "tagger")
}
# those of our own, by role and kind
CHAT_MODELS = {
    "endpoint": "turingvit_hf.curation.models.chat_client:EndpointChat",
    "local": "turingvit_hf.curation.models.local_vlm:LocalVLM",
}
OWN: dict[str, dict[str, str]] = {
    **dict.fromkeys(("captioner", "verifier", "fuser", "judge"), CHAT_MODELS),
    "scorer": {"transformers": "turingvit_hf.curation.models.scorers:TransformersScorer"},
    "detector": {"transformers": "turingvit_hf.curation.models.detectors:TransformersDetector"},
    "tagger": {
        "lexicon": "turingvit_hf.curation.taggers:LexiconTagger",
        "spacy": "turingvit_hf.curation.taggers:SpacyTagger",
    },
}

# the kind where none is named; chat models are told apart by whether they have an address
DEFAULTS = {"scorer": "transformers", "detector": "transformers", "tagger": "lexicon"}


def build(role: str, spec: Any) -> Any:
    """Return the model of a role, not loaded yet.

    Args:
        role: one of `GROUPS`.
        spec: `kind`, and the arguments of its class beside it. Without a kind, what has a `base_url` is an endpoint,
            another model that answers questions is loaded here, scorers and detectors are those of transformers, and
            the tagger is the lexicon. A model that is built already is returned as it is.

    Raises:
        InputError: there is no such kind, an option that its class does not have, or none that it needs.
    """
    if not isinstance(spec, Mapping):
        return spec
    kind = _kind_of(role, spec)
    options = {name: value for name, value in spec.items() if name != "kind"}
    factory = find(role, kind)
    parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return factory(**options)
    known = {parameter.name: parameter for parameter in parameters}
    for name in options:
        if name not in known:
            raise InputError(f"the {role} {kind!r} has no option {name!r}; it has {', '.join(known)}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise InputError(f"the {role} {kind!r} needs the option {name!r}")
    if kind in OWN[role]:
        for name, value in options.items():
            _check_type(f"the {role} {kind!r}: {name}", value, known[name].annotation)
    return factory(**options)


def check(role: str, spec: Mapping[str, Any]) -> None:
    """Raise the `InputError` that `build` would, as far as that is known without importing a plug-in: where a run is
    begun there may be less than where its models are loaded.

    Args:
        role, spec: as `build` takes them.
    """
    kind = _kind_of(role, spec)
    if kind in OWN[role]:
        build(role, spec)  # which loads nothing
    elif ":" not in kind:
        _plugin(role, kind)


def find(role: str, kind: str) -> Callable[..., Any]:
    """Return the class, or function, that makes a role's models of a kind.

    Raises:
        InputError: there is none, or it cannot be imported.
    """
    if role not in GROUPS:
        raise InputError(f"no role {role!r} of a model; there are {', '.join(GROUPS)}")
    path = OWN[role].get(kind, kind)
    if ":" in path:
        module, _, name = path.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InputError(f"the {role} {kind!r} cannot be imported: {error}") from error
    return _plugin(role, kind).load()


def _kind_of(role: str, spec: Mapping[str, Any]) -> str:
    kind = spec.get("kind") or DEFAULTS.get(role) or ("endpoint" if "base_url" in spec else "local")
    if not isinstance(kind, str):
        raise InputError(f"kind={kind!r} of a {role} must be a text")
    return kind


def _plugin(role: str, kind: str) -> EntryPoint:
    plugins = {point.name: point for point in entry_points(group=GROUPS[role])}
    if kind not in plugins:
        known = [*OWN[role], *sorted(plugins), "package.module:Class"]
        raise InputError(f"no {role} {kind!r}; there are {', '.join(known)}")
    return plugins[kind]


def _check_type(place: str, value: Any, annotation: Any) -> None:
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        message = error.errors()[0]["msg"].replace("Input should", "it must")
        raise InputError(f"{place}={value!r:.80}: {message}") from None
