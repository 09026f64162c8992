# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Peak memory and speed of curation runs of growing length: measured, deduplicated, and with raw captions."""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table


SIDE = 32


def write_pictures(folder: Path, number: int) -> None:
    """Writes so many pictures of noise in blocks, all different, and their `metadata.jsonl`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for index in range(number):
            name = f"{index // 1000:03d}/{index:06d}.png"
            (folder / name).parent.mkdir(exist_ok=True)
            blocks = rng.integers(0, 256, (SIDE // 4, SIDE // 4, 3), np.uint8)
            Image.fromarray(blocks.repeat(4, 0).repeat(4, 1)).save(folder / name, compress_level=1)
            file.write(json.dumps({"file_name": name, "caption": f"Noise number {index} of blocks."}) + "\n")


def run_once(folder: Path, out: Path) -> dict[str, float]:
    """Runs in this process and returns its peak memory in MiB, rows kept, and seconds."""
    from turingvit_hf.curation import load_config, run

    overrides = [f"sources=[{{path: {folder}}}]", "embed.enabled=no", "score.enabled=no"]
    overrides += ["thresholds.quality.min_side=16", "thresholds.quality.max_edge_width=null"]
    start = time.perf_counter()
    outcomes = run(load_config(None, overrides), out)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak": peak, "rows": outcomes.num_rows, "kept": outcomes.num_kept, "seconds": seconds}


def main() -> None:
    """Run each length in a process of its own and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--one", type=Path, nargs=2, metavar=("FOLDER", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_once(*options.one)))
        return
    table = Table("rows", "kept", "peak MiB", "seconds", "rows/s")
    for number in options.rows:
        with tempfile.TemporaryDirectory() as scratch:
            folder, out = Path(scratch) / "pictures", Path(scratch) / "run"
            write_pictures(folder, number)
            command = [sys.executable, __file__, "--one", str(folder), str(out)]
            result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(result.stdout.splitlines()[-1])
        speed = found["rows"] / found["seconds"]
        table.add_row(
            f"{found['rows']:,}",
            f"{found['kept']:,}",
            f"{found['peak']:.0f}",
            f"{found['seconds']:.1f}",
            f"{speed:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
