# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The estimate of host memory is what readers hold, counted by what Python allocates."""

import io
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.collators import MaskedImagePackCollator
from turingvit_hf.training.data.step_loader import StepLoader
from turingvit_hf.training.recipes import load_recipe
from turingvit_hf.training.stages.host_memory import estimate_host_memory
from turingvit_hf.training.stages.plan import describe_plan


NUM_TARS, ROWS_A_TAR = 4, 40


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Four tars of forty pictures of noise, and the bytes of a picture on average."""
    folder = tmp_path_factory.mktemp("tars")
    sizes = []
    for tar_number in range(NUM_TARS):
        with tarfile.open(folder / f"{tar_number}.tar", "w") as tar:
            for number in range(ROWS_A_TAR):
                pixels = np.random.default_rng(tar_number * ROWS_A_TAR + number).integers(0, 256, (64, 64, 3))
                buffer = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
                data = buffer.getvalue() + b"\0" * 40_000  # readers of PNG stop at its end
                sizes.append(len(data))
                for name, content in ((f"{number:03}.png", data), (f"{number:03}.txt", b"noise")):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder, sum(sizes) // len(sizes)


def recipe_of(folder, *changes):
    return load_recipe(
        "tiny/stage1",
        [
            f"data.sources=[{{path: '{folder}/*.tar'}}]",
            "data.resolution={mode: fixed, size: 64}",
            "data.tokens_per_pack=64",
            "data.packs_per_step=4",
            "data.num_readers=1",
            "data.open_packs=2",
            "data.max_shrink=0",
            "data.shuffle_window=16",
            *changes,
        ],
    )


@pytest.mark.parametrize(("window", "num_readers"), [(16, 1), (32, 1), (8, 2)])
def test_the_estimate_is_what_readers_hold(tars, window, num_readers):
    folder, image_bytes = tars
    recipe = recipe_of(folder, f"data.shuffle_window={window}", f"data.num_readers={num_readers}")
    estimate = estimate_host_memory(recipe, num_ranks=1, image_bytes=image_bytes)
    assert (estimate.num_readers, estimate.num_rows) == (4 * num_readers, 4 * num_readers * window)
    collate = MaskedImagePackCollator(TuringViTImageProcessor(), mask_ratio=0.4)
    loader = StepLoader(recipe.data, collate, seed=0)
    tracemalloc.start()
    try:
        for _ in range(6):
            next(loader)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        loader.close()
    # pools are not full at the moment when the last window is read
    assert 0.7 * estimate.total_bytes < peak < 1.1 * estimate.total_bytes


def test_what_waits_and_what_is_read_ahead(tmp_path):
    """Frames of clips that wait are decoded, a byte a value; packs ahead are float32."""
    (tmp_path / "clips.tar").touch()
    clips = f"{{path: {tmp_path / 'clips.tar'}, kind: video}}"
    changes = ["data.packs_per_step=8", "data.num_readers=2", "data.open_packs=3", "data.shuffle_window=5"]
    sizes = ["data.tokens_per_pack=1024", "data.num_workers=2"]
    recipe = load_recipe("18l/stage4", [f"data.sources=[{{path: shapes}}, {clips}]", *changes, *sizes])
    found = estimate_host_memory(recipe, num_ranks=4, clip_bytes=1000)
    assert (found.num_readers, found.num_rows, found.row_bytes) == (4, 20, 20_000)
    assert found.waiting_bytes == 4 * 3 * 1024 * 768
    assert (found.num_packs, found.pack_bytes) == (4, 4 * 1024 * 768 * 4)


def test_the_dry_run_tells(tars, tmp_path):
    folder, _ = tars
    plan = describe_plan(recipe_of(folder, "data.shuffle_window=10_000"), out=tmp_path / "out", num_ranks=2)
    assert "2 readers a process hold about 1.86 GiB of data: 1.86 GiB in 20,000 rows of streams at 100 kB" in plan
    plan = describe_plan(recipe_of(folder, "data.sources=[{path: shapes}]"), out=tmp_path / "out", num_ranks=1)
    assert "host memory:  little: 4 readers a process, and no source is streamed" in plan
