# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Sources in each form, and what makes packs of them."""

import pytest

from tests.training.data.step_cases import FORMS
from tests.training.data_files import NUM_PICTURES, caption, write
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.collators import ImageTextPackCollator
from turingvit_hf.training.text import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([caption(number) for number in range(NUM_PICTURES)])


@pytest.fixture(scope="module")
def collate(tokenizer):
    return ImageTextPackCollator(TuringViTImageProcessor(), tokenizer, max_tokens=32, vocabulary=tokenizer)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A source in each form."""
    folder = tmp_path_factory.mktemp("sources")
    made = {"shapes": SourceRecipe("shapes", max_samples=50)}
    for form, options in FORMS.items():
        if form != "shapes":
            # four readers get a file each, or every fourth row
            num_shards = 4 if form == "parquet" else 3
            made[form] = SourceRecipe(str(write(form, folder / form, num_shards=num_shards)), **options)
    return made
