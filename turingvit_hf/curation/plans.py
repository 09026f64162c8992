# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a run would do, without doing it: sources are opened, no model is touched, nothing is written."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from turingvit_hf.curation.beginning import check_names
from turingvit_hf.curation.config import CurationConfig
from turingvit_hf.curation.config_files import dump_config
from turingvit_hf.curation.model_specs import check_models, models_of
from turingvit_hf.curation.models.registry import DEFAULTS
from turingvit_hf.curation.optional import PACKAGES, is_installed
from turingvit_hf.curation.shards import count_rows, list_shards
from turingvit_hf.curation.stage_configs import ModelSpec
from turingvit_hf.curation.stages import enabled_stages
from turingvit_hf.curation.state import source_name


# what an image, a prompt and an answer take, as a guess; a model's own count comes with its answers
IMAGE_TOKENS, PROMPT_TOKENS, CAPTION_TOKENS, VERDICT_TOKENS = 1000, 120, 40, 40
NEEDED = {
    "cut": ("av", "cv2", "scenedetect"),
    "measure": ("cv2", "imagehash"),
    "motion": ("av", "cv2"),
    "deduplicate": ("faiss",),
    "score": ("faiss",),
}
OF_TAGGERS = {"lexicon": "textblob", "spacy": "spacy"}
OF_ENDPOINTS = ("openai", "tenacity")
# a question whose answer cannot be used is asked once more
ROUNDS = 2
# the caption of the whole and the fused one; those of frames are no candidates
CANDIDATES_A_CLIP = 2
AGAIN = " (the most if every answer is of no use at first and every caption breaks a rule of length or nouns)"
NO_CALLS = "none: raw captions are the only candidates"


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        config: resolved.
        rows: of each source, None where that is known only when it was read.
        num_shards: units of work.
        stages: names of the stages that are switched on.
        calls: of captioners, the fuser, verifiers and the judge, by role and model, as if no row were dropped, no
            answer were asked for again and every video were one clip.
        most_calls: the same where each answer is asked for again as often as it may: once if it cannot be used (cut
            short, a refusal, no JSON), and a caption of a picture twice as often, since one that is too long or has
            too few nouns is asked for once more. Requests that a server turned away are not counted.
        tokens: of prompts and of answers, guessed.
        most_tokens: likewise, for `most_calls`.
        models: that are to be loaded or asked, by role.
        not_local: of these, those that are no folder here and not behind an endpoint, so come from the hub.
        missing: packages that are not installed and will be needed.
    """

    config: CurationConfig
    rows: dict[str, int | None]
    num_shards: int
    stages: list[str]
    calls: dict[str, int]
    most_calls: dict[str, int]
    tokens: tuple[int, int]
    most_tokens: tuple[int, int]
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
        calls = [f"{number:,} to {self.most_calls[name]:,} of {name}" for name, number in self.calls.items()]
        models = [f"{role}: {', '.join(names)}" for role, names in self.models.items()]
        (prompt, answers), (most_prompt, most_answers) = self.tokens, self.most_tokens
        tokens = f"about {prompt:,} to {most_prompt:,} of prompts and {answers:,} to {most_answers:,} of answers"
        facts = {
            "sources": ", ".join(sources),
            "rows": f"{self.num_rows:,}" + (" and those of unknown number" if None in self.rows.values() else ""),
            "shards": f"{self.num_shards:,}",
            "stages": ", ".join(self.stages),
            "models": "; ".join(models) or "none",
            "from the hub": ", ".join(self.not_local) or "nothing",
            "model calls": "; ".join(calls) + AGAIN if calls else NO_CALLS,
            "tokens": tokens if calls else "none",
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
    check_models(config)
    stages = enabled_stages(config)
    with tempfile.TemporaryDirectory() as scratch:
        shards, counts = list_shards(config, Path(scratch))
    rows = {
        source_name(config, number): count if count is not None else count_rows(config.sources[number])
        for number, count in enumerate(counts)
    }
    names = [stage.name for stage in stages]
    asked = _calls(config, names, round(sum(count or 0 for count in rows.values()) * config.sample))
    models = models_of(config)
    return Plan(
        config,
        rows,
        len(shards),
        names,
        _by_model(asked, [calls.number for calls in asked]),
        _by_model(asked, [calls.number * calls.rounds for calls in asked]),
        _tokens(asked, [calls.number for calls in asked]),
        _tokens(asked, [calls.number * calls.rounds for calls in asked]),
        {role: [_name(spec) for spec in specs] for role, specs in models.items()},
        [_name(spec) for specs in models.values() for spec in specs if _is_from_hub(spec)],
        _missing(config, models, names, engine),
    )


class _Calls(NamedTuple):
    """Calls of one kind, the tokens that each is guessed to take, and how often one question may be asked."""

    model: str
    number: int
    rounds: int
    prompt: int
    completion: int


def _by_model(asked: Sequence[_Calls], numbers: Sequence[int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for calls, number in zip(asked, numbers, strict=True):
        found[calls.model] = found.get(calls.model, 0) + number
    return found


def _tokens(asked: Sequence[_Calls], numbers: Sequence[int]) -> tuple[int, int]:
    pairs = list(zip(asked, numbers, strict=True))
    return sum(calls.prompt * number for calls, number in pairs), sum(
        calls.completion * number for calls, number in pairs
    )


def _calls(config: CurationConfig, stages: list[str], num_rows: int) -> list[_Calls]:
    calls: list[_Calls] = []
    num_written = 0
    # whoever looks at a clip is shown all its frames; how many clips a video gives is known when it is cut
    num_images = config.caption.num_frames if config.is_of_videos else 1
    looking = num_images * IMAGE_TOKENS + PROMPT_TOKENS
    if "caption" in stages:
        for spec in config.caption.captioners:
            asked = _of_clips if config.is_of_videos else _of_pictures
            calls += asked(config, spec, num_rows, looking)
            num_written += num_rows * (CANDIDATES_A_CLIP if config.is_of_videos else len(config.caption.styles))
    if "verify" in stages:
        raw = num_rows if config.caption.use_raw and config.verify.verify_raw else 0
        for spec in config.verify.verifiers:
            calls.append(_Calls(f"verifier {_name(spec)}", num_written + raw, ROUNDS, looking, VERDICT_TOKENS))
    if "judge" in stages and config.judge.judge is not None:
        calls.append(_Calls(f"judge {_name(config.judge.judge)}", num_rows, ROUNDS, looking, VERDICT_TOKENS))
    return calls


def _of_pictures(config: CurationConfig, spec: Mapping[str, Any], num_rows: int, looking: int) -> list[_Calls]:
    limits = config.thresholds.captions
    has_rules = limits.max_words is not None or limits.min_noun_ratio is not None
    number = num_rows * len(config.caption.styles)
    rounds = ROUNDS * 2 if has_rules else ROUNDS
    return [_Calls(f"captioner {_name(spec)}", number, rounds, looking, CAPTION_TOKENS)]


def _of_clips(config: CurationConfig, spec: Mapping[str, Any], num_rows: int, looking: int) -> list[_Calls]:
    """Those about frames, about the whole, and about text alone, by which captions are fused."""
    captioner, fuser = f"captioner {_name(spec)}", config.caption.fuser
    num_frames = config.caption.num_frames
    fused = PROMPT_TOKENS + (num_frames + 1) * CAPTION_TOKENS
    return [
        _Calls(captioner, num_rows * num_frames, ROUNDS, IMAGE_TOKENS + PROMPT_TOKENS, CAPTION_TOKENS),
        _Calls(captioner, num_rows, ROUNDS, looking, CAPTION_TOKENS),
        _Calls(captioner if fuser is None else f"fuser {_name(fuser)}", num_rows, ROUNDS, fused, CAPTION_TOKENS),
    ]


def _name(spec: Mapping[str, Any]) -> str:
    return str(spec.get("name") or spec.get("model") or spec.get("kind"))


def _is_from_hub(spec: Mapping[str, Any]) -> bool:
    model = spec.get("model")
    is_endpoint = bool(spec.get("base_url")) or ":" in str(spec.get("kind", ""))
    return isinstance(model, str) and not is_endpoint and not Path(model).expanduser().exists()


def _missing(
    config: CurationConfig, models: Mapping[str, list[ModelSpec]], stages: list[str], engine: str
) -> list[str]:
    needed = [module for stage in stages for module in NEEDED.get(stage, ())]
    tagger = OF_TAGGERS.get(config.caption.tagger.get("kind") or DEFAULTS["tagger"])
    if tagger is not None and not {"caption", "ground"}.isdisjoint(stages):
        needed.append(tagger)
    if any(spec.get("base_url") for specs in models.values() for spec in specs):
        needed += OF_ENDPOINTS
    if engine == "ray":
        needed.append("ray")
    return [PACKAGES[module] for module in dict.fromkeys(needed) if not is_installed(module)]
