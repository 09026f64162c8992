# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Does Turing Linear Attention earn its place? Small towers that differ in it, and in nothing else, trained alike.

Each learns from the same packs in the same order, with as many parameters, by the recipe `tiny/stage2`, two tasks: to
tell pictures by their captions, and to tell which of two pictures is on the left. Then they are measured on held-out
pictures, and some of them at sides up to 1,536 pixels, larger than any that they were trained on.

    python examples/prepare_pretraining_data.py --num-clips 0
    OMP_NUM_THREADS=1 python benchmarks/tla_study.py --out tla_study --seeds 0 1 2

A run that was stopped goes on with the same command, and `--report` makes tables and figures of what is there.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tla_study_measures import TowerMeasures, largest_class_share
from tla_study_pictures import Pictures, make_pictures, read_pictures
from tla_study_report import report
from tla_study_scenes import keep_ordered_vectors, make_scenes, read_scenes
from tla_study_tasks import PATCH_SIZE, PICTURES, SCENES, TASKS, Run, Task, recipe_of
from tla_study_towers import VARIANTS, count_parameters, linear_attention_without, time_towers

from turingvit_hf.files.whole_folder import written_whole
from turingvit_hf.training.data.stamps import cache_folder
from turingvit_hf.training.pretraining import run_pretraining
from turingvit_hf.training.stages.folder import is_finished


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, prints the tables and draws the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("pretraining_data"), help="what was prepared")
    parser.add_argument("--data-seed", type=int, default=0, help="the seed that it was prepared with")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where its downloads are")
    parser.add_argument("--out", type=Path, default=Path("tla_study"), help="folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument(
        "--towers", nargs="+", default=list(VARIANTS), choices=VARIANTS, help="base has to be among them"
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="for every run, as in pretrain")
    parser.add_argument("--gallery", type=int, default=1024, help="training pictures among which neighbors are sought")
    parser.add_argument("--drawings", type=int, default=100, help="held-out drawings at all sides, at most")
    parser.add_argument("--groups", type=int, default=550, help="groups of pictures that scenes of training are of")
    parser.add_argument("--measured-pairs", type=int, default=200, help="pairs in scenes that are measured, at most")
    parser.add_argument("--sides", type=int, nargs="+", help="longer sides of the drawings, instead of the tasks' own")
    parser.add_argument("--repeats", type=int, default=5, help="how often each tower is timed")
    parser.add_argument("--report", action="store_true", help="only make tables and figures of what is there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # processor time is compared
    runs = list(planned([TASKS[name] for name in options.tasks], options.seeds, options.towers))
    if not options.report:
        run_all(runs, options)
    report(options.out, runs)


def planned(tasks: Sequence[Task], seeds: Sequence[int], towers: Sequence[str]) -> Iterator[Run]:
    """All runs in their order: whenever the study is stopped, what is finished is a table of fewer seeds.

    Parts of TLA that are left out come last where pictures are told apart, which even towers without attention can.
    """
    runs = [
        Run(task, variant, seed)
        for seed in seeds
        for task in reversed(tasks)
        for variant in task.towers
        if variant in towers
    ]
    late = [run for run in runs if run.task is PICTURES and run.variant not in (*PICTURES.at_all_sides, "none")]
    yield from (run for run in runs if run not in late)
    yield from late


def run_all(runs: Sequence[Run], options: argparse.Namespace) -> None:
    """Trains and measures what is not there yet; each result is a file that appears whole."""
    keep_settings(options)
    make_data(options)
    measured = {name: read_measured(TASKS[name], options) for name in options.tasks}
    for run in runs:
        place = options.out / f"{run.name}.json"
        if not place.exists():
            result = train_and_measure(run, options, **measured[run.task.name])
            write_json(place, result)
            print(f"{run.name}: {result['seconds']:.0f} s of processor time in all", flush=True)
        at_sides = options.out / f"{run.name}.sides.json"
        if run.variant in run.task.at_all_sides and not at_sides.exists():
            write_json(at_sides, measure_sides(run, options, gallery=measured[run.task.name]["gallery"]))
    if not (options.out / "timing.json").exists():
        timed = [name for name in PICTURES.towers if name in options.towers and name != "none"]
        models = {
            name: (recipe_of(Run(PICTURES, name, 0), options.out, options.overrides).model, VARIANTS[name])
            for name in timed
        }
        write_json(options.out / "timing.json", time_towers(models, repeats=options.repeats))


def keep_settings(options: argparse.Namespace) -> None:
    """Writes what figures depend on, so that results of two settings never stand in one table.

    Raises:
        SystemExit: the folder has results of others.
    """
    names = ("data", "data_seed", "overrides", "gallery", "drawings", "groups", "measured_pairs", "sides")
    settings = {
        name: str(value.resolve()) if name == "data" else value
        for name, value in vars(options).items()
        if name in names
    }
    place = options.out / "settings.json"
    if place.exists():
        earlier = json.loads(place.read_text(encoding="utf-8"))
        changed = [
            f"{name} was {earlier[name]!r}, is {settings[name]!r}" for name in names if earlier[name] != settings[name]
        ]
        if changed:
            raise SystemExit(
                f"error: {options.out} has results of other settings: {'; '.join(changed)}; choose another --out"
            )
    write_json(place, settings)


def make_data(options: argparse.Namespace) -> None:
    """Makes what is missing of pictures, scenes and text encoders."""
    pictures, scenes = (options.out / "data" / task.name for task in (PICTURES, SCENES))
    if not pictures.exists():
        make_pictures(
            options.data,
            pictures,
            cache=options.cache,
            seed=options.data_seed,
            bounds=PICTURES.bounds,
            sides=options.sides or PICTURES.sides,
            num_drawings=options.drawings,
            patch_size=PATCH_SIZE,
        )
    if SCENES.name in options.tasks and not scenes.exists():
        make_scenes(
            pictures,
            scenes,
            bounds=SCENES.bounds,
            sides=options.sides or SCENES.sides,
            num_groups=options.groups,
            num_measured=options.measured_pairs,
            patch_size=PATCH_SIZE,
        )
    words, ordered = (options.out / task.text_encoder for task in (PICTURES, SCENES))
    if not words.exists():
        keep_word_vectors(options.data / "text_encoder", words)
    if SCENES.name in options.tasks and not ordered.exists():
        captions = read_pictures(pictures / "train").captions
        keep_ordered_vectors(options.data / "text_encoder", ordered, captions)


def read_measured(task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """The pictures that each tower of a task is measured on."""
    data = options.out / "data" / task.name
    if task is SCENES:
        return {"held_out": read_scenes(data / "test"), "seen": read_scenes(data / "seen"), "gallery": None}
    gallery = read_pictures(data / "train", limit=options.gallery)
    return {"held_out": read_pictures(data / "test"), "seen": None, "gallery": gallery}


def keep_word_vectors(text_encoder: Path, target: Path) -> None:
    """Copies a text encoder without its layers: a caption is the mean of its words' vectors.

    The captions are titles and keywords, the encoder stays as it is, and its layers would cost as much as the tower.
    """
    with written_whole(target) as folder:
        shutil.copytree(text_encoder, folder, dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 0}), encoding="utf-8")


def train_and_measure(
    run: Run, options: argparse.Namespace, *, held_out: Pictures, seen: Pictures | None, gallery: Pictures | None
) -> dict[str, Any]:
    """Everything that is known of a run: size, data seen, curves, and measurements of the trained tower."""
    recipe, variant = recipe_of(run, options.out, options.overrides), VARIANTS[run.variant]
    started = time.process_time()
    with linear_attention_without(variant.removed):
        folder = options.out / run.name
        run_pretraining(recipe, out=folder, resume=folder.exists())
        if not is_finished(folder):
            raise SystemExit(75)
        trained = time.process_time()
        measures = TowerMeasures(folder / "model", gallery)
        measured = {"measured": measures(held_out)} | ({"measured_seen": measures(seen)} if seen else {})
    training = json.loads((folder / "report.json").read_text())
    return {
        "variant": run.variant,
        "label": variant.label,
        "seed": run.seed,
        "learning_rate": recipe.training["learning_rate"],
        "tower_parameters": count_parameters(recipe.model, variant),
        **{key: training[key] for key in ("num_steps", "num_images", "num_patches")},
        "history": training["history"],
        **measured,
        **({"largest_class": largest_class_share(held_out, gallery)} if gallery else {}),
        "training_seconds": trained - started,
        "seconds": time.process_time() - started,
    }


def measure_sides(run: Run, options: argparse.Namespace, *, gallery: Pictures | None) -> dict[str, Any]:
    """The measurements of held-out drawings at each side; the gallery is as large as in training."""
    with linear_attention_without(VARIANTS[run.variant].removed):
        measures = TowerMeasures(options.out / run.name / "model", gallery)
    read = read_scenes if run.task is SCENES else read_pictures
    data = options.out / "data" / run.task.name
    return {str(side): measures(read(data / f"drawings{side}"), side=side) for side in options.sides or run.task.sides}


def write_json(path: Path, content: Any) -> None:
    """Writes a file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main(sys.argv[1:])
