# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Does Turing Linear Attention earn its place? Small towers that differ in it, and in nothing else, trained alike.

Each learns from the same packs of pictures with captions in the same order, with as many parameters, by the recipe
`tiny/stage2`; then retrieval and nearest neighbors are measured on held-out pictures, and for some towers at sides
from 128 to 1,536 pixels, where they were trained on 128 to 256.

    python examples/prepare_pretraining_data.py --num-clips 0
    OMP_NUM_THREADS=1 python benchmarks/tla_study.py --out study --seeds 0 1 2

A run that was stopped goes on with the same command, and `--report` makes tables and figures of what is there.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tla_study_measures import (
    VARIANTS,
    TowerMeasures,
    count_parameters,
    largest_class_share,
    linear_attention_without,
    time_towers,
)
from tla_study_pictures import Pictures, make_pictures, read_pictures
from tla_study_report import report

from turingvit_hf.files.whole_folder import written_whole
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.data.stamps import cache_folder
from turingvit_hf.training.pretraining import run_pretraining
from turingvit_hf.training.recipes import load_recipe
from turingvit_hf.training.stages.folder import is_finished


SIDES = (128, 192, 256, 384, 512, 768, 1024, 1536)
BOUNDS = (128, 256)
PATCH_SIZE = 32
NATIVE = "{mode: native, max_patches: 64}"
# small enough for 23 trainings on one core; patches of 32 pixels, so that pictures of 256 have 64
SETTINGS = (
    "model.hidden_size=128",
    "model.num_attention_heads=2",
    "model.intermediate_size=256",
    "model.initializer_range=0.088",
    f"model.patch_size={PATCH_SIZE}",
    "model.image_size=256",
    "text.projection_dim=128",
    "text.max_tokens=24",
    "text.initial_logit_bias=-3.6",
    "objective.superclass=0",
    f"data.resolution={NATIVE}",
    "data.tokens_per_pack=1024",
    "data.num_readers=1",
    "data.open_packs=2",
    "evaluation=null",
    "training.bf16=true",
    "training.learning_rate=2e-3",
    "training.save_steps=300",
    "training.save_total_limit=1",
)
COMPARED = ("base", "softmax", "tla", "no_gate", "no_norm", "no_rope", "projection")
AT_ALL_SIDES = ("base", "softmax", "tla", "no_rescale")
SECOND_RATE = "1e-3"
TEXT_ENCODER = "word_vectors"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        variant: a key of `VARIANTS`.
        seed: of the data's order and of the weights.
        rate: a learning rate instead of the recipe's.
    """

    variant: str
    seed: int
    rate: str | None = None

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"seed{self.seed}/{self.variant}" + (f"-{self.rate}" if self.rate else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, prints the tables and draws the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("pretraining_data"), help="what was prepared")
    parser.add_argument("--data-seed", type=int, default=0, help="the seed that it was prepared with")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where its downloads are")
    parser.add_argument("--out", type=Path, default=Path("tla_study"), help="folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--towers", nargs="+", default=list(VARIANTS), choices=VARIANTS, help="base has to be among them"
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="for every run, as in pretrain")
    parser.add_argument("--gallery", type=int, default=1024, help="training pictures among which neighbors are sought")
    parser.add_argument("--drawings", type=int, default=100, help="held-out drawings at all sides, at most")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="longer sides of the drawings")
    parser.add_argument("--repeats", type=int, default=5, help="how often each tower is timed")
    parser.add_argument("--report", action="store_true", help="only make tables and figures of what is there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # processor time is compared
    runs = [run for run in planned(options.seeds) if run.variant in options.towers]
    if not options.report:
        run_all(runs, options)
    report(options.out, [run.name for run in runs], trained_on=BOUNDS)


def planned(seeds: Sequence[int]) -> Iterator[Run]:
    """All runs in their order: whenever the study is stopped, what is finished is a table of fewer seeds."""
    for number, seed in enumerate(seeds):
        yield from (Run(variant, seed) for variant in COMPARED)
        if number == min(1, len(seeds) - 1):
            # nobody should say that the rate was chosen for one of them
            yield from (Run(variant, seeds[0], SECOND_RATE) for variant in ("base", "softmax"))
    yield from (Run(variant, seed) for variant in ("none", "no_rescale") for seed in seeds)


def run_all(runs: Sequence[Run], options: argparse.Namespace) -> None:
    """Trains and measures what is not there yet; each result is a file that appears whole."""
    pictures = options.out / "pictures"
    if not pictures.exists():
        make_pictures(
            options.data,
            pictures,
            cache=options.cache,
            seed=options.data_seed,
            bounds=BOUNDS,
            sides=options.sides,
            num_drawings=options.drawings,
            patch_size=PATCH_SIZE,
        )
    text_encoder = options.data / "text_encoder"
    if text_encoder.exists() and not (options.out / TEXT_ENCODER).exists():
        keep_word_vectors(text_encoder, options.out / TEXT_ENCODER)
    held_out = read_pictures(pictures / "test")
    gallery = read_pictures(pictures / "train", limit=options.gallery)
    for run in runs:
        place = options.out / f"{run.name}.json"
        if not place.exists():
            result = train_and_measure(run, options, held_out=held_out, gallery=gallery)
            write_json(place, result)
            print(f"{run.name}: {result['seconds']:.0f} s of processor time in all", flush=True)
        at_sides = options.out / f"{run.name}.sides.json"
        if run.variant in AT_ALL_SIDES and run.rate is None and not at_sides.exists():
            write_json(at_sides, measure_sides(run, options, gallery=gallery))
    if not (options.out / "timing.json").exists():
        timed = [name for name in COMPARED if name in options.towers]
        models = {name: (recipe_of(Run(name, 0), options).model, VARIANTS[name]) for name in timed}
        write_json(options.out / "timing.json", time_towers(models, repeats=options.repeats))


def keep_word_vectors(text_encoder: Path, target: Path) -> None:
    """Copies a text encoder without its layers: a caption is the mean of its words' vectors.

    The captions are titles and keywords, the encoder stays as it is, and its layers would cost as much as the tower.
    """
    with written_whole(target) as folder:
        shutil.copytree(text_encoder, folder, dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 0}), encoding="utf-8")


def recipe_of(run: Run, options: argparse.Namespace) -> StageRecipe:
    """The recipe of a run."""
    pictures = (options.out / "pictures").absolute()
    changes = [
        *SETTINGS,
        f"data.sources=[{{path: {pictures / 'train'}}}]",
        f"text.encoder={(options.out / TEXT_ENCODER).absolute()}",
        *options.overrides,
        *VARIANTS[run.variant].changes,
        f"training.seed={run.seed}",
    ]
    if run.rate:
        changes.append(f"training.learning_rate={run.rate}")
    return load_recipe("tiny/stage2", changes)


def train_and_measure(
    run: Run, options: argparse.Namespace, *, held_out: Pictures, gallery: Pictures
) -> dict[str, Any]:
    """Everything that is known of a run: size, data seen, curves, and measurements of the trained tower."""
    recipe, variant = recipe_of(run, options), VARIANTS[run.variant]
    started = time.process_time()
    with linear_attention_without(variant.removed):
        folder = options.out / run.name
        run_pretraining(recipe, out=folder, resume=folder.exists())
        if not is_finished(folder):
            raise SystemExit(75)
        trained = time.process_time()
        measured = TowerMeasures(folder / "model", gallery)(held_out)
    training = json.loads((folder / "report.json").read_text())
    return {
        "variant": run.variant,
        "label": variant.label,
        "seed": run.seed,
        "learning_rate": recipe.training["learning_rate"],
        "tower_parameters": count_parameters(recipe.model, variant),
        **{key: training[key] for key in ("num_steps", "num_images", "num_patches")},
        "history": training["history"],
        "measured": measured,
        "largest_class": largest_class_share(held_out, gallery),
        "training_seconds": trained - started,
        "seconds": time.process_time() - started,
    }


def measure_sides(run: Run, options: argparse.Namespace, *, gallery: Pictures) -> dict[str, Any]:
    """The measurements of held-out drawings at each side; the gallery is as large as in training."""
    with linear_attention_without(VARIANTS[run.variant].removed):
        measures = TowerMeasures(options.out / run.name / "model", gallery)
    pictures = options.out / "pictures"
    return {str(side): measures(read_pictures(pictures / f"drawings{side}"), side=side) for side in options.sides}


def write_json(path: Path, content: Any) -> None:
    """Writes a file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main(sys.argv[1:])
