# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Names and prompts of ImageNet's classes, read where they are needed from packages that have them and are installed.

None of these lists is part of this package. timm (Apache-2.0) has the WordNet ids of ImageNet, ImageNet-A and -R;
open_clip_torch and clip-benchmark (both MIT) have the names and prompts that CLIP's authors wrote by hand, the same
ones; ObjectNet's mapping comes with its pictures.
"""

import importlib.util
import json
import runpy
from pathlib import Path
from typing import Any

from turingvit_hf.errors import InputError


# timm's files of each list of synsets, in the order of class numbers; v2 and Sketch have the classes of ImageNet-1K
TIMM_LISTS = {
    "imagenet-1k": "imagenet_synsets.txt",
    "imagenet-v2": "imagenet_synsets.txt",
    "imagenet-sketch": "imagenet_synsets.txt",
    "imagenet-a": "imagenet_a_synsets.txt",
    "imagenet-r": "imagenet_r_synsets.txt",
}
# behind the name of a list, for CLIP's names in place of WordNet's
CLIP = ":clip"
OBJECTNET = "objectnet:"
NUM_CLASSES, NUM_TEMPLATES = 1000, 80


def imagenet_classes(source: str) -> list[tuple[str, str]] | None:
    """The (WordNet id, name) of each class of a list such as `"imagenet-a"` or `"imagenet-a:clip"`; None of others.

    Names are CLIP's with `:clip`, else WordNet's first words, of which crane and maillot are two classes each.

    Raises:
        InputError: a package that has a list is not installed, or its lists do not fit together.
    """
    name = source.removesuffix(CLIP)
    if name not in TIMM_LISTS:
        return None
    folder = _folder_of("timm")
    if folder is None:
        raise InputError(
            f"the classes {source!r} come from timm: pip install 'turingvit_hf[teachers]', or give a file with them"
        )
    folder = folder / "data" / "_info"
    synsets = (folder / TIMM_LISTS[name]).read_text(encoding="utf-8").split()
    if not source.endswith(CLIP):
        lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
        lemmas = dict(line.split("\t", 1) for line in lines)
        return [(synset, lemmas[synset].split(",")[0].strip()) for synset in synsets]
    whole = (folder / TIMM_LISTS["imagenet-1k"]).read_text(encoding="utf-8").split()
    names = dict(zip(whole, _of_clip()[0], strict=True))
    return [(synset, names[synset]) for synset in synsets]


def clip_templates() -> tuple[str, ...]:
    """CLIP's eighty prompts for ImageNet, with `{}` where the name goes.

    Raises:
        InputError: neither package that has them is installed.
    """
    return _of_clip()[1]


def objectnet_classes(folder: str | Path) -> list[tuple[str, str]]:
    """The (folder, name) of ObjectNet's classes that are in ImageNet, by the names of their folders.

    Args:
        folder: `mappings` of ObjectNet's download, with `folder_to_objectnet_label.json` and
            `objectnet_to_imagenet_1k.json`, or what it lies in.

    Raises:
        InputError: one of the files is not there, or holds something else.
    """
    place = Path(folder).expanduser()
    place = place / "mappings" if (place / "mappings").is_dir() else place
    labels, shared = (
        _read_json(place / f"{name}.json") for name in ("folder_to_objectnet_label", "objectnet_to_imagenet_1k")
    )
    if not isinstance(labels, dict) or not isinstance(shared, dict):
        raise InputError(f"the files in {place} are not ObjectNet's: they hold objects of folder and name")
    # folders of classes are read with spaces for underscores
    return [(name.replace("_", " "), label.lower()) for name, label in sorted(labels.items()) if label in shared]


def _of_clip() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """CLIP's names of the 1,000 classes, in the order of their numbers, and its 80 prompts."""
    if (folder := _folder_of("open_clip")) is not None and (folder / "zero_shot_metadata.py").is_file():
        # by itself: its package would import torchvision and more
        lists = runpy.run_path(str(folder / "zero_shot_metadata.py"))
        names = tuple(lists["IMAGENET_CLASSNAMES"])
        templates = tuple(template("{}") for template in lists["OPENAI_IMAGENET_TEMPLATES"])
    elif (folder := _folder_of("clip_benchmark")) is not None:
        files = [
            folder / "datasets" / f"en_{kind}.json" for kind in ("classnames", "zeroshot_classification_templates")
        ]
        names, templates = (tuple(_read_json(file)["imagenet1k"]) for file in files)
        templates = tuple(template.replace("{c}", "{}") for template in templates)
    else:
        raise InputError(
            "CLIP's class names and its eighty prompts come from open_clip_torch or clip-benchmark: pip install one "
            "of them (--no-deps is enough), or give a file of names and prompts of your own"
        )
    if len(names) != NUM_CLASSES or len(templates) != NUM_TEMPLATES:
        raise InputError(
            f"{folder} has {len(names)} names and {len(templates)} prompts, not {NUM_CLASSES} and {NUM_TEMPLATES}: "
            "another version of it is installed than this package knows"
        )
    return names, templates


def _folder_of(package: str) -> Path | None:
    """Where a package lies, without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
