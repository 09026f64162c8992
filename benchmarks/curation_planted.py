# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Precision and recall of curation's quality filters and deduplication on defects planted among real pictures."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table


sys.path.append(str(Path(__file__).parents[1] / "examples"))

from curation_defects import Planted, found, plant_defects

from turingvit_hf.curation.decisions import Drop, QualityThresholds, Thresholds, decide
from turingvit_hf.curation.deduplication import find_duplicates, preference
from turingvit_hf.curation.picture_hashes import PictureHashes
from turingvit_hf.curation.steps.decode import DecodeImages
from turingvit_hf.curation.steps.hashes import HashImages
from turingvit_hf.curation.steps.quality import MeasureQuality


def measure(files: list[Path]) -> list[dict]:
    """All measured values of files, a row each."""
    rows: list[dict] = []
    steps = DecodeImages(), MeasureQuality(), HashImages()
    for start in range(0, len(files), 16):
        batch: dict[str, list] = {"media": [str(path) for path in files[start : start + 16]]}
        for step in steps:
            batch |= step(batch)
        del batch["image"]
        rows += [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    return rows


def decide_all(truth: list[Planted], rows: list[dict], thresholds: Thresholds) -> list[Drop | None]:
    """Why each row is dropped, by its own values and then as a duplicate of one that is not."""
    drops = [decide(row, thresholds) for row in rows]
    names = [entry.file for entry in truth]
    order = preference(
        [(row["width"] or 0) * (row["height"] or 0) for row in rows],
        [row["smooth_laplacian"] or 0 for row in rows],
        names,
    )
    pictures = PictureHashes.of_rows(row | {"sample_id": name} for row, name in zip(rows, names, strict=True))
    alive = [row for row in order if drops[row] is None]
    duplicates = find_duplicates(pictures, alive, thresholds.duplicates)
    for number, duplicate in enumerate(duplicates):
        if duplicate is not None:
            values = {"dup_of": duplicate.of, "dup_kind": duplicate.kind, "dup_distance": duplicate.distance}
            drops[number] = decide(rows[number] | values, thresholds)
    return drops


def main() -> None:
    """Plant, measure, decide, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="with a metadata.jsonl of file_name and caption")
    parser.add_argument("--min-side", type=int, default=64)
    parser.add_argument("--share", type=float, default=0.05, help="of the good pictures, for each defect")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--show", action="store_true", help="name the files that were missed or dropped in error")
    options = parser.parse_args()
    pictures = [
        (folder / row["file_name"], row["caption"])
        for folder in options.folder
        for row in map(json.loads, (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines())
    ]
    table = Table("seed", "group", "planted", "dropped", "precision", "recall")
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "images"
            truth = plant_defects(pictures, folder, seed=seed, min_side=options.min_side, share=options.share)
            rows = measure([folder / entry.file for entry in truth])
        thresholds = Thresholds(quality=QualityThresholds(min_side=options.min_side))
        drops = decide_all(truth, rows, thresholds)
        reasons = {entry.file: drop and drop.reason for entry, drop in zip(truth, drops, strict=True)}
        for group, figures in found(truth, reasons).items():
            counts = (str(figures["planted"]), str(figures["dropped"]))
            table.add_row(str(seed), group, *counts, f"{figures['precision']:.3f}", f"{figures['recall']:.3f}")
        if options.show:
            for entry, row, drop in zip(truth, rows, drops, strict=True):
                is_good = entry.defect in ("none", "swapped")
                if (drop is not None) == is_good:
                    measured = {
                        name: row[name] for name in ("edge_width", "gray_entropy", "edge_share", "smooth_laplacian")
                    }
                    print(entry.defect, entry.file, entry.caption, drop, measured)
    Console().print(table)


if __name__ == "__main__":
    main()
