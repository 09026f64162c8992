# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""transformers' pipelines give one right result for each image, or fail loudly."""

import json

import pytest
import torch
from transformers import pipeline

from tests.integrations.tiny import PATCH, pictures, tiny_config, tiny_llava_processor, tiny_processor
from turingvit_hf import TuringViTForImageClassification, TuringViTModel


MIXED = pictures([(16, 12), (20, 8), (12, 12), (16, 16), (8, 24), (40, 20), (12, 16), (17, 11), (1, 3), (20, 20)])
SAME = pictures([(16, 12)] * 10)
# sizes that agree once they are rounded to the patch
ROUNDED = pictures([(16 + i % 2, 12 - i % 2) for i in range(10)])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    models = {
        "tower": TuringViTModel(tiny_config()),
        "tower without head": TuringViTModel(tiny_config(vision_use_head=False)),
        "classifier": TuringViTForImageClassification(tiny_config(num_labels=4)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tiny_processor().save_pretrained(folder / name)
    return {name: (str(folder / name), model.eval()) for name, model in models.items()}


def direct(model, image, key):
    """The model's own output for one image."""
    with torch.no_grad():
        return model(**tiny_processor()(image, return_tensors="pt"))[key]


def extract(folder, images, **options):
    return pipeline("image-feature-extraction", model=folder)(images, return_tensors=True, **options)


def check_classes(folder, model, images, batch_size, **options):
    """Asserts that the pipeline gives each image the classifier's own probabilities."""
    results = pipeline("image-classification", model=folder, **options)(images, batch_size=batch_size, top_k=4)
    assert len(results) == len(images)
    for image, result in zip(images, results, strict=True):
        scores = {entry["label"]: entry["score"] for entry in result}
        found = torch.tensor([[scores[f"LABEL_{i}"] for i in range(4)]])
        torch.testing.assert_close(found, direct(model, image, "logits").softmax(-1))


BATCHES = pytest.mark.parametrize(
    ("images", "batch_size"),
    [(MIXED, 1), (SAME, 1), (SAME, 4), (ROUNDED, 4)],
    ids=["mixed-1", "same-1", "same-4", "rounded-4"],
)


@BATCHES
@pytest.mark.parametrize("name", ["tower", "tower without head"])
def test_tokens_of_each_image(checkpoints, name, images, batch_size):
    folder, model = checkpoints[name]
    results = extract(folder, images, batch_size=batch_size)
    assert len(results) == len(images)
    for image, result in zip(images, results, strict=True):
        torch.testing.assert_close(result, direct(model, image, "last_hidden_state"))


@BATCHES
def test_one_vector_of_each_image(checkpoints, images, batch_size):
    folder, model = checkpoints["tower"]
    results = extract(folder, images, batch_size=batch_size, pool=True)
    assert len(results) == len(images)
    for image, result in zip(images, results, strict=True):
        torch.testing.assert_close(result, direct(model, image, "pooler_output"))


@BATCHES
def test_classes_of_each_image(checkpoints, images, batch_size):
    folder, model = checkpoints["classifier"]
    check_classes(folder, model, images, batch_size)


def test_batches_of_unlike_sizes_are_refused(checkpoints):
    for name in ("tower", "tower without head"):
        with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
            extract(checkpoints[name][0], MIXED, batch_size=4)
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        pipeline("image-classification", model=checkpoints["classifier"][0])(MIXED, batch_size=4)


def test_tower_without_head_does_not_pool(checkpoints):
    with pytest.raises(ValueError, match="No pooled output"):
        extract(checkpoints["tower without head"][0], SAME, pool=True)


def test_plain_lists_and_a_single_image(checkpoints):
    folder, model = checkpoints["tower"]
    result = pipeline("image-feature-extraction", model=folder)(SAME[0])
    torch.testing.assert_close(torch.tensor(result), direct(model, SAME[0], "last_hidden_state"))


def test_fixed_size_makes_any_batch(checkpoints):
    folder, model = checkpoints["tower"]
    options = {"resolution": "fixed", "size": {"height": 3 * PATCH, "width": 3 * PATCH}}
    results = pipeline("image-feature-extraction", model=folder)(
        MIXED, return_tensors=True, batch_size=4, image_processor_kwargs=options
    )
    assert len(results) == len(MIXED)
    for image, result in zip(MIXED, results, strict=True):
        with torch.no_grad():
            expected = model(**tiny_processor(**options)(image, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(result, expected)


def test_a_processor_that_packs_is_saved_as_one_that_does_not(tmp_path, checkpoints):
    _, model = checkpoints["tower without head"]
    model.save_pretrained(tmp_path)
    tiny_processor(do_pack=True).save_pretrained(tmp_path)
    results = extract(str(tmp_path), SAME, batch_size=4)
    assert len(results) == len(SAME)
    for image, result in zip(SAME, results, strict=True):
        torch.testing.assert_close(result, direct(model, image, "last_hidden_state"))


@pytest.fixture(scope="module")
def saved_with_sizes(checkpoints, tmp_path_factory):
    """The same checkpoints, their processors saved with the flag that a VLM wants."""
    folder = tmp_path_factory.mktemp("saved_with_sizes")
    for name, (_, model) in checkpoints.items():
        model.save_pretrained(folder / name)
        tiny_processor(return_image_sizes=True).save_pretrained(folder / name)
    return {name: str(folder / name) for name in checkpoints}


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
def test_a_processor_with_sizes_is_saved_as_one_without(checkpoints, saved_with_sizes, batch_size):
    images = SAME[:5]
    for name, key in (
        ("tower", "last_hidden_state"),
        ("tower", "pooler_output"),
        ("tower without head", "last_hidden_state"),
    ):
        results = extract(saved_with_sizes[name], images, batch_size=batch_size, pool=key == "pooler_output")
        assert len(results) == len(images)
        for image, result in zip(images, results, strict=True):
            torch.testing.assert_close(result, direct(checkpoints[name][1], image, key))
    check_classes(saved_with_sizes["classifier"], checkpoints["classifier"][1], images, batch_size)


REFUSED = pytest.raises(ValueError, match="is not for pipeline")


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
def test_sizes_written_by_hand_are_refused_or_right(checkpoints, tmp_path, batch_size):
    for name in ("tower", "classifier"):
        checkpoints[name][1].save_pretrained(tmp_path / name)
        settings = tiny_processor(return_image_sizes=True).to_dict()
        (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with REFUSED:
        extract(str(tmp_path / "tower"), SAME[:5], batch_size=batch_size)
    check_classes(str(tmp_path / "classifier"), checkpoints["classifier"][1], SAME[:5], batch_size)


def test_features_with_the_processor_of_a_vlm_are_refused(checkpoints, tmp_path):
    checkpoints["tower"][1].save_pretrained(tmp_path)
    tiny_llava_processor().save_pretrained(tmp_path)
    with REFUSED:
        extract(str(tmp_path), SAME)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("flag", ["do_pack", "return_image_sizes"])
@pytest.mark.parametrize("name", ["tower", "tower without head"])
def test_features_from_a_flagged_object_or_call_are_refused(checkpoints, name, flag, batch_size):
    folder, model = checkpoints[name]
    task = "image-feature-extraction"
    with REFUSED:
        pipeline(task, model=model, image_processor=tiny_processor(**{flag: True}))(SAME, batch_size=batch_size)
    with REFUSED:
        pipeline(task, model=folder)(SAME, batch_size=batch_size, image_processor_kwargs={flag: True})


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("flag", ["do_pack", "return_image_sizes"])
def test_classes_from_a_flagged_object_are_right(checkpoints, flag, batch_size):
    folder, model = checkpoints["classifier"]
    check_classes(folder, model, SAME[:5], batch_size, image_processor=tiny_processor(**{flag: True}))
