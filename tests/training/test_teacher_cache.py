# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The cache of a teacher's features: nothing is computed twice, nothing wrong is read."""

import itertools
import json
import multiprocessing

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from tests.processes import PATIENCE
from tests.training.test_teachers import load, make_crops, make_pack, save_family
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.errors import InputError
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.arguments import DataRecipe, ResolutionRecipe
from turingvit_hf.training.collators import MaskedImagePackCollator
from turingvit_hf.training.data.step_loader import StepLoader
from turingvit_hf.training.teacher_cache import CachedTeacher


SIZES = (32, 96), (64, 64), (16, 48)


@pytest.fixture
def folder(tmp_path):
    save_family(tmp_path / "teacher", "siglip")
    return tmp_path / "teacher"


@pytest.fixture
def cached(folder, tmp_path):
    return load(folder, cache=str(tmp_path / "cache"))


@pytest.fixture
def pack(cached):
    return make_pack(cached, make_crops(*SIZES)) | {"sample_keys": ["a/0", "a/1", "b/0"]}


def entries(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.safetensors"))


def test_features_are_computed_once(cached, pack, folder, tmp_path):
    first = cached.features(pack, "cpu")
    assert cached.counts == {"hits": 0, "misses": 3, "corrupt": 0}
    assert len(entries(tmp_path)) == 3
    assert_close(first, load(folder).features(pack, "cpu"), atol=2e-3, rtol=2e-3)
    cached.teacher.network = None  # whoever asks the teacher now fails
    assert torch.equal(cached.features(pack, "cpu"), first)
    assert cached.counts == {"hits": 3, "misses": 3, "corrupt": 0}


def test_other_packs_of_the_same_samples_hit(cached, pack, tmp_path):
    parts = cached.features(pack, "cpu").split([12, 16, 3])
    other = make_pack(cached, [make_crops(*SIZES)[index] for index in (2, 0)]) | {"sample_keys": ["b/0", "a/0"]}
    again = load_again(cached, tmp_path)
    assert torch.equal(again.features(other, "cpu"), torch.cat([parts[2], parts[0]]))
    assert again.counts["hits"] == 2


def load_again(cached, tmp_path):
    return load(tmp_path / "teacher", cache=str(tmp_path / "cache"))


def test_what_is_missing_is_computed_as_in_the_whole_pack(cached, pack, tmp_path, monkeypatch):
    """A run that was killed between two files goes on bit by bit like one that was not."""
    whole = cached.features(pack, "cpu")
    content = {path: path.read_bytes() for path in entries(tmp_path)}
    lost, *kept = content
    lost.unlink()
    times = [path.stat().st_mtime_ns for path in kept]
    seen = []
    compute = cached.teacher.features
    monkeypatch.setattr(cached.teacher, "features", lambda part, device: seen.append(part) or compute(part, device))
    assert torch.equal(cached.features(pack, "cpu"), whole)
    assert [len(part["image_grid_thw"]) for part in seen] == [3]
    assert lost.read_bytes() == content[lost]
    assert [path.stat().st_mtime_ns for path in kept] == times


def test_another_crop_or_sample_is_another_entry(cached, pack, tmp_path):
    cached.features(pack, "cpu")
    larger = make_pack(cached, make_crops((64, 96))) | {"sample_keys": ["a/0"]}
    assert cached.features(larger, "cpu").shape == (24, 32)
    cached.features(pack | {"sample_keys": ["a/0", "a/1", "b/1"]}, "cpu")
    assert cached.counts["misses"] == 5
    others = make_pack(cached, make_crops(*SIZES, seed=1)) | {"sample_keys": pack["sample_keys"]}
    assert not torch.equal(cached.features(others, "cpu"), cached.features(pack, "cpu"))
    assert cached.counts["misses"] == 8


@pytest.mark.parametrize("change", ["weights", "size", "dtype", "pixels"])
def test_another_teacher_does_not_read_these(change, cached, pack, folder, tmp_path):
    cached.features(pack, "cpu")
    options = {"size": {"size": 48}, "dtype": {"dtype": "bfloat16"}}.get(change, {})
    if change == "weights":
        model = save_family(folder, "siglip")
        torch.nn.init.normal_(model.post_layernorm.bias)
        model.save_pretrained(folder)
    if change == "pixels":
        file = folder / "preprocessor_config.json"
        file.write_text(file.read_text().replace("0.48", "0.5"))
    other = load(folder, cache=str(tmp_path / "cache"), **options)
    other.features(make_pack(other, make_crops(*SIZES)) | {"sample_keys": pack["sample_keys"]}, "cpu")
    assert other.counts["hits"] == 0


def test_the_same_teacher_elsewhere_by_the_same_name_reads_them(cached, pack, tmp_path):
    cached.features(pack, "cpu")
    again = load_again(cached, tmp_path)
    again.features(pack, "cpu")
    assert again.counts == {"hits": 3, "misses": 0, "corrupt": 0}


def test_damaged_entries_are_counted_and_made_anew(cached, pack, tmp_path):
    whole = cached.features(pack, "cpu")
    first, second, third = entries(tmp_path)
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    second.write_bytes(b"")
    third.write_bytes(torch.randn(30).numpy().tobytes())
    assert_close(cached.features(pack, "cpu"), whole)
    assert cached.counts["corrupt"] == 3
    # an entry of other features under this name
    first.write_bytes(max((second, third), key=lambda path: abs(path.stat().st_size - len(content))).read_bytes())
    assert_close(cached.features(pack, "cpu"), whole)
    assert cached.counts == {"hits": 2, "misses": 7, "corrupt": 4}
    assert torch.equal(cached.features(pack, "cpu"), cached.features(pack, "cpu"))
    assert not list((tmp_path / "cache").rglob("*.part"))


class Arithmetic:
    """A teacher whose features are its patches times a number."""

    hidden_size, preprocess = 4, None

    def __init__(self, factor):
        self.factor, self.counts = factor, {}

    def features(self, pack, device):
        return pack["pixel_values"] * self.factor


def test_features_beyond_float16_are_kept(tmp_path):
    cached = CachedTeacher(Arithmetic(1e6), tmp_path, identity={}, dtype=torch.float16)
    pack = {"image_grid_thw": torch.tensor([[1, 2, 2]]), "pixel_values": torch.ones(4, 4), "sample_keys": ["a"]}
    assert_close(cached.features(pack, "cpu"), torch.full((4, 4), 1e6), rtol=1e-2, atol=0)
    assert torch.equal(cached.features(pack, "cpu"), cached.features(pack, "cpu"))


def fill(folder, barrier, results):
    torch.set_num_threads(1)
    cached = CachedTeacher(Arithmetic(2), folder, identity={}, dtype=torch.float16)
    barrier.wait()
    right = []
    for number in range(100):
        pixels = torch.full((6, 4), float(number % 25))
        keys = [str(number % 25), str(number % 25)]
        pack = {"image_grid_thw": torch.tensor([[1, 2, 2], [1, 2, 1]]), "pixel_values": pixels, "sample_keys": keys}
        right.append(torch.equal(cached.features(pack, "cpu"), 2 * pixels))
    results.put((all(right), cached.counts))


def test_processes_share_a_folder(tmp_path):
    # forked, since a new interpreter would spend ten seconds on imports
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=fill, args=(tmp_path / "cache", barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=PATIENCE) for _ in processes]
    for process in processes:
        process.join()
    for is_right, counts in answers:
        assert is_right
        assert counts["corrupt"] == 0
        assert counts["hits"] + counts["misses"] == 200
    assert len(entries(tmp_path)) == 50
    assert not list(tmp_path.rglob("*.part"))


def test_packs_need_names(cached, pack):
    with pytest.raises(ValueError, match="for each of 3 images; sample_keys: none"):
        cached.features({name: value for name, value in pack.items() if name != "sample_keys"}, "cpu")
    with pytest.raises(ValueError, match="for each of 3 images; sample_keys: 1"):
        cached.features(pack | {"sample_keys": ["a"]}, "cpu")


@pytest.mark.parametrize("values", [{"crop_scale": (0.5, 1.0)}, {"flip": 0.5}, {"mode": "bounded"}], ids=str)
def test_crops_have_to_repeat(values, folder, tmp_path):
    with pytest.raises(InputError, match=r"teacher\.cache needs crops that repeat"):
        load(folder, cache=str(tmp_path / "cache"), resolution=ResolutionRecipe(**values))
    assert not (tmp_path / "cache").exists()


def test_packs_of_the_loader_hit_in_the_second_epoch(cached, tmp_path):
    """Twelve pictures, read again and again by the step loader: each is computed once, in whatever pack it comes."""
    rows = []
    for number, crop in enumerate(make_crops(*[(48, 64), (64, 32), (40, 90)] * 4)):
        Image.fromarray(crop.transpose(1, 2, 0)).save(tmp_path / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "caption": "a picture"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    data = DataRecipe(
        sources=(SourceRecipe(str(tmp_path)),),
        resolution=ResolutionRecipe(max_patches=16),
        tokens_per_pack=48,
        num_readers=1,
        open_packs=1,
    )
    processor = TuringViTImageProcessor()
    collate = MaskedImagePackCollator(processor, mask_ratio=0.4, preprocess=cached.preprocess)
    uncached, seen = load(tmp_path / "teacher"), 0
    for step in itertools.islice(StepLoader(data, collate, seed=0), 12):
        (pack,) = step["packs"]
        seen += len(pack["image_grid_thw"])
        features = cached.features(pack, "cpu")
        assert features.shape == (len(pack["bool_masked_pos"]), 32)
        assert_close(features, uncached.features(pack, "cpu"), atol=2e-3, rtol=2e-3)
    assert cached.counts == {"hits": seen - 12, "misses": 12, "corrupt": 0}
    assert seen > 24
