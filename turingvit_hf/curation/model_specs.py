# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Which models a config names, and whether what it says of them can be right."""

from turingvit_hf.curation.config import CurationConfig
from turingvit_hf.curation.models.registry import check
from turingvit_hf.curation.stage_configs import ModelSpec
from turingvit_hf.curation.stages import enabled_stages
from turingvit_hf.errors import InputError


def models_of(config: CurationConfig) -> dict[str, list[ModelSpec]]:
    """Return the models that the stages of a config load or ask, by role."""
    stages = {stage.name for stage in enabled_stages(config)}
    found: dict[str, list[ModelSpec]] = {}
    if "caption" in stages and config.caption.captioners:
        found["captioner"] = list(config.caption.captioners)
        if config.is_of_videos and config.caption.fuser is not None:
            found["fuser"] = [config.caption.fuser]
    if "verify" in stages:
        found["verifier"] = list(config.verify.verifiers)
    if "judge" in stages and config.judge.judge is not None:
        found["judge"] = [config.judge.judge]
    if "embed" in stages or "consistency" in stages:
        found["scorer"] = [config.embed.scorer]
    if "ground" in stages:
        found["detector"] = [config.ground.detector]
    return found


def check_models(config: CurationConfig) -> None:
    """Raises an `InputError` for a model that is described wrongly, before the stages that come before its own; and
    for two of a role that go by one name, since nobody could tell their captions or verdicts apart."""
    specs = models_of(config)
    if not {"caption", "ground"}.isdisjoint(stage.name for stage in enabled_stages(config)):
        specs["tagger"] = [config.caption.tagger]
    for role, described in specs.items():
        for spec in described:
            try:
                check(role, spec)
            except InputError as error:
                raise InputError(f"config: {error}") from None
        names = [spec.get("name") or spec.get("model") for spec in described]
        for name in names:
            if name is not None and names.count(name) > 1:
                raise InputError(f"config: two {role}s are called {name!r}; give each a name of its own (name: ...)")
