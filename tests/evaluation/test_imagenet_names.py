# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Lists of ImageNet's classes and prompts out of packages: of ones made up here, and of real ones where they are."""

import importlib
import importlib.util
import json

import pytest

from turingvit_hf.errors import InputError
from turingvit_hf.evaluation import imagenet_names
from turingvit_hf.evaluation.classes import read_classes
from turingvit_hf.evaluation.options import EvaluationOptions, check
from turingvit_hf.evaluation.prompts import make_prompts, templates_of


SYNSETS = [f"n{number:08}" for number in range(1000)]
NAMES = [f"thing {number}" for number in range(999)] + ["thing 1"]  # CLIP calls two pairs of classes the same
TEMPLATES = [f"picture {number} of a {{}}." for number in range(80)]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Stand-ins for timm, open_clip and clip_benchmark, which fail when they are imported."""
    for name in ("timm", "open_clip", "clip_benchmark"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise AssertionError('imported')")
        monkeypatch.delitem(importlib.import_module("sys").modules, name, raising=False)
    info = tmp_path / "timm" / "data" / "_info"
    info.mkdir(parents=True)
    (info / "imagenet_synsets.txt").write_text("\n".join(SYNSETS))
    (info / "imagenet_a_synsets.txt").write_text("\n".join(SYNSETS[7::5]))
    (info / "imagenet_r_synsets.txt").write_text("\n".join(SYNSETS[3::5]))
    lemmas = [f"{synset}\tword {number}, other" for number, synset in enumerate(SYNSETS)]
    (info / "imagenet_synset_to_lemma.txt").write_text("\n".join(lemmas))
    functions = "".join(f"    lambda c: f'{template.format('{c}')}',\n" for template in TEMPLATES)
    lists = f"OPENAI_IMAGENET_TEMPLATES = (\n{functions})\nIMAGENET_CLASSNAMES = {NAMES!r}\n"
    (tmp_path / "open_clip" / "zero_shot_metadata.py").write_text(lists)
    data = tmp_path / "clip_benchmark" / "datasets"
    data.mkdir()
    (data / "en_classnames.json").write_text(json.dumps({"imagenet1k": NAMES}))
    templates = [template.replace("{}", "{c}") for template in TEMPLATES]
    (data / "en_zeroshot_classification_templates.json").write_text(json.dumps({"imagenet1k": templates}))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


def hide(monkeypatch, *names: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in names else find(name, *rest))


@pytest.mark.parametrize("missing", ["clip_benchmark", "open_clip"])
def test_clips_names_and_prompts_come_from_either_package(packages, monkeypatch, missing):
    hide(monkeypatch, missing)
    whole = read_classes("imagenet-1k:clip")
    assert whole.keys == tuple(SYNSETS)
    assert whole.names == tuple(NAMES)
    assert whole.index_of("n00000999") == 999
    assert read_classes("imagenet-v2:clip") == read_classes("imagenet-sketch:clip") == whole
    assert read_classes("imagenet-v2:clip").index_of("17") == 17  # its folders are numbers
    part = read_classes("imagenet-r:clip")
    assert part.keys == tuple(SYNSETS[3::5])
    assert part.names == tuple(NAMES[3::5])
    assert tuple(templates_of("clip-80")) == tuple(TEMPLATES)
    assert make_prompts(["cat"], templates_of("clip-80"))[79] == "picture 79 of a cat."
    assert read_classes("imagenet-a").names[0] == "word 7"


def test_what_is_missing_is_said(packages, monkeypatch):
    hide(monkeypatch, "clip_benchmark", "open_clip")
    with pytest.raises(InputError, match="pip install one of them"):
        read_classes("imagenet-1k:clip")
    with pytest.raises(InputError, match="pip install one of them"):
        templates_of("clip-80")
    hide(monkeypatch, "timm")
    with pytest.raises(InputError, match=r"come from timm: pip install 'turingvit_hf\[teachers\]'"):
        read_classes("imagenet-a:clip")
    check(EvaluationOptions("m", "zero-shot", "d", "/tmp/none", templates="clip-80"))


def test_lists_of_another_length_are_refused(packages):
    path = packages / "open_clip" / "zero_shot_metadata.py"
    path.write_text(path.read_text() + "IMAGENET_CLASSNAMES = IMAGENET_CLASSNAMES[:-1]\n")
    with pytest.raises(InputError, match="has 999 names and 80 prompts"):
        read_classes("imagenet-1k:clip")


def test_objectnets_classes_come_from_its_own_mappings(tmp_path):
    mappings = tmp_path / "objectnet-1.0" / "mappings"
    mappings.mkdir(parents=True)
    folders = {"water_bottle": "Water bottle", "banana": "Banana", "air_freshener": "Air freshener"}
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps(folders))
    with pytest.raises(InputError, match=r"cannot read .*objectnet_to_imagenet_1k\.json"):
        read_classes(f"objectnet:{mappings}")
    shared = {"Water bottle": "water bottle; canteen", "Banana": "banana"}
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps(shared))
    for place in (mappings, mappings.parent):
        classes = read_classes(f"objectnet:{place}")
        assert (classes.keys, classes.names) == (("banana", "water bottle"), ("banana", "water bottle"))
    with pytest.raises(ValueError, match="none of the classes"):
        classes.index_of("air freshener")
    (mappings / "objectnet_to_imagenet_1k.json").write_text("[]")
    with pytest.raises(InputError, match="are not ObjectNet's"):
        read_classes(f"objectnet:{mappings}")


def test_real_lists_agree():
    """Where the packages are installed: numbers, ends, and that both have the same names in timm's order."""
    pytest.importorskip("timm", reason="the lists are timm's, which CI does not install")
    if imagenet_names._folder_of("open_clip") is None and imagenet_names._folder_of("clip_benchmark") is None:
        pytest.skip("CLIP's names are in open_clip_torch and clip-benchmark, which CI does not install")
    by_word, by_clip = read_classes("imagenet-1k"), read_classes("imagenet-1k:clip")
    assert by_word.keys == by_clip.keys
    assert (by_clip.names[0], by_clip.names[999]) == ("tench", "toilet paper")
    assert (by_word.names[0], by_word.names[999]) == ("tench", "toilet tissue")
    same = sum(a.lower() == b.lower() for a, b in zip(by_word.names, by_clip.names, strict=True))
    assert same > 500  # two lists that are one class out of step agree hardly anywhere
    # where the subsets begin and end in the list of all, as published with their pictures
    for subset, first, last in (
        ("a", [6, 11, 13, 15, 17], [981, 984, 986, 987, 988]),
        ("r", [1, 2, 4, 6, 8], [967, 980, 981, 983, 988]),
    ):
        numbers = [by_word.keys.index(key) for key in read_classes(f"imagenet-{subset}").keys]
        assert (numbers[:5], numbers[-5:]) == (first, last)
    assert len(read_classes("imagenet-a:clip").names) == len(read_classes("imagenet-r:clip").names) == 200
    assert len(templates_of("clip-80")) == 80
