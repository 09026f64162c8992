# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs: begun, gone on with, tried again where rows ended as errors, scored anew."""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from turingvit_hf.curation.beginning import begin
from turingvit_hf.curation.config import CurationConfig
from turingvit_hf.curation.config_files import with_overrides
from turingvit_hf.curation.engines import Engine, EngineOptions, make_engine
from turingvit_hf.curation.outcomes import Outcomes, write_outcomes
from turingvit_hf.curation.progress import RunProgress
from turingvit_hf.curation.shard_work import Task
from turingvit_hf.curation.stages import Stage, enabled_stages
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.stored import count_retriable, is_current
from turingvit_hf.curation.whole_work import run_whole
from turingvit_hf.errors import InputError


# rows of a stage after which its share of errors is taken to mean something
ENOUGH_ROWS = 1000
# what `score` may change: all else would need images or models
SCORABLE = (
    *("score", "thresholds.score", "thresholds.duplicates.semantic_similarity"),
    *("thresholds.captions.require_grounded", "thresholds.captions.min_verdict"),
)

logger = logging.getLogger(__name__)


class TooManyErrorsError(RuntimeError):
    """More rows ended as errors than the config allows. What was done is stored, and `retry` goes on from there."""


def run(
    config: CurationConfig,
    out: str | Path,
    *,
    engine: EngineOptions | None = None,
    force: bool = False,
    from_stage: str | None = None,
    shards: range | None = None,
    progress: RunProgress | None = None,
) -> Outcomes | None:
    """Curate, or go on where an earlier call with the same config and folder stopped.

    Args:
        config: of the run.
        out: the run folder.
        engine: where the work is done; None: in this process.
        force: whether a folder that was begun with another config is gone on with; what does not depend on the
            changes stays.
        from_stage: do this stage and all after it anew; answered calls of models stay answered.
        shards: do only these, as far as no stage over the whole table stops them; for jobs that share a run.
        progress: what is shown meanwhile; None: nothing.

    Returns:
        How the rows ended; None where `shards` kept the run from being finished.

    Raises:
        InputError: config, folder or data is at fault.
        TooManyErrorsError: more rows ended as errors than `max_error_rate`.
    """
    anew = _stages_from(config, from_stage) if from_stage is not None else []
    folder = begin(out, config, force=force)
    folder.remove_from(anew)
    return _run(folder, engine or EngineOptions(), progress or _Silent(), retry=False, shards=shards)


def retry(
    out: str | Path, *, engine: EngineOptions | None = None, progress: RunProgress | None = None
) -> Outcomes | None:
    """Try the rows again that ended as errors, as often as the config allows, and take them through later stages.

    Raises:
        InputError: there is no run.
        TooManyErrorsError: as `run`.
    """
    return _run(RunFolder(out), engine or EngineOptions(), progress or _Silent(), retry=True, shards=None)


def score(
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    engine: EngineOptions | None = None,
    progress: RunProgress | None = None,
) -> Outcomes | None:
    """Score a run anew from stored embeddings, without images or captioners.

    Args:
        out: the run folder.
        overrides: `"score.key=value"` and thresholds of scores and verdicts, as `load_config` takes them.
        engine: where the work is done; None: in this process.
        progress: what is shown meanwhile; None: nothing.

    Raises:
        InputError: there is no run, nothing is embedded yet, or an override is about something else.
    """
    folder = RunFolder(out)
    if not folder.config.score.enabled:
        raise InputError(f"{folder.path} has score.enabled=no: begin it anew with scores, or --force")
    overrides = list(overrides)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not any(key == place or key.startswith(f"{place}.") for place in SCORABLE):
            raise InputError(f"--set {override}: score changes {', '.join(SCORABLE)} only; for all else there is run")
    missing = [shard.number for shard in folder.shards if folder.manifest("embed", shard.number) is None]
    if missing:
        raise InputError(f"{folder.path}: {len(missing)} of {len(folder.shards)} shards are not embedded yet")
    config = with_overrides(folder.config, overrides)
    if not config.score.enabled:
        raise InputError("--set score.enabled: score is there to score; run switches it off")
    return run(config, out, engine=engine, force=True, from_stage="score", progress=progress)


class _Silent(RunProgress):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__(as_json=True, write=lambda line: None)


def _stages_from(config: CurationConfig, name: str) -> list[str]:
    names = [stage.name for stage in enabled_stages(config)]
    if name not in names:
        raise InputError(f"--from-stage {name}: there is no such stage in this run; it has {', '.join(names)}")
    return names[names.index(name) :]


def _run(
    folder: RunFolder, options: EngineOptions, progress: RunProgress, *, retry: bool, shards: range | None
) -> Outcomes | None:
    numbers = [shard.number for shard in folder.shards if shards is None or shard.number in shards]
    if not numbers:
        asked = "" if shards is None else f" {shards.start}:{shards.stop}"
        raise InputError(f"there are no shards{asked}: the run has {len(folder.shards)}, numbered from 0")
    with make_engine(options) as engine:
        try:
            for stage in enabled_stages(folder.config):
                if not stage.is_whole:
                    _run_shards(folder, stage, engine, progress, numbers, retry=retry)
                elif shards is not None and not _is_reached(folder, stage):
                    logger.info("stage %s waits for all %d shards", stage.name, len(folder.shards))
                    return None
                elif not is_current(folder, stage, None):
                    progress.begin(stage.name, 1)
                    progress.advance(run_whole(folder, stage, engine))
                    progress.end()
        finally:
            progress.end()
    last = enabled_stages(folder.config)[-1]
    if shards is not None and not _is_done(folder, last):
        return None
    outcomes = write_outcomes(folder)
    _check_error_rate(folder.config, outcomes.num_errors, outcomes.num_rows, outcomes.num_retriable)
    return outcomes


def _run_shards(
    folder: RunFolder, stage: Stage, engine: Engine, progress: RunProgress, numbers: list[int], *, retry: bool
) -> None:
    tasks = [
        Task(str(folder.path.absolute()), stage.name, number, retry)
        for number in numbers
        if not is_current(folder, stage, number) or (retry and count_retriable(folder, stage, number))
    ]
    if not tasks:
        return
    stage.steps(folder.config)  # an option that a model does not have should not wait for a worker
    progress.begin(stage.name, len(tasks))
    counts: Counter[str] = Counter()
    for manifest in engine.run(tasks):
        progress.advance(manifest)
        counts.update({name: manifest[name] for name in ("rows", "errors", "retriable")})
        if counts["rows"] >= ENOUGH_ROWS:
            _check_error_rate(folder.config, counts["errors"], counts["rows"], counts["retriable"], stage.name)
    progress.end()
    _check_error_rate(folder.config, counts["errors"], counts["rows"], counts["retriable"], stage.name)


def _check_error_rate(
    config: CurationConfig, num_errors: int, num_rows: int, num_retriable: int, stage: str = ""
) -> None:
    if num_errors > config.max_error_rate * num_rows:
        place = f" in stage {stage}" if stage else ""
        spent = f"each was tried max_attempts={config.max_attempts} times"
        hope = "`retry` tries them again" if num_retriable else spent
        raise TooManyErrorsError(
            f"{num_errors:,} of {num_rows:,} rows ended as errors{place}, more than max_error_rate="
            f"{config.max_error_rate}; {hope}"
        )


def _is_done(folder: RunFolder, stage: Stage) -> bool:
    numbers: list[int | None] = [None] if stage.is_whole else [shard.number for shard in folder.shards]
    return all(is_current(folder, stage, number) for number in numbers)


def _is_reached(folder: RunFolder, stage: Stage) -> bool:
    """Whether all shards have got to a stage over the whole table."""
    for earlier in enabled_stages(folder.config):
        if earlier.name == stage.name:
            return True
        if not _is_done(folder, earlier):
            return False
    raise AssertionError(f"{stage.name} is not enabled")


def status(out: str | Path) -> dict[str, Any]:
    """Return how far a run has come, as plain values: of each stage how many shards and rows are done, kept, dropped
    and errors, and what calls of models took.

    Raises:
        InputError: there is no run.
    """
    folder = RunFolder(out)
    stages = []
    for stage in enabled_stages(folder.config):
        numbers: list[int | None] = [None] if stage.is_whole else [shard.number for shard in folder.shards]
        manifests = [found for number in numbers if (found := folder.manifest(stage.name, number)) is not None]
        usage: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        for manifest in manifests:
            usage.update(manifest["usage"])
            dropped.update(manifest["dropped"])
        stages.append(
            {
                "stage": stage.name,
                "done": sum(is_current(folder, stage, number) for number in numbers),
                "of": len(numbers),
                **{name: sum(manifest[name] for manifest in manifests) for name in ("rows", "kept", "errors")},
                "retriable": sum(count_retriable(folder, stage, number) for number in numbers if number is not None),
                "dropped": dict(dropped),
                "usage": dict(usage),
                "seconds": round(sum(manifest["seconds"] for manifest in manifests), 1),
            }
        )
    return {
        "folder": str(folder.path),
        "config_hash": folder.facts["config_hash"],
        "sources": folder.facts["sources"],
        "shards": len(folder.shards),
        "is_finished": all(entry["done"] == entry["of"] for entry in stages) and folder.has_outcomes,
        "stages": stages,
    }
