# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Steps hold the same packs for any number of ranks and workers and after any resume; packs are full."""

import dataclasses
import json
import math
import multiprocessing
import os
import random
import signal

import datasets
import pytest
import torch
from PIL import Image

from tests.processes import PATIENCE
from tests.training.data.step_cases import FORMS, assert_equal, recipe, steps_of
from tests.training.data_files import NUM_PICTURES, caption, write, write_videos
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.errors import InputError
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.arguments import ResolutionRecipe
from turingvit_hf.training.collators import MaskedImagePackCollator
from turingvit_hf.training.data.step_loader import StepLoader


def test_a_pack_has_what_the_model_takes(sources, collate, tokenizer):
    loader = StepLoader(recipe(sources["folder jsonl"]), collate, seed=0)
    for pack in (pack for step in steps_of(loader, 5) for pack in step["packs"]):
        assert list(pack) == ["image_grid_thw", "pixel_values", "input_ids", "attention_mask", "superclass_ids"]
        num_images = len(pack["image_grid_thw"])
        assert pack["pixel_values"].shape == (int(pack["image_grid_thw"].prod(-1).sum()), 768)
        assert 0 < len(pack["pixel_values"]) <= 64
        assert len(pack["input_ids"]) == len(pack["attention_mask"]) == len(pack["superclass_ids"]) == num_images
        for ids, mask, classes in zip(
            *(pack[n] for n in ("input_ids", "attention_mask", "superclass_ids")), strict=True
        ):
            inner = ids[mask.bool()][1:-1]
            assert classes[classes != -100].tolist() == inner.tolist()
            assert not set(classes.tolist()) & set(tokenizer.all_special_ids)


@pytest.mark.parametrize("form", FORMS)
def test_ranks_and_workers_do_not_change_a_step(form, sources, collate):
    data = recipe(sources[form])
    expected = steps_of(StepLoader(data, collate, seed=1), 8)
    workers = steps_of(StepLoader(dataclasses.replace(data, num_workers=2), collate, seed=1), 8)
    assert_equal(workers, expected)
    ranks = [steps_of(StepLoader(data, collate, seed=1, rank=rank, num_ranks=2), 8) for rank in range(2)]
    joined = [{"kind": a["kind"], "packs": a["packs"] + b["packs"]} for a, b in zip(*ranks, strict=True)]
    assert_equal(joined, expected)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", FORMS)
def test_a_resumed_run_gets_the_packs_it_would_have_got(form, num_workers, sources, collate):
    data = recipe(sources[form], num_workers=num_workers)
    expected = steps_of(StepLoader(dataclasses.replace(data, num_workers=0), collate, seed=2), 24)
    for stop in (1, 14) if num_workers else (1, 5, 14):
        loader = StepLoader(data, collate, seed=2)
        steps_of(loader, stop)
        state = json.loads(json.dumps(loader.state_dict()))
        loader.close()
        resumed = StepLoader(data, collate, seed=2)
        resumed.load_state_dict(state)
        assert_equal(steps_of(resumed, 24 - stop), expected[stop:])


def test_a_run_resumes_with_another_number_of_ranks(sources, collate):
    data = recipe(sources["webdataset"], sources["folder jsonl"])
    expected = steps_of(StepLoader(data, collate, seed=3), 12)
    ranks = [StepLoader(data, collate, seed=3, rank=rank, num_ranks=2) for rank in range(2)]
    for rank in ranks:
        steps_of(rank, 5)
    merged = StepLoader.merge_states([json.loads(json.dumps(rank.state_dict())) for rank in ranks])
    alone = StepLoader(dataclasses.replace(data, num_workers=1), collate, seed=3)
    alone.load_state_dict(merged)
    assert_equal(steps_of(alone, 3), expected[5:8])
    state = alone.state_dict()
    again = StepLoader(data, collate, seed=3, rank=1, num_ranks=2)
    again.load_state_dict(state)
    assert_equal(steps_of(again, 4), [{**step, "packs": step["packs"][1:]} for step in expected[8:]])


def test_a_loader_can_go_back(sources, collate):
    loader = StepLoader(recipe(sources["shapes"]), collate, seed=0)
    state = loader.state_dict()
    first = steps_of(loader, 3)
    loader.load_state_dict(state)
    assert_equal(steps_of(loader, 3), first)


def test_the_seed_decides(sources, collate):
    data = recipe(sources["shapes"])
    packs = [steps_of(StepLoader(data, collate, seed=seed), 1)[0]["packs"][0] for seed in (0, 0, 1)]
    assert packs[0]["pixel_values"].equal(packs[1]["pixel_values"])
    assert packs[0]["pixel_values"].shape != packs[2]["pixel_values"].shape or not packs[0]["pixel_values"].equal(
        packs[2]["pixel_values"]
    )


def test_data_that_were_moved_give_the_same_steps(collate, tmp_path):
    paths = [write("webdataset", tmp_path / name) for name in ("here", "there")]
    runs = [steps_of(StepLoader(recipe(SourceRecipe(str(path))), collate, seed=0), 4) for path in paths]
    assert_equal(*runs)


def test_the_global_generator_is_left_alone(sources, collate):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    steps_of(StepLoader(recipe(sources["shapes"], num_workers=1), collate, seed=0), 2)
    assert torch.rand(3).equal(expected)


@pytest.mark.parametrize("form", ["folder jsonl", "parquet", "webdataset"])
def test_an_epoch_reads_each_row_once(form, sources):
    collate = MaskedImagePackCollator(TuringViTImageProcessor(), mask_ratio=0.4)
    # each picture fills a pack, so that they come in the order of the rows; two shares of an epoch have 30 rows each
    data = recipe(sources[form], num_readers=1, packs_per_step=2, resolution=ResolutionRecipe("fixed", size=128))
    steps = steps_of(StepLoader(data, collate, seed=0), 90)
    keys = [[key for step in steps for key in step["packs"][lane]["sample_keys"]] for lane in range(2)]
    epochs = [keys[0][start : start + 30] + keys[1][start : start + 30] for start in (0, 30, 60)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == NUM_PICTURES
    assert epochs[0] != epochs[1] != epochs[2]


def test_sources_are_drawn_by_their_weight(sources):
    collate = MaskedImagePackCollator(TuringViTImageProcessor(), mask_ratio=0.4)
    folder = dataclasses.replace(sources["folder jsonl"], weight=3.0)
    loader = StepLoader(recipe(folder, sources["webdataset"]), collate, seed=0)
    keys = [key for step in steps_of(loader, 60) for pack in step["packs"] for key in pack["sample_keys"]]
    share = sum(key.startswith(folder.path) for key in keys) / len(keys)
    # 0.75 with a standard deviation of 0.018 for 600 samples
    assert abs(share - 0.75) < 0.06


def test_the_packs_are_filled(collate):
    data = recipe(SourceRecipe("shapes"), tokens_per_pack=512, open_packs=8)
    loader = StepLoader(data, collate, seed=0)
    steps_of(loader, 20)
    counts = loader.counts()
    assert loader.fill == counts["patches"] / (counts["packs"] * 512) >= 0.97
    assert counts["packs"] == 40
    assert counts["skipped"] == {}


@pytest.fixture(scope="module")
def large_pictures(tmp_path_factory):
    """Pictures of which most take more than half of a pack of 4,096 patches, and two of the largest do not fit one."""
    folder = tmp_path_factory.mktemp("large")
    rng = random.Random(0)
    rows = []
    for number in range(40):
        size = rng.choice([(800, 800), (1000, 700), (768, 768), (rng.randint(300, 900), rng.randint(300, 900))])
        Image.new("RGB", size, (6 * number, 99, 0)).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "caption": caption(number)})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return SourceRecipe(str(folder))


def test_large_pictures_fill_packs_by_giving_up_a_little(large_pictures, collate):
    resolution = ResolutionRecipe("native", max_patches=2304)
    data = recipe(large_pictures, tokens_per_pack=4096, open_packs=4, num_readers=1, resolution=resolution)
    loader = StepLoader(data, collate, seed=0)
    expected = steps_of(loader, 6)
    assert loader.fill >= 0.97
    assert loader.counts()["noted"]["image is made smaller to fill its pack"] > 3
    sizes = {tuple(row) for step in expected for pack in step["packs"] for row in pack["image_grid_thw"].tolist()}
    assert min(rows * columns for _, rows, columns in sizes) < 2000 < 2304 == max(math.prod(size) for size in sizes)

    ranks = [steps_of(StepLoader(data, collate, seed=0, rank=rank, num_ranks=2), 4) for rank in range(2)]
    joined = [{"kind": a["kind"], "packs": a["packs"] + b["packs"]} for a, b in zip(*ranks, strict=True)]
    assert_equal(joined, expected[:4])

    loader = StepLoader(data, collate, seed=0)
    steps_of(loader, 3)
    resumed = StepLoader(dataclasses.replace(data, num_workers=2), collate, seed=0)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert_equal(steps_of(resumed, 3), expected[3:])

    exact = StepLoader(dataclasses.replace(data, max_shrink=0.0), collate, seed=0)
    steps_of(exact, 4)
    assert exact.fill < 0.9
    assert exact.counts()["noted"] == {}


def test_the_state_is_small(collate, sources):
    data = recipe(SourceRecipe("shapes"), sources["webdataset"], tokens_per_pack=1024, open_packs=8)
    loader = StepLoader(data, collate, seed=0)
    steps_of(loader, 8)
    state = loader.state_dict()
    assert len(state["readers"]) == 4
    # about 8 packs of 60 images, five short numbers each
    assert len(json.dumps(state)) / 4 < 20_000


@pytest.mark.parametrize(
    ("options", "num_ranks", "message"),
    [
        ({"packs_per_step": 3}, 2, "packs_per_step=3 cannot be divided among 2 processes"),
        ({"num_workers": 3}, 1, "num_workers=3 must divide the 4 readers of a process"),
        ({"resolution": ResolutionRecipe("native")}, 1, "an image may have 9216 patches .* tokens_per_pack=64"),
        ({"resolution": ResolutionRecipe("fixed", size=256)}, 1, "an image may have 256 patches"),
        ({"video_share": 0.5}, 1, "needs a source of kind 'video'"),
        ({"video_share": 0.5, "num_frames": 65}, 1, "no room for 65 frames"),
        ({"sources": ()}, 1, "needs a source of kind 'image'"),
    ],
)
def test_recipes_that_cannot_work_are_refused(options, num_ranks, message, sources, collate):
    with pytest.raises(InputError, match=message):
        StepLoader(dataclasses.replace(recipe(sources["shapes"]), **options), collate, seed=0, num_ranks=num_ranks)


def test_states_that_do_not_belong_are_refused(sources, collate):
    data = recipe(sources["shapes"])
    ranks = [StepLoader(data, collate, seed=0, rank=rank, num_ranks=2) for rank in range(2)]
    steps_of(ranks[0], 1)
    with pytest.raises(InputError, match="not merged"):
        ranks[1].load_state_dict(ranks[0].state_dict())
    with pytest.raises(ValueError, match=r"states of different steps: \[1, 0\]"):
        StepLoader.merge_states([rank.state_dict() for rank in ranks])
    two = StepLoader(recipe(sources["shapes"], sources["webdataset"]), collate, seed=0, rank=0, num_ranks=2)
    two.load_state_dict(ranks[0].state_dict())
    with pytest.raises(InputError, match="was written with 1 sources, there are 2"):
        steps_of(two, 3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return SourceRecipe(str(write_videos(tmp_path_factory.mktemp("videos") / "data", 20)), kind="video")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_clips_and_images_take_turns_and_resume(num_workers, videos, sources, collate):
    resolution = ResolutionRecipe("native", max_patches=40)
    options = {"video_share": 0.4, "num_frames": 4, "max_bad_share": 0.5, "resolution": resolution}
    data = recipe(sources["folder jsonl"], videos, **options)
    expected = steps_of(StepLoader(data, collate, seed=0), 16)
    kinds = [step["kind"] for step in expected]
    assert 3 <= kinds.count("video") <= 10
    for step in expected:
        for pack in step["packs"]:
            assert set(pack["image_grid_thw"][:, 0].tolist()) == {4 if step["kind"] == "video" else 1}
            assert ("superclass_ids" in pack) == (step["kind"] == "image")
            assert len(pack["pixel_values"]) <= 64
    loader = StepLoader(dataclasses.replace(data, num_workers=num_workers), collate, seed=0)
    steps_of(loader, 7)
    state = json.loads(json.dumps(loader.state_dict()))
    loader.close()
    resumed = StepLoader(data, collate, seed=0)
    resumed.load_state_dict(state)
    assert_equal(steps_of(resumed, 9), expected[7:])
    assert set(resumed.counts()["skipped"]) == {"video cannot be read"}


def test_short_clips_are_used_and_counted(videos, collate):
    data = recipe(videos, video_share=1.0, num_frames=9, tokens_per_pack=128, max_bad_share=0.5)
    loader = StepLoader(data, collate, seed=0)
    packs = [pack for step in steps_of(loader, 3) for pack in step["packs"]]
    assert {int(pack["image_grid_thw"][:, 0].max()) for pack in packs} == {6}
    counts = loader.counts()
    assert counts["noted"]["clip has fewer than 9 frames"] >= counts["images"]


def test_workers_outlive_the_signal_that_stops_a_run(sources, collate):
    loader = StepLoader(recipe(sources["shapes"], num_workers=2), collate, seed=0)
    before = {child.pid for child in multiprocessing.active_children()}
    steps_of(loader, 1)
    workers = [child for child in multiprocessing.active_children() if child.pid not in before]
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    assert len(steps_of(loader, 8)) == 8
    loader.close()
    for worker in workers:
        worker.join(PATIENCE)
        assert not worker.is_alive()


def test_parquet_by_index_is_the_same_data(collate, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = recipe(dataclasses.replace(sources["parquet"], streaming=False), num_workers=2)
    assert_equal(
        steps_of(StepLoader(data, collate, seed=0), 6),
        steps_of(StepLoader(dataclasses.replace(data, num_workers=0), collate, seed=0), 6),
    )
