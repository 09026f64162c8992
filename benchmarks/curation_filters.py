# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How many pictures a second curation's quality filters and hashes take, and how many CleanVision's same filters do.

    python benchmarks/curation_filters.py     # pip install cleanvision for the comparison
    python benchmarks/curation_filters.py --end-to-end 2000     # `turingvit curate run` on so many

Pictures are JPEG files of a megapixel and of twelve, cut from the photograph that comes with matplotlib. Time is
processor time of the processes that work, each on one thread: a busy machine changes it little, and a process that has
a core of its own takes as long on the clock. The whole command is timed by the clock as well, which needs cores that
are free: the load of the machine is printed with it.
"""

import contextlib
import hashlib
import importlib.util
import io
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
from harness import Report, parse_arguments
from matplotlib import get_data_path
from PIL import Image, ImageOps

from turingvit_hf.curation.steps.decode import DecodeImages
from turingvit_hf.curation.steps.hashes import HashImages
from turingvit_hf.curation.steps.quality import MeasureQuality


LONG_SIDE = 512
BATCH = 8
NUM_PROCESSES = 2
GOAL = 100  # pictures/s on two cores at a megapixel
# those that both have: blur, texture, aspect, size, exact and near duplicates
CLEANVISION_ISSUES = (
    "blurry",
    "low_information",
    "odd_aspect_ratio",
    "odd_size",
    "exact_duplicates",
    "near_duplicates",
)


def write_photographs(folder: Path, number: int, size: tuple[int, int]) -> list[Path]:
    """JPEG files of a (width, height), quality 90, each another piece of the photograph."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(0)
    with Image.open(f"{get_data_path()}/sample_data/grace_hopper.jpg") as opened:
        photograph = opened.convert("RGB")
    paths = []
    for index in range(number):
        side = rng.randrange(300, 500)
        left, top = rng.randrange(photograph.width - side), rng.randrange(photograph.height - side)
        piece = photograph.crop((left, top, left + side, top + round(side * size[1] / size[0])))
        piece = piece.resize(size, Image.Resampling.LANCZOS)
        # enlarged pieces have no detail of their own, and would be decoded too fast
        grain = Image.effect_noise(size, 20).convert("RGB")
        piece = Image.blend(ImageOps.mirror(piece) if rng.random() < 0.5 else piece, grain, 0.15)
        paths.append(folder / f"{index:04d}.jpg")
        piece.save(paths[-1], quality=90)
    return paths


def measure(paths: Sequence[str]) -> float:
    """All steps of the stage `measure`; returns seconds of processor time."""
    start = time.process_time()
    steps = DecodeImages(long_side=LONG_SIDE), MeasureQuality(long_side=LONG_SIDE), HashImages()
    for first in range(0, len(paths), BATCH):
        batch: dict[str, list] = {"media": list(paths[first : first + BATCH])}
        for step in steps:
            batch |= step(batch)
    return time.process_time() - start


def time_parts(paths: Sequence[str], *, is_reduced: bool) -> dict[str, float]:
    """Milliseconds of processor time a picture takes in each part."""
    decode = DecodeImages(long_side=LONG_SIDE if is_reduced else None)
    quality, hashes = MeasureQuality(long_side=LONG_SIDE), HashImages()
    seconds = dict.fromkeys(("read the file and sha256", "decode", "quality values", "perceptual hashes"), 0.0)
    for step in (decode, quality, hashes):  # loads the libraries
        step({"media": [paths[0]]} | decode({"media": [paths[0]]}))
    for path in paths:
        marks = [time.process_time()]
        hashlib.sha256(Path(path).read_bytes()).hexdigest()
        marks.append(time.process_time())
        batch = {"media": [path]} | decode({"media": [path]})
        marks.append(time.process_time())
        quality(batch)
        marks.append(time.process_time())
        hashes(batch)
        marks.append(time.process_time())
        for name, begin, end in zip(seconds, marks, marks[1:], strict=False):
            seconds[name] += end - begin
    # the step reads and hashes the file as well
    seconds["decode"] -= seconds["read the file and sha256"]
    return {name: value / len(paths) * 1e3 for name, value in seconds.items()}


def cleanvision(paths: Sequence[str]) -> float:
    """CleanVision's filters of the same kind, in this process; returns seconds of processor time."""
    from cleanvision import Imagelab

    start = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars cannot be switched off
        lab = Imagelab(filepaths=list(paths), verbose=False)
        lab.find_issues({issue: {} for issue in CLEANVISION_ISSUES}, n_jobs=1, verbose=False)
    return time.process_time() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Write pictures, time the parts, then all in turn."""
    further = {"--end-to-end": {"type": int, "metavar": "N", "help": "time the whole command on N pictures instead"}}
    options = parse_arguments(__doc__.splitlines()[0], arguments, repeats=5, further=further)
    cv2.setNumThreads(1)
    report = Report("Quality filters and hashes of curation", options)
    if options.end_to_end:
        from curation_command import time_command

        with tempfile.TemporaryDirectory() as scratch:
            size = (160, 120) if options.smoke else (1152, 864)
            write_photographs(Path(scratch) / "pictures", options.end_to_end, size)
            time_command(Path(scratch), options.end_to_end, report, goal=GOAL)
        report.finish()
        return
    sizes = {"1.0 megapixel": (1152, 864), "12 megapixels": (4000, 3000)}
    counts = {"1.0 megapixel": 96, "12 megapixels": 16}
    if options.smoke:
        sizes, counts = {"1.0 megapixel": (160, 120)}, {"1.0 megapixel": 4}
    with (
        tempfile.TemporaryDirectory() as scratch,
        multiprocessing.get_context("spawn").Pool(NUM_PROCESSES, cv2.setNumThreads, (1,)) as pool,
    ):
        parts = []
        for name, size in sizes.items():
            folder = Path(scratch) / name
            paths = [str(path) for path in write_photographs(folder, counts[name], size)]
            for form, is_reduced in (("decoded reduced", True), ("decoded whole", False)):
                milliseconds = time_parts(paths, is_reduced=is_reduced)
                cells = [f"{value:.1f}" for value in milliseconds.values()]
                parts.append((f"{name}, {form}", *cells, f"{1e3 / sum(milliseconds.values()):.0f}"))
            rates = compare(paths, options.repeats, pool)
            theirs = rates.get("CleanVision, one process")
            report.table(
                f"Pictures a second, {name}, best of {options.repeats}",
                ("form", "pictures/s", "times CleanVision's"),
                [
                    (form, f"{rate:.0f}", f"{rate / theirs:.1f}" if theirs and "one process" in form else "-")
                    for form, rate in rates.items()
                ],
            )
            if size == sizes["1.0 megapixel"]:
                rate = rates[f"turingvit, {NUM_PROCESSES} processes with a core each"]
                report.goal(f"pictures on {NUM_PROCESSES} cores at a megapixel", rate, ">=", GOAL, "/s")
        columns = (
            "pictures",
            "read, sha256",
            "decode",
            "quality values",
            "perceptual hashes",
            "pictures/s on one core",
        )
        report.table("Milliseconds of processor time a picture", columns, parts)
    if not importlib.util.find_spec("cleanvision"):
        report.line("CleanVision is not installed: nothing to compare with")
    report.finish()


def compare(paths: list[str], repeats: int, pool) -> dict[str, float]:
    """Pictures a second for each form: one run to warm up, then all in turn, the best of each."""
    halves = [paths[start::NUM_PROCESSES] for start in range(NUM_PROCESSES)]
    forms: dict[str, Callable[[], float]] = {
        "turingvit, one process": partial(measure, paths),
        # the slower of them counts
        f"turingvit, {NUM_PROCESSES} processes with a core each": lambda: max(pool.map(measure, halves, chunksize=1)),
    }
    if importlib.util.find_spec("cleanvision"):
        forms["CleanVision, one process"] = partial(cleanvision, paths)
    for run in forms.values():
        run()
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(repeats):
        for form, run in forms.items():
            seconds[form].append(run())
    return {form: len(paths) / min(values) for form, values in seconds.items()}


if __name__ == "__main__":
    main()
