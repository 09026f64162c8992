# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Forms of data, recipes and comparisons for the tests of the step loader."""

import torch

from turingvit_hf.training.arguments import DataRecipe, ResolutionRecipe


FORMS = {
    "shapes": {},
    "folder jsonl": {},
    "parquet": {"streaming": True},
    "webdataset": {"streaming": True},
}


def recipe(*sources, **options):
    defaults = {
        "tokens_per_pack": 64,
        "packs_per_step": 2,
        "num_readers": 2,
        "open_packs": 3,
        "shuffle_window": 8,
        "resolution": ResolutionRecipe("bounded", min_side=32, max_side=96, crop_scale=(0.5, 1.0), flip=0.5),
    }
    return DataRecipe(sources=sources, **(defaults | options))


def steps_of(loader, num_steps):
    return [next(loader) for _ in range(num_steps)]


def assert_equal(steps, expected):
    assert len(steps) == len(expected)
    for step, wanted in zip(steps, expected, strict=True):
        assert step["kind"] == wanted["kind"]
        assert len(step["packs"]) == len(wanted["packs"])
        for pack, other in zip(step["packs"], wanted["packs"], strict=True):
            assert list(pack) == list(other)
            for name, value in pack.items():
                assert value.equal(other[name]) if isinstance(value, torch.Tensor) else value == other[name], name
