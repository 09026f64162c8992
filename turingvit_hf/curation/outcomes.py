# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How every row ends: kept, dropped (by which stage, why, value, threshold), or an error (what, how often tried)."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from turingvit_hf import __version__
from turingvit_hf.curation.decisions import Drop, decide
from turingvit_hf.curation.stages import enabled_stages
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.tables import BOX, table_of, write_tables


KEPT, DROPPED, ERROR = "kept", "dropped", "error"

_TEXT, _NUMBER, _INTEGER = pa.string(), pa.float64(), pa.int64()
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("sample_id", "source", "key", "source_uri", "status", "drop_stage", "drop_reason"), _TEXT),
        "drop_value": _NUMBER,
        "drop_detail": _TEXT,
        "drop_threshold": _NUMBER,
        "error_stage": _TEXT,
        "error": _TEXT,
        "attempts": _INTEGER,
        **dict.fromkeys(("caption", "caption_origin", "caption_from", "captioner", "captioner_revision"), _TEXT),
        **dict.fromkeys(("prompt_style", "prompt_hash", "parameters_hash", "verifier"), _TEXT),
        "verdict_quality": _NUMBER,
        "raw_caption": _TEXT,
        "num_candidates": _INTEGER,
        **dict.fromkeys(("T_raw", "T", "A", "G", "overall", "better_share"), _NUMBER),
        "scorer": _TEXT,
        "tau": _NUMBER,
        "batch_size": _INTEGER,
        "K": _INTEGER,
        "pool": _TEXT,
        "phrases": pa.list_(pa.string()),
        "boxes": pa.list_(BOX),
        "grounding_recall": _NUMBER,
        **dict.fromkeys(("sha256", "phash", "dhash", "color_grid", "thumbnail"), _TEXT),
        "width": _INTEGER,
        "height": _INTEGER,
        **dict.fromkeys(("start_ms", "end_ms", "first_frame", "num_frames", "shot"), _INTEGER),
        **dict.fromkeys(("fps", "motion", "motion_variation", "adjacent_mean", "adjacent_min"), _NUMBER),
        **dict.fromkeys(("judge_quality", "judge_relevance", "judge_consistency", "judge_mean"), _NUMBER),
        "dup_of": _TEXT,
        **dict.fromkeys(("license", "pipeline_version", "config_hash", "stage_versions"), _TEXT),
    }
)
# what a candidate brings to its row, by the name that it has there
OF_CANDIDATE = {
    "caption": "text",
    "caption_origin": "origin",
    "caption_from": "copied_from",
    "captioner": "captioner",
    "captioner_revision": "captioner_revision",
    "prompt_style": "style",
    "prompt_hash": "prompt_hash",
    "parameters_hash": "parameters_hash",
    "verifier": "verifier",
    "T_raw": "entropy",
    "T": "text_quality",
    "A": "alignment",
    "G": "ambiguity",
    "overall": "overall",
}
CANDIDATES = pa.schema(
    {
        "sample_id": _TEXT,
        "candidate": _INTEGER,
        "is_best": pa.bool_(),
        **dict.fromkeys(("text", "origin", "copied_from", "captioner", "captioner_revision", "style"), _TEXT),
        **dict.fromkeys(("prompt_hash", "parameters_hash"), _TEXT),
        **dict.fromkeys(("num_words", "seed", "rank"), _INTEGER),
        **dict.fromkeys(("noun_ratio", "entropy", "text_quality", "alignment", "ambiguity", "overall"), _NUMBER),
        "flags": pa.list_(pa.string()),
        "verifier": _TEXT,
        "grounded": pa.bool_(),
        "hallucinated_phrases": pa.list_(pa.string()),
        "verdict_quality": _NUMBER,
    }
)


@dataclass
class Outcomes:
    """How many rows ended how.

    Attributes:
        num_rows: that were read.
        num_kept: that passed everything.
        dropped: by (stage, reason).
        errors: by stage.
        num_retriable: errors that may be tried again.
    """

    num_rows: int = 0
    num_kept: int = 0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    num_retriable: int = 0

    @property
    def num_dropped(self) -> int:
        """How many were dropped."""
        return self.dropped.total()

    @property
    def num_errors(self) -> int:
        """How many ended as errors."""
        return self.errors.total()

    @property
    def error_rate(self) -> float:
        """The share of errors."""
        return self.num_errors / self.num_rows if self.num_rows else 0.0

    def describe(self) -> str:
        """The counts as lines for people."""
        lines = [
            f"{self.num_rows:,} rows in = {self.num_kept:,} kept + {self.num_dropped:,} dropped + "
            f"{self.num_errors:,} errors"
        ]
        lines += [f"  dropped by {stage}: {count:,} {reason}" for (stage, reason), count in self.dropped.most_common()]
        lines += [f"  errors in {stage}: {count:,}" for stage, count in self.errors.most_common()]
        if self.num_retriable:
            lines.append(f"  {self.num_retriable:,} of the errors may be tried again: turingvit curate retry")
        if spent := self.num_errors - self.num_retriable:
            more = "run --set max_attempts=N --force allows more"
            lines.append(f"  {spent:,} of the errors were tried max_attempts times: {more}")
        return "\n".join(lines)


def outcome_of(row: Mapping[str, Any], thresholds: Any) -> tuple[str, Drop | None]:
    """Return how a row ended, by all that is stored of it, and why if it was dropped."""
    drop = decide(row, thresholds)
    if drop is not None:
        return DROPPED, _of_its_stage(drop, row.get("stages") or ())
    return (ERROR if row["errors"] else KEPT), None


def _of_its_stage(drop: Drop, stages: Collection[str]) -> Drop:
    """What `measure` decides of pictures is found by other stages of clips: faults by `cut`, sizes by `motion`."""
    if drop.stage != "measure" or "cut" not in stages:
        return drop
    return replace(drop, stage="cut" if drop.threshold is None else "motion")


def best_candidate(row: Mapping[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """Return the number of a row's best candidate and the candidate; None and empty where it has none."""
    best = row.get("best")
    return (None, {}) if best is None else (best, row["candidates"][best])


def write_outcomes(run: RunFolder) -> Outcomes:
    """Write rows.parquet and candidates.parquet and return the counts.

    Raises:
        RuntimeError: a row was lost, or has no place; that is a fault of this package.
    """
    outcomes = Outcomes()
    constants = _constants(run)
    last = enabled_stages(run.config)[-1].name

    def tables() -> Iterator[pa.Table]:
        for shard in run.shards:
            rows = []
            for row in run.read_shard(shard.number):
                status, drop = outcome_of(row, run.config.thresholds)
                _count(outcomes, row, status, drop, run.config.max_attempts)
                if status == KEPT and last not in row["stages"]:
                    raise RuntimeError(
                        f"row {row['sample_id']} is neither dropped nor an error, and stage {last} has nothing of it"
                    )
                rows.append(_final(row, status, drop) | constants)
            yield table_of(rows, SCHEMA)

    write_tables(run.path / "rows.parquet", tables(), SCHEMA)
    first = enabled_stages(run.config)[0].name
    manifests = [run.manifest(first, shard.number) for shard in run.shards]
    expected = sum(manifest["rows"] for manifest in manifests if manifest is not None)
    total = outcomes.num_kept + outcomes.num_dropped + outcomes.num_errors
    if not outcomes.num_rows == total == expected:
        raise RuntimeError(f"{expected} rows were read, {outcomes.num_rows} written and {total} counted")
    write_tables(run.path / "candidates.parquet", _candidate_tables(run), CANDIDATES)
    return outcomes


def _final(row: Mapping[str, Any], status: str, drop: Drop | None) -> dict[str, Any]:
    values = {name: row.get(name) for name in SCHEMA.names}
    _, best = best_candidate(row)
    values |= {name: best.get(source) for name, source in OF_CANDIDATE.items()}
    values |= {
        "status": status,
        "num_candidates": len(row.get("candidates") or ()),
        "verdict_quality": (best.get("verdict") or {}).get("quality"),
        "error": None,
    }
    if drop is not None:
        is_text = isinstance(drop.value, str)
        values |= {
            "drop_stage": drop.stage,
            "drop_reason": drop.reason,
            "drop_value": None if is_text or drop.value is None else float(drop.value),
            "drop_detail": drop.value if is_text else None,
            "drop_threshold": None if drop.threshold is None else float(drop.threshold),
        }
    elif row["errors"]:
        values["error_stage"], values["error"] = next(iter(row["errors"].items()))
    return values


def _count(outcomes: Outcomes, row: Mapping[str, Any], status: str, drop: Drop | None, max_attempts: int) -> None:
    outcomes.num_rows += 1
    if status == KEPT:
        outcomes.num_kept += 1
    elif drop is not None:
        outcomes.dropped[drop.stage, drop.reason] += 1
    else:
        outcomes.errors[next(iter(row["errors"]))] += 1
        outcomes.num_retriable += row["attempts"] < max_attempts


def _constants(run: RunFolder) -> dict[str, Any]:
    """What all rows of a run have in common."""
    config = run.config
    stages = enabled_stages(config)
    facts = (run.manifest("score", None) or {}).get("facts", {}) if config.score.enabled else {}
    return {
        "scorer": facts.get("scorer"),
        "tau": facts.get("tau"),
        "batch_size": facts.get("batch_size"),
        "K": facts.get("num_batchings"),
        "pool": facts.get("pool"),
        "pipeline_version": __version__,
        "config_hash": config.hash(),
        "stage_versions": json.dumps({stage.name: stage.hash(config) for stage in stages}),
    }


def _candidate_tables(run: RunFolder) -> Iterator[pa.Table]:
    for shard in run.shards:
        rows = []
        for row in run.read_shard(shard.number):
            chosen, _ = best_candidate(row)
            for number, candidate in enumerate(row.get("candidates") or ()):
                verdict = candidate.get("verdict") or {}
                rows.append(
                    {name: candidate.get(name) for name in CANDIDATES.names}
                    | {"sample_id": row["sample_id"], "candidate": number, "is_best": number == chosen}
                    | {name: verdict.get(name) for name in ("grounded", "hallucinated_phrases")}
                    | {"verdict_quality": verdict.get("quality")}
                )
        yield table_of(rows, CANDIDATES)
