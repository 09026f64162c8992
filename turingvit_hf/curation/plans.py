# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a run would do, without doing it: sources are opened, no model is touched, nothing is written."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turingvit_hf.curation.config import CurationConfig
from turingvit_hf.curation.config_files import dump_config
from turingvit_hf.curation.optional import PACKAGES, is_installed
from turingvit_hf.curation.shards import count_rows, list_shards
from turingvit_hf.curation.stages import enabled_stages
from turingvit_hf.curation.state import check_names, source_name


# what an image, a prompt and an answer take, as a guess; a model's own count comes with its answers
IMAGE_TOKENS, PROMPT_TOKENS, CAPTION_TOKENS, VERDICT_TOKENS = 1000, 120, 40, 40
NEEDED = {
    "cut": ("av", "cv2", "scenedetect"),
    "measure": ("cv2", "imagehash"),
    "motion": ("av", "cv2"),
    "caption": ("textblob",),
    "deduplicate": ("faiss",),
    "score": ("faiss",),
}
OF_ENDPOINTS = ("openai", "tenacity")
NO_CALLS = "none: raw captions are the only candidates"


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        config: resolved.
        rows: of each source, None where that is known only when it was read.
        num_shards: units of work.
        stages: names of the stages that are switched on.
        calls: of captioners, verifiers and the judge, by role and model, as if no row were dropped, no answer were
            asked for again and every video were one clip.
        tokens: of prompts and of answers, guessed.
        models: that are to be loaded or asked, by role.
        not_local: of these, those that are no folder here and not behind an endpoint, so come from the hub.
        missing: packages that are not installed and will be needed.
    """

    config: CurationConfig
    rows: dict[str, int | None]
    num_shards: int
    stages: list[str]
    calls: dict[str, int]
    tokens: tuple[int, int]
    models: dict[str, list[str]]
    not_local: list[str]
    missing: list[str]

    @property
    def num_rows(self) -> int:
        """Rows that are known of."""
        return round(sum(count or 0 for count in self.rows.values()) * self.config.sample)

    def describe(self) -> str:
        """The plan as lines for people; the resolved config comes first."""
        sources = [
            f"{name} ({f'{count:,}' if count is not None else 'unknown number of'} rows)"
            for name, count in self.rows.items()
        ]
        calls = [f"{number:,} of {name}" for name, number in self.calls.items()]
        models = [f"{role}: {', '.join(names)}" for role, names in self.models.items()]
        prompt, completion = self.tokens
        facts = {
            "sources": ", ".join(sources),
            "rows": f"{self.num_rows:,}" + (" and those of unknown number" if None in self.rows.values() else ""),
            "shards": f"{self.num_shards:,}",
            "stages": ", ".join(self.stages),
            "models": "; ".join(models) or "none",
            "from the hub": ", ".join(self.not_local) or "nothing",
            "model calls": "; ".join(calls) + ", if none is asked again" if calls else NO_CALLS,
            "tokens": f"about {prompt:,} of prompts and {completion:,} of answers" if calls else "none",
            "not installed": ", ".join(self.missing) or "nothing that is needed",
        }
        return dump_config(self.config) + "\n" + "\n".join(f"{name + ':':<15}{text}" for name, text in facts.items())

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "config"}
        return {"config": self.config.to_dict(), **values, "num_rows": self.num_rows}


def plan(config: CurationConfig, *, engine: str = "local") -> Plan:
    """Return what a run of this config would do.

    Raises:
        InputError: a source cannot be opened, or a model is described wrongly.
    """
    check_names(config)
    stages = enabled_stages(config)
    with tempfile.TemporaryDirectory() as scratch:
        shards, counts = list_shards(config, Path(scratch))
    rows = {
        source_name(config, number): count if count is not None else count_rows(config.sources[number])
        for number, count in enumerate(counts)
    }
    names = [stage.name for stage in stages]
    calls, tokens = _calls(config, names, round(sum(count or 0 for count in rows.values()) * config.sample))
    models = _models(config, names)
    return Plan(
        config,
        rows,
        len(shards),
        names,
        calls,
        tokens,
        {role: [_name(spec) for spec in specs] for role, specs in models.items()},
        [_name(spec) for specs in models.values() for spec in specs if _is_from_hub(spec)],
        _missing(models, names, engine),
    )


def _models(config: CurationConfig, stages: list[str]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
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


def _calls(config: CurationConfig, stages: list[str], num_rows: int) -> tuple[dict[str, int], tuple[int, int]]:
    """Calls by model, and tokens of prompts and answers."""
    calls: dict[str, int] = {}
    prompt = completion = 0
    num_written = 0
    if "caption" in stages:
        for spec in config.caption.captioners:
            # of a clip its frames, the whole and the fusion; how many clips a video gives is known when it is cut
            each = config.caption.num_frames + 2 if config.is_of_videos else len(config.caption.styles)
            number = num_rows * each
            calls[f"captioner {_name(spec)}"] = number
            num_written += number
            prompt += number * (IMAGE_TOKENS + PROMPT_TOKENS)
            completion += number * CAPTION_TOKENS
    if "verify" in stages:
        raw = num_rows if config.caption.use_raw and config.verify.verify_raw else 0
        for spec in config.verify.verifiers:
            calls[f"verifier {_name(spec)}"] = num_written + raw
            prompt += (num_written + raw) * (IMAGE_TOKENS + PROMPT_TOKENS)
            completion += (num_written + raw) * VERDICT_TOKENS
    if "judge" in stages and config.judge.judge is not None:
        calls[f"judge {_name(config.judge.judge)}"] = num_rows
        prompt += num_rows * (config.caption.num_frames * IMAGE_TOKENS + PROMPT_TOKENS)
        completion += num_rows * VERDICT_TOKENS
    return calls, (prompt, completion)


def _name(spec: Mapping[str, Any]) -> str:
    return str(spec.get("name") or spec.get("model") or spec.get("kind"))


def _is_from_hub(spec: Mapping[str, Any]) -> bool:
    model = spec.get("model")
    is_endpoint = bool(spec.get("base_url")) or ":" in str(spec.get("kind", ""))
    return isinstance(model, str) and not is_endpoint and not Path(model).expanduser().exists()


def _missing(models: Mapping[str, list[Mapping[str, Any]]], stages: list[str], engine: str) -> list[str]:
    needed = [module for stage in stages for module in NEEDED.get(stage, ())]
    if any(spec.get("base_url") for specs in models.values() for spec in specs):
        needed += OF_ENDPOINTS
    if engine == "ray":
        needed.append("ray")
    return [PACKAGES[module] for module in dict.fromkeys(needed) if not is_installed(module)]
