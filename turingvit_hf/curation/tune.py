# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Other thresholds on the values that a run has stored: what would change, without measuring anything anew."""

import dataclasses
import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from turingvit_hf.curation.beginning import begin
from turingvit_hf.curation.config_files import config_from_dict
from turingvit_hf.curation.decisions import RULES, Thresholds, threshold_names
from turingvit_hf.curation.duplicates import duplicate_columns
from turingvit_hf.curation.outcomes import DROPPED, ERROR, KEPT
from turingvit_hf.curation.report.summary import Judged, judge_row
from turingvit_hf.curation.selection import best_without_scores, better_shares, is_eligible, rank_candidates
from turingvit_hf.curation.semantic import BestScores, stored_semantic_duplicates
from turingvit_hf.curation.stages import enabled_stages
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.errors import InputError


# examples of each change that are named
NUM_EXAMPLES = 5
# thresholds that stored values depend on
OF_A_RUN = (
    *(f"duplicates.{name}_distance" for name in ("phash", "dhash", "color")),
    *(f"captions.{name}" for name in ("max_words", "min_noun_ratio", "noun_denominator")),
)
# stages after those that compare rows: a duplicate of a row that they drop is no better off
LATE = ("caption", "verify", "score", "ground")
SEMANTIC = "duplicates.semantic_similarity"
# similarities of which it is told how many semantic duplicates they would make, and rows up to which it is
SWEPT = (0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99)
MOST_SWEPT = 20_000
# what rows are judged by; of candidates what they are chosen by
COLUMNS = (
    *("fault", "opt_out", "dup_of", "dup_kind", "dup_distance", "best", "caption"),
    *dict.fromkeys(rule.value for rule in RULES),
    "edge_share",
    *(
        f"candidates.list.element.{name}"
        for name in ("text", "origin", "copied_from", "flags.list.element", "verdict.grounded", "verdict.quality")
    ),
    *(f"candidates.list.element.{name}" for name in ("overall", "alignment")),
)


@dataclass
class Tuning:
    """What other thresholds would do.

    Attributes:
        thresholds: the new ones.
        changes: `section.name`, its old and its new value.
        before, after: rows by status.
        reasons: rows dropped by (stage, reason), before and after.
        crossed: rows whose status changes, by (from, to), and some of their ids.
        chosen_anew: rows whose best caption changes.
        unmeasured: rows that would be kept as far as they were followed; a run has to take them through the stages
            after the one that dropped them.
        freed: rows that are duplicates of rows that would be dropped before; a run keeps the best of what is left.
        semantic: where that threshold changes, how many semantic duplicates there are by this and other similarities.
    """

    thresholds: Thresholds
    changes: list[tuple[str, Any, Any]]
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    reasons: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    crossed: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    chosen_anew: int = 0
    unmeasured: int = 0
    freed: int = 0
    semantic: dict[float, int] = field(default_factory=dict)


def tune(path: str | Path, values: Mapping[str, Any]) -> Tuning:
    """Return what a run would keep under other thresholds, from what it has stored, in two passes over it.

    Thresholds of verdicts, scores, boxes, clips and judges give what a run with them gives. Those of quality change
    which rows duplicates and captions are compared with, which is what a run does anew: rows for which that matters
    are counted as `unmeasured` and `freed`, and ambiguities stay as they are stored.

    Args:
        path: the run folder.
        values: new thresholds by `section.name`, such as `{"quality.min_side": 128, "score.top_fraction": 0.3}`;
            None switches one off. Those in `OF_A_RUN` decide what is measured and asked, so that a run has to.

    Raises:
        InputError: it is no run folder, or there is no such threshold, or a value is not allowed.
    """
    run = RunFolder(path)
    old, new = run.config.thresholds, _with(run, values)
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)
    changes = [
        (f"{section}.{name}", before[section][name], value)
        for section, entries in after.items()
        for name, value in entries.items()
        if value != before[section][name]
    ]
    result = Tuning(new, changes)
    shares, gone, best = _look_over(run, new)
    semantic = {} if not run.config.score.semantic else stored_semantic_duplicates(run, best, new)
    if any(name == SEMANTIC for name, _, _ in changes):
        result.semantic = _sweep(run, best, new)
    last = enabled_stages(run.config)[-1].name
    for row in run.iterate_rows(COLUMNS):
        anew = _chosen_anew(row, new, shares)
        if row["sample_id"] in semantic and row.get("dup_kind") in (None, "semantic"):
            anew = anew | duplicate_columns(semantic[row["sample_id"]])
        before, after = judge_row(row, old), judge_row(anew, new)
        _count(result, row["sample_id"], before, after)
        if row.get("best") is not None and anew.get("best") is not None and row["best"] != anew["best"]:
            result.chosen_anew += 1
        if (before.status, after.status) == (DROPPED, KEPT) and last not in row["stages"]:
            result.unmeasured += 1
        if anew.get("dup_of") in gone and after.drop is not None and "duplicate" in after.drop.reason:
            result.freed += 1
    return result


def as_table(tuning: Tuning) -> Group:
    """Return the tuning for a terminal, as rich's renderables."""
    rows = Table("", "before", "after", "", box=None, pad_edge=False)
    for name, before, after in tuning.changes:
        rows.add_row(Text(name), Text(str(before)), Text(str(after)), "")
    if not tuning.changes:
        return Group(Text("these are the thresholds of the run already"))
    rows.add_section()
    for status in (KEPT, DROPPED, ERROR):
        rows.add_row(status, *_counts(tuning.before[status], tuning.after[status]))
    for (stage, reason), (before, after) in sorted(tuning.reasons.items(), key=lambda item: -max(item[1])):
        rows.add_row(Text(f"  {stage}: {reason}", "dim"), *_counts(before, after))
    parts: list[Any] = [rows]
    for kind, count in tuning.crossed.items():
        more = ", ..." if count > len(tuning.examples[kind]) else ""
        parts.append(Text(f"{count:,} from {kind[0]} to {kind[1]}: {', '.join(tuning.examples[kind])}{more}"))
    notes = {
        "get another caption": tuning.chosen_anew,
        "of those kept were not followed any further when they were dropped: a run does that": tuning.unmeasured,
        "are duplicates of rows that would be dropped: a run keeps the best of what is left": tuning.freed,
    }
    parts += [Text(f"{count:,} {what}") for what, count in notes.items() if count]
    if tuning.semantic:
        counts = ", ".join(f"{similarity:g}: {count:,}" for similarity, count in sorted(tuning.semantic.items()))
        parts.append(Text(f"semantic duplicates by similarity: {counts}"))
    return Group(*parts)


def _counts(before: int, after: int) -> tuple[str, str, str]:
    return f"{before:,}", f"{after:,}", f"{after - before:+,}" if after != before else ""


def apply(path: str | Path, tuning: Tuning) -> RunFolder:
    """Write the thresholds of a tuning into the config of a run, which the next `run` of its folder goes on with.

    Raises:
        InputError: it is no run folder.
    """
    run = RunFolder(path)
    return begin(run.path, dataclasses.replace(run.config, thresholds=tuning.thresholds), force=True)


def _with(run: RunFolder, values: Mapping[str, Any]) -> Thresholds:
    plain = run.config.to_dict()
    known = [name for name in threshold_names() if not name.startswith(OF_A_RUN)]
    for name, value in values.items():
        if name not in threshold_names():
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise InputError(f"there is no threshold {name!r}; {hint}")
        if name not in known:
            raise InputError(
                f"{name} decides what a run measures or asks for; change it there: turingvit curate run {run.path} "
                f"--config {run.path / 'config.yaml'} --set thresholds.{name}={value} --force"
            )
        section, _, threshold = name.partition(".")
        plain["thresholds"][section][threshold] = value
    return config_from_dict(plain, "the new thresholds").thresholds


def _count(result: Tuning, sample_id: str, before: Judged, after: Judged) -> None:
    result.before[before.status] += 1
    result.after[after.status] += 1
    for place, judged in enumerate((before, after)):
        if judged.drop:
            result.reasons.setdefault((judged.drop.stage, judged.drop.reason), [0, 0])[place] += 1
    if before.status != after.status:
        kind = (before.status, after.status)
        result.crossed[kind] += 1
        if len(result.examples.setdefault(kind, [])) < NUM_EXAMPLES:
            result.examples[kind].append(sample_id)


def _chosen_anew(row: dict[str, Any], thresholds: Thresholds, shares: Mapping[str, float | None]) -> dict[str, Any]:
    """The row with its best candidate chosen by other thresholds."""
    if "best" not in row:
        return row
    best = _best(row, thresholds)
    chosen = {} if best is None else row["candidates"][best]
    return row | {
        "best": best,
        "overall": chosen.get("overall"),
        "alignment": chosen.get("alignment"),
        "better_share": shares.get(row["sample_id"]),
    }


def _best(row: Mapping[str, Any], thresholds: Thresholds) -> int | None:
    candidates = row.get("candidates") or ()
    if all(candidate.get("overall") is None for candidate in candidates):
        return best_without_scores(candidates, thresholds.captions)
    ranks = rank_candidates(
        [candidate.get("overall") for candidate in candidates],
        [candidate.get("alignment") for candidate in candidates],
        [is_eligible(candidate, thresholds.captions) for candidate in candidates],
    )
    return ranks.index(0) if 0 in ranks else None


def _sweep(run: RunFolder, best: Mapping[str, BestScores], thresholds: Thresholds) -> dict[float, int]:
    """How many semantic duplicates there are by the similarity that is asked for and by others; nothing where there
    are so many rows that it would take long."""
    asked = thresholds.duplicates.semantic_similarity
    if len(best) > MOST_SWEPT or not run.config.score.semantic:
        return {}
    counts = {}
    for similarity in {*SWEPT, *([asked] if asked is not None else [])}:
        duplicates = dataclasses.replace(thresholds.duplicates, semantic_similarity=similarity)
        found = stored_semantic_duplicates(run, best, dataclasses.replace(thresholds, duplicates=duplicates))
        counts[similarity] = sum(duplicate is not None for duplicate in found.values())
    return counts


def _look_over(
    run: RunFolder, thresholds: Thresholds
) -> tuple[dict[str, float | None], set[str], dict[str, BestScores]]:
    """Where each row that gets as far as scoring stands among all, by its best candidate; the ids of those that were
    not dropped before, and would be now; and the scores of the former."""
    names, scores, gone, found = [], [], set(), {}
    for row in run.iterate_rows(COLUMNS):
        drop = judge_row(row, thresholds).drop
        if drop is not None and drop.stage not in LATE and "duplicate" not in drop.reason:
            gone.add(row["sample_id"])
        elif "best" in row:
            best = _best(row, thresholds)
            chosen = {} if best is None else row["candidates"][best]
            names.append(row["sample_id"])
            scores.append(chosen.get("overall"))
            if run.config.score.enabled:
                found[row["sample_id"]] = BestScores(chosen.get("overall"), chosen.get("alignment"))
    return dict(zip(names, better_shares(scores, names), strict=True)), gone, found
