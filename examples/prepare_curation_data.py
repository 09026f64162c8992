# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Real pictures with planted defects, and how many of them a curation run found.

    python examples/prepare_curation_data.py --output curation_data
    turingvit curate run my-run --config curation_data/curate.yaml --set embed.scorer.model=my-tower
    python examples/prepare_curation_data.py --output curation_data --check my-run

Needs what `prepare_pretraining_data.py` needs, or the folder that it made: `--pictures pretraining_data/images/train`,
which spares fetching and drawing, and may be any folder with a `metadata.jsonl` of `file_name` and `caption`. The
output folder appears complete or not at all:

- `pictures/`: Tux Paint's stamps and Open Clip Art with their captions, and among them pictures that were blurred,
  made tiny, flat or 20 times as long as wide, copies of others as they are and encoded anew, pictures with another
  one's caption, and files that break off or are empty. `curation_defects.py` beside this file plants them.
- `truth.jsonl`: which they are. It lies beside the pictures, so that no run reads it.
- `curate.yaml`: the config of a run over them.

The same seed gives the same data. `--check RUN` compares the outcomes of a finished run with the truth: precision and
recall of quality, exact and near duplicates and files, and, if the run has scores, how often a right caption scores
above a swapped one (the area under the ROC curve).
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from curation_defects import Planted, found, plant_defects, read_truth, write_truth

from pretraining_sources.clip_art import draw_clip_art, fetch_clip_art
from pretraining_sources.pictures import copy_stamps
from turingvit_hf.errors import InputError
from turingvit_hf.training.data.stamps import cache_folder, fetch_stamps


CONFIG = """\
sources: [{{path: {pictures}, name: pictures}}]
seed: {seed}
thresholds: {{quality: {{min_side: {min_side}}}}}
# set embed.scorer.model to a dual encoder: that of a stage 2, or any CLIP of transformers
"""


def prepare(
    output: Path, *, pictures: list[Path], max_clip_art: int, min_side: int, share: float, seed: int, cache: Path
) -> None:
    """Writes the data into `output`, which must not exist, and prints what is in it.

    Raises:
        InputError: something cannot be fetched or read, or there is something at `output`.
    """
    if output.exists():
        raise InputError(f"there is something at {output} already: move it away, or choose another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        built = Path(scratch) / "built"
        pairs = read_pairs(pictures) if pictures else draw_pairs(Path(scratch), max_clip_art, seed, cache)
        try:
            truth = plant_defects(pairs, built / "pictures", seed=seed, min_side=min_side, share=share)
        except ValueError as error:
            raise InputError(str(error)) from error
        write_truth(truth, built / "truth.jsonl")
        config = CONFIG.format(pictures=(output / "pictures").absolute(), seed=seed, min_side=min_side)
        (built / "curate.yaml").write_text(config, encoding="utf-8")
        built.rename(output)
    counts = Counter(entry.defect for entry in truth)
    print(f"{len(truth)} files: {', '.join(f'{count} {defect}' for defect, count in counts.most_common())}")
    print(f"written to {output}; next: turingvit curate run my-run --config {output / 'curate.yaml'}")


def read_pairs(folders: list[Path]) -> list[tuple[Path, str]]:
    """The pictures and captions of folders with a `metadata.jsonl`.

    Raises:
        InputError: a folder has none.
    """
    pairs = []
    for folder in folders:
        try:
            lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InputError(f"cannot read {folder / 'metadata.jsonl'}: {error.strerror}") from error
        pairs += [(folder / row["file_name"], row["caption"]) for row in map(json.loads, lines)]
    return pairs


def draw_pairs(scratch: Path, max_clip_art: int, seed: int, cache: Path) -> list[tuple[Path, str]]:
    """Stamps and clip art, fetched and drawn."""
    stamps = fetch_stamps(cache)
    clip_art = fetch_clip_art(cache) if max_clip_art else None
    pictures = copy_stamps(stamps, scratch / "stamps")
    if clip_art is not None:
        drawn, _ = draw_clip_art(clip_art, scratch / "art", num_pictures=max_clip_art, seed=seed)
        pictures += drawn
    return [(picture.file, picture.caption) for picture in pictures]


def check(truth: list[Planted], run: Path) -> dict[str, dict[str, float]]:
    """What a run found of what was planted, and where swapped captions score, printed and returned.

    Raises:
        InputError: the run is not finished, or of other data.
    """
    if not (run / "rows.parquet").is_file():
        raise InputError(f"{run} has no rows.parquet: the run is not finished")
    rows = {row["key"]: row for row in pq.read_table(run / "rows.parquet").to_pylist()}
    missing = [entry.file for entry in truth if entry.file not in rows]
    if missing:
        raise InputError(f"{run} has nothing of {missing[0]}: it is a run over other data")
    result = found(truth, {file: row["drop_reason"] for file, row in rows.items()})
    for group, figures in result.items():
        print(
            f"{group + ':':<18}{figures['planted']:.0f} planted, {figures['dropped']:.0f} dropped, precision "
            f"{figures['precision']:.3f}, recall {figures['recall']:.3f}"
        )
    counts = Counter(row["status"] for row in rows.values())
    print(f"{len(rows)} rows = {' + '.join(f'{counts[status]} {status}' for status in ('kept', 'dropped', 'error'))}")
    for name, label in (("A", "alignment"), ("negCLIPLoss", "alignment - ambiguity")):
        scores = {file: _score(row, name) for file, row in rows.items()}
        right = [scores[entry.file] for entry in truth if entry.defect == "none" and scores[entry.file] is not None]
        swapped = [
            scores[entry.file] for entry in truth if entry.defect == "swapped" and scores[entry.file] is not None
        ]
        if right and swapped:
            area = area_under_curve(np.array(right), np.array(swapped))
            result[f"swapped by {name}"] = {"right": len(right), "swapped": len(swapped), "auc": area}
            print(f"swapped captions by {label}: AUC {area:.3f} ({len(right)} right, {len(swapped)} swapped)")
    return result


def _score(row: dict, name: str) -> float | None:
    if row["A"] is None or row["caption"] != row["raw_caption"]:
        return None
    return row["A"] if name == "A" else row["A"] - row["G"]


def area_under_curve(right: np.ndarray, wrong: np.ndarray) -> float:
    """The probability that a right caption scores above a wrong one; a tie counts half."""
    wrong = np.sort(wrong)
    below = np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")
    return float(below.mean() / (2 * len(wrong)))


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, and prepare the data or check a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("curation_data"), help="folder of the data")
    parser.add_argument("--check", type=Path, help="a finished run over the data, to be compared with the truth")
    parser.add_argument("--pictures", type=Path, nargs="+", default=[], help="folders with a metadata.jsonl to take")
    parser.add_argument("--max-clip-art", type=int, default=4000, help="drawings at most; 0 for stamps alone")
    parser.add_argument("--min-side", type=int, default=64, help="pixels; smaller pictures are left out, or planted")
    parser.add_argument("--share", type=float, default=0.03, help="of the pictures, how many there are of each defect")
    parser.add_argument("--seed", type=int, default=0, help="chooses drawings and defects")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where downloads are kept")
    options = parser.parse_args(arguments)
    try:
        if options.check is not None:
            if not (options.output / "truth.jsonl").is_file():
                raise InputError(f"{options.output} has no truth.jsonl: --output names the data that the run is over")
            check(read_truth(options.output / "truth.jsonl"), options.check)
            return
        prepare(
            options.output,
            pictures=options.pictures,
            max_clip_art=options.max_clip_art,
            min_side=options.min_side,
            share=options.share,
            seed=options.seed,
            cache=options.cache,
        )
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
