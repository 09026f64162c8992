# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The numbers of a run's report, gathered in one pass over its rows; and the rows that are worth looking at."""

import heapq
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from turingvit_hf.curation.decisions import RULES, Drop, Rule, Thresholds
from turingvit_hf.curation.outcomes import DROPPED, ERROR, KEPT, outcome_of
from turingvit_hf.curation.selection import is_eligible
from turingvit_hf.curation.tables import digest_of


STATUSES = (KEPT, DROPPED, ERROR)
# pictures of each kind that are shown
GRID = 24
# in which decisions are taken
STAGE_ORDER = (
    *("cut", "measure", "deduplicate", "motion", "consistency"),
    *("caption", "verify", "judge", "score", "ground"),
)
# whose distribution is shown; the last has no threshold of its own
MEASURED = tuple(dict.fromkeys((*(rule.value for rule in RULES), "edge_share")))

# columns of answers that did not come, by stage
FAILURES = {"caption": "caption_failures", "verify": "verification_failures"}


class Judged(NamedTuple):
    """What became of a row."""

    status: str
    drop: Drop | None


def judge_row(row: Mapping[str, Any], thresholds: Thresholds) -> Judged:
    """Return what becomes of a row as `RunFolder.iterate_rows` yields it."""
    return Judged(*outcome_of(row, thresholds))


@dataclass
class Shown:
    """A row that the report shows.

    Attributes:
        row: its stored columns.
        judged: what became of it.
        order: what it is sorted and chosen by; small comes first, of equal ones the smaller id.
        near: the threshold that it is near to, in words; empty where it is shown for something else.
    """

    row: dict[str, Any]
    judged: Judged
    order: float
    near: str = ""

    def __lt__(self, other: "Shown") -> bool:  # a heap keeps the smallest by popping the largest
        return self.place > other.place

    @property
    def place(self) -> tuple[float, str]:
        """What tells any two rows apart."""
        return self.order, self.row["sample_id"]


@dataclass
class Measured:
    """Numbers of many rows, each with a small number about its row, in as few bytes as they take.

    Attributes:
        values: one a row, float64.
        marks: one a row, 0 to 127.
    """

    values: array = field(default_factory=lambda: array("d"))
    marks: array = field(default_factory=lambda: array("b"))

    def add(self, value: float, mark: int) -> None:
        """Adds the number of a row."""
        self.values.append(value)
        self.marks.append(mark)


@dataclass
class Summary:
    """Everything that report.json and the page say.

    Attributes:
        counts: rows by status.
        drops: rows by (stage, reason), in the order of the stages.
        errors: rows by (stage, first line of the text).
        failures: answers that are missing by (stage, model, kind), whether or not their row ended as an error.
        values: of each measured value all that were measured, marked by the place of the row's status in `STATUSES`.
        wins: of captions written or found, by (what, name): how many there were, were eligible and were chosen.
        words, entropy: of each candidate, marked 1 if it was chosen.
        scores: of the best candidates in turn text quality, alignment - ambiguity, overall.
        clips: (motion, mean cosine of adjacent frames, status) of each clip.
        duplicates: the rows that were dropped as duplicates and why, by the row that was kept.
        kept, dropped, borderline, grounded: rows to show.
    """

    counts: Counter[str] = field(default_factory=Counter)
    drops: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    values: dict[str, Measured] = field(default_factory=lambda: defaultdict(Measured))
    wins: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    words: Measured = field(default_factory=Measured)
    entropy: Measured = field(default_factory=Measured)
    scores: array = field(default_factory=lambda: array("d"))
    clips: list[tuple[float, float, str]] = field(default_factory=list)
    duplicates: dict[str, list[tuple[str, Drop]]] = field(default_factory=lambda: defaultdict(list))
    kept: list[Shown] = field(default_factory=list)
    dropped: dict[tuple[str, str], list[Shown]] = field(default_factory=lambda: defaultdict(list))
    borderline: list[Shown] = field(default_factory=list)
    grounded: list[Shown] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """How many rows the run has."""
        return self.counts.total()

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain values, for report.json."""
        return {
            "rows": self.num_rows,
            **{status: self.counts[status] for status in (KEPT, DROPPED, ERROR)},
            "drops": [
                {"stage": stage, "reason": reason, "rows": count} for (stage, reason), count in self.drops.items()
            ],
            "errors": [
                {"stage": stage, "error": text, "rows": count} for (stage, text), count in self.errors.most_common()
            ],
            "failures": [
                {"stage": stage, "model": model, "kind": kind, "answers": count}
                for (stage, model, kind), count in self.failures.most_common()
            ],
            "values": {name: _quantiles(measured.values) for name, measured in self.values.items()},
            "wins": [
                {"by": by, "name": name, **{what: counts[what] for what in ("candidates", "eligible", "chosen")}}
                for (by, name), counts in self.wins.items()
            ],
            "duplicates": {"kept": len(self.duplicates), "dropped": sum(map(len, self.duplicates.values()))},
        }


def summarize(rows: Iterable[dict[str, Any]], thresholds: Thresholds, *, seed: int = 0) -> Summary:
    """Return the summary of a run's rows, in one pass. Of rows that are not shown their measured values alone stay in
    memory, 9 bytes a value.

    Args:
        rows: as `RunFolder.iterate_rows` yields them.
        thresholds: what is decided by.
        seed: of which rows are shown. The same rows are, in whatever order they come.
    """
    summary = Summary()
    for row in rows:
        judged = judge_row(row, thresholds)
        summary.counts[judged.status] += 1
        if judged.drop:
            summary.drops[judged.drop.stage, judged.drop.reason] += 1
        elif judged.status == ERROR:
            stage, text = next(iter(row["errors"].items()))
            summary.errors[stage, str(text).partition("\n")[0][:200]] += 1
        _add_values(summary, row, judged)
        _add_captions(summary, row, thresholds)
        for stage, column in FAILURES.items():
            for failure in row.get(column) or ():
                summary.failures[stage, failure["model"], failure["kind"]] += 1
        _add_shown(summary, row, judged, thresholds, seed)
    _put_in_order(summary)
    return summary


def nearest_threshold(
    row: Mapping[str, Any], judged: Judged, thresholds: Thresholds
) -> tuple[float, Rule, float] | None:
    """Return how near a row is to a threshold, as a share of the threshold, with its rule and what was measured.

    Of a kept row it is the nearest threshold, of a dropped one that which it was dropped by. None: there is none.
    """
    found = []
    for rule in RULES:
        value, threshold = row.get(rule.value), getattr(getattr(thresholds, rule.section), rule.threshold)
        is_meant = judged.drop is None or judged.drop.reason == rule.reason
        if is_meant and value is not None and threshold:
            found.append((abs(value - threshold) / abs(threshold), rule, value))
    return min(found, default=None, key=lambda entry: entry[0])


def _add_values(summary: Summary, row: Mapping[str, Any], judged: Judged) -> None:
    for name in MEASURED:
        value = row.get(name)
        if value is not None:
            summary.values[name].add(float(value), STATUSES.index(judged.status))
    if row.get("motion") is not None and row.get("adjacent_mean") is not None:
        summary.clips.append((row["motion"], row["adjacent_mean"], judged.status))


def _add_captions(summary: Summary, row: Mapping[str, Any], thresholds: Thresholds) -> None:
    best = row.get("best")
    for index, candidate in enumerate(row.get("candidates") or ()):
        is_best = index == best
        names = (("style", candidate.get("style") or "raw"), ("captioner", candidate.get("captioner") or "raw"))
        for key in names:
            summary.wins[key]["candidates"] += 1
            summary.wins[key]["eligible"] += is_eligible(candidate, thresholds.captions)
            summary.wins[key]["chosen"] += is_best
        if candidate.get("num_words") is not None and candidate.get("entropy") is not None:
            summary.words.add(candidate["num_words"], is_best)
            summary.entropy.add(candidate["entropy"], is_best)
        if is_best and candidate.get("overall") is not None:
            gap = candidate["alignment"] - candidate["ambiguity"]
            summary.scores.extend((candidate["text_quality"], gap, candidate["overall"]))


def _add_shown(summary: Summary, row: dict[str, Any], judged: Judged, thresholds: Thresholds, seed: int) -> None:
    draw = int(digest_of([seed, row["sample_id"]]), 16) / 2**64
    if row.get("dup_of") and judged.drop and "duplicate" in judged.drop.reason:
        summary.duplicates[row["dup_of"]].append((row["sample_id"], judged.drop))
    if judged.status == KEPT:
        _keep(summary.kept, Shown(row, judged, draw), GRID)
        if row.get("boxes"):
            _keep(summary.grounded, Shown(row, judged, draw), GRID // 2)
    elif judged.drop:
        _keep(summary.dropped[judged.drop.stage, judged.drop.reason], Shown(row, judged, draw), GRID // 3)
    nearest = nearest_threshold(row, judged, thresholds) if judged.status != ERROR else None
    if nearest is not None:
        distance, rule, value = nearest
        threshold = getattr(getattr(thresholds, rule.section), rule.threshold)
        near = f"{rule.section}.{rule.threshold}: {value:.4g}, threshold {threshold:g}"
        _keep(summary.borderline, Shown(row, judged, distance, near), GRID)


def _keep(heap: list[Shown], shown: Shown, most: int) -> None:
    """Adds a row if it is among the `most` with the smallest order."""
    if len(heap) < most:
        heapq.heappush(heap, shown)
    else:
        heapq.heappushpop(heap, shown)


def _put_in_order(summary: Summary) -> None:
    for shown in (summary.kept, summary.borderline, summary.grounded, *summary.dropped.values()):
        shown.sort(key=lambda entry: entry.place)
    drops = sorted(summary.drops.items(), key=lambda item: (STAGE_ORDER.index(item[0][0]), -item[1], item[0]))
    summary.drops = Counter(dict(drops))


def _quantiles(values: Sequence[float]) -> dict[str, float | int]:
    ordered = sorted(values)
    places = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {"rows": len(ordered)} | {name: ordered[round(p * (len(ordered) - 1))] for name, p in places.items()}
