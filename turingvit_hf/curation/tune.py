# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Other thresholds on the values that a run has stored: what would change, without measuring anything anew."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turingvit_hf.curation.config_files import config_from_dict
from turingvit_hf.curation.decisions import Thresholds
from turingvit_hf.curation.outcomes import DROPPED, KEPT
from turingvit_hf.curation.report.summary import Judged, judge_row
from turingvit_hf.curation.selection import better_shares, is_eligible, rank_candidates
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.errors import InputError


# examples of each change that are named
NUM_EXAMPLES = 5


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
        unmeasured: rows that would be kept but were not followed any further when they were dropped, so that a run
            has to caption and score them.
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


def tune(path: str | Path, values: Mapping[str, Any]) -> Tuning:
    """Return what a run would keep under other thresholds, from what it has stored, in one or two passes over it.

    Args:
        path: the run folder.
        values: new thresholds by `section.name`, such as `{"quality.min_side": 128, "score.top_fraction": 0.3}`;
            None switches one off. Those of `duplicates` decide what is measured, so a run has to apply them.

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
    shares = _shares(run, new)
    for row in run.iterate_rows():
        _compare(result, row, _chosen_anew(row, new, shares), (old, new))
    return result


def _with(run: RunFolder, values: Mapping[str, Any]) -> Thresholds:
    plain = run.config.to_dict()
    for name, value in values.items():
        section, _, threshold = name.partition(".")
        if section == "duplicates":
            raise InputError(
                f"{name}: duplicates are found by a run; change it there: turingvit curate run --out {run.path} "
                f"--set thresholds.{name}=... --force"
            )
        if threshold not in plain["thresholds"].get(section, {}):
            known = [f"{s}.{t}" for s, entries in plain["thresholds"].items() for t in entries if s != "duplicates"]
            raise InputError(f"there is no threshold {name!r}; there are {', '.join(known)}")
        plain["thresholds"][section][threshold] = value
    return config_from_dict(plain, "the new thresholds").thresholds


def _compare(result: Tuning, row: Mapping[str, Any], anew: Mapping[str, Any], pair: Sequence[Thresholds]) -> None:
    before, after = judge_row(row, pair[0]), judge_row(anew, pair[1])
    result.before[before.status] += 1
    result.after[after.status] += 1
    for place, judged in enumerate((before, after)):
        if judged.drop:
            result.reasons.setdefault((judged.drop.stage, judged.drop.reason), [0, 0])[place] += 1
    if before.status != after.status:
        kind = (before.status, after.status)
        result.crossed[kind] += 1
        if len(result.examples.setdefault(kind, [])) < NUM_EXAMPLES:
            result.examples[kind].append(row["sample_id"])
    if row.get("best") is not None and anew.get("best") is not None and row["best"] != anew["best"]:
        result.chosen_anew += 1
    if before.status == DROPPED and after.status == KEPT and _was_given_up(before):
        result.unmeasured += 1


def _was_given_up(judged: Judged) -> bool:
    """Whether later stages left the row alone."""
    return judged.drop is not None and judged.drop.stage not in ("score", "ground")


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
    ranks = rank_candidates(
        [candidate.get("overall") for candidate in candidates],
        [candidate.get("alignment") for candidate in candidates],
        [is_eligible(candidate, thresholds.captions) for candidate in candidates],
    )
    return ranks.index(0) if 0 in ranks else None


def _shares(run: RunFolder, thresholds: Thresholds) -> dict[str, float | None]:
    """Where each scored row stands among all, by its best candidate under these thresholds."""
    pairs = list(_best_scores(run, thresholds))
    names = [name for name, _ in pairs]
    return dict(zip(names, better_shares([score for _, score in pairs], names), strict=True))


def _best_scores(run: RunFolder, thresholds: Thresholds) -> Iterator[tuple[str, float | None]]:
    for row in run.iterate_rows():
        if "best" in row:
            best = _best(row, thresholds)
            yield row["sample_id"], None if best is None else row["candidates"][best].get("overall")
