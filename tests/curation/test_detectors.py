# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Detectors and the step of grounding: boxes lie in the original image, whatever the processor did to it."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.utils import is_torchvision_available

from tests.curation import tiny_models
from turingvit_hf.curation.models.detectors import Box, TransformersDetector, overlap, suppress
from turingvit_hf.curation.steps.grounding import GroundingStep
from turingvit_hf.errors import InputError


needs_torchvision = pytest.mark.skipif(
    not is_torchvision_available(), reason="transformers has no OmDet-Turbo without torchvision"
)
SAVED = {
    "owlv2": tiny_models.save_owlv2,
    "owlvit": tiny_models.save_owlvit,
    "grounding_dino": tiny_models.save_grounding_dino,
    "omdet_turbo": tiny_models.save_omdet_turbo,
}
FAMILIES = [*list(SAVED)[:3], pytest.param("omdet_turbo", marks=needs_torchvision)]
SIZES = [(40, 80), (90, 33), (32, 32)]  # (height, width)


def pictures() -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors")
    made = {}

    def folder_of(family: str) -> str:
        if family not in made:
            made[family] = str(SAVED[family](folder / family))
        return made[family]

    return folder_of


class BrightSpot(torch.nn.Module):
    """Finds the bright rectangle in what the processor made of an image, and says so in the family's own output."""

    def __init__(self, family: str, num_phrases: int, config):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.family = family
        self.num_phrases = num_phrases
        self.config = config

    def forward(self, pixel_values: torch.Tensor, **inputs):
        boxes = []
        for image in pixel_values:
            rows, columns = torch.where(image.mean(0) > image.mean(0).max() - 0.5)
            height, width = image.shape[-2:]
            top, bottom = rows.min() / height, (rows.max() + 1) / height
            left, right = columns.min() / width, (columns.max() + 1) / width
            boxes.append(torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]))
        boxes = torch.stack(boxes)[:, None]
        if self.family == "grounding_dino":
            logits = torch.full((len(boxes), 1, inputs["input_ids"].shape[1]), 5.0)
            return SimpleNamespace(logits=logits, pred_boxes=boxes, input_ids=inputs["input_ids"])
        logits = torch.full((len(boxes), 1, self.num_phrases), -5.0)
        logits[..., -1] = 5.0
        if self.family == "omdet_turbo":
            return SimpleNamespace(
                decoder_coord_logits=boxes,
                decoder_class_logits=logits,
                classes_structure=torch.full((len(boxes),), self.num_phrases),
            )
        return SimpleNamespace(logits=logits, pred_boxes=boxes)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_box_lies_where_the_thing_is_in_the_original_image(folders, family, size):
    # OWLv2 fills an image up to a square, below and to the right; boxes shift unless that is undone
    detector = TransformersDetector(folders(family), device="cpu")
    detector._load()
    detector._network = BrightSpot(family, 2, detector._network.config)
    image = np.zeros((*size, 3), np.uint8)
    image[8:24, 4:28] = 255
    found = detector.detect([image], [["a cat", "a dog"]])[0]
    box = next(box for box in found if box.phrase == "a dog")
    # the processors resize to 32 or 64 pixels, so that an edge may lie two or three pixels off
    np.testing.assert_allclose(box[2:], (4, 8, 28, 24), atol=3.0)
    assert box.score == pytest.approx(1 / (1 + np.exp(-5)))


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_lie_inside_their_image_and_name_its_phrases(folders, family):
    detector = TransformersDetector(folders(family), device="cpu", min_score=0.0, max_area=1.0)
    phrases = [["red dog", "cat"], ["tree"], ["a boat on the sky", "boat", "cat"]]
    found = detector.detect(pictures(), phrases)
    assert any(found)
    for boxes, asked, (height, width) in zip(found, phrases, SIZES, strict=True):
        assert [box.score for box in boxes] == sorted((box.score for box in boxes), reverse=True)
        for box in boxes:
            assert box.phrase in asked
            assert 0 <= box.x0 < box.x1 <= width
            assert 0 <= box.y0 < box.y1 <= height


# Grounding DINO sees the smaller image of a batch with a margin, and through its convolutions that margin
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "grounding_dino"])
def test_an_image_is_not_told_by_what_else_is_asked(folders, family):
    detector = TransformersDetector(folders(family), device="cpu", min_score=0.0)
    phrases = [["red dog", "cat"], ["tree"], []]
    together = detector.detect(pictures(), phrases)
    assert together[2] == []
    for picture, asked, boxes in zip(pictures(), phrases, together, strict=True):
        alone = detector.detect([picture], [asked])[0]
        assert [box.phrase for box in alone] == [box.phrase for box in boxes]
        np.testing.assert_allclose([box[1:] for box in alone], [box[1:] for box in boxes], atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_phrases_that_are_long_or_asked_twice_do_no_harm(folders, family):
    detector = TransformersDetector(folders(family), device="cpu", min_score=0.0)
    long = "small shiny red green blue button and golden bell " * 3
    boxes = detector.detect(pictures()[:1], [["cat", "cat", long]])[0]
    assert {box.phrase for box in boxes} <= {"cat", long}
    assert len(boxes) == len(set(boxes))


def test_boxes_of_nearly_the_whole_image_are_left_out(folders):
    detector = TransformersDetector(folders("owlv2"), device="cpu")
    detector._load()
    detector._network = BrightSpot("owlv2", 1, detector._network.config)
    image = np.full((64, 64, 3), 255, np.uint8)
    image[0, 0] = 0
    assert detector.detect([image], [["sky"]]) == [[]]
    image[40:] = 0
    assert len(detector.detect([image], [["sky"]])[0]) == 1


def test_overlapping_boxes_of_one_phrase_become_the_best_one():
    dog, shifted, far = Box("dog", 0.9, 0, 0, 10, 10), Box("dog", 0.8, 1, 0, 11, 10), Box("dog", 0.7, 9, 0, 19, 10)
    cat = Box("cat", 0.6, 0, 0, 10, 10)
    assert overlap(dog, shifted) == pytest.approx(90 / 110)
    assert overlap(dog, Box("dog", 1, 20, 20, 30, 30)) == 0
    assert suppress([dog, shifted, far, cat], max_overlap=0.5) == [dog, far, cat]
    assert suppress([dog, shifted], max_overlap=0.9) == [dog, shifted]


class Finder:
    """A detector that finds what it was told."""

    name = "finder"
    revision = None

    def __init__(self, *phrases: str):
        self.phrases = phrases

    def detect(self, images, phrases):
        return [[Box(phrase, 0.5, 0, 0, 1, 1) for phrase in asked if phrase in self.phrases] for asked in phrases]


def test_recall_is_the_share_of_phrases_with_a_box():
    pytest.importorskip("textblob")
    step = GroundingStep(detector=Finder("shiny button"))
    image = pictures()[0]
    made = step(
        {
            "image": [image, image, None, image],
            "caption": ["A shiny button and a golden bell", "It is so.", "A shiny button", None],
        }
    )
    assert made["phrases"] == [["shiny button", "golden bell"], [], ["shiny button"], []]
    assert made["grounding_recall"] == [0.5, None, None, None]
    assert made["boxes"][0] == [{"phrase": "shiny button", "score": 0.5, "x0": 0, "y0": 0, "x1": 1, "y1": 1}]
    assert made["boxes"][1:] == [[], [], []]


def test_the_step_runs_a_checkpoint_and_goes_to_another_process(folders):
    pytest.importorskip("textblob")
    step = GroundingStep(detector={"model": folders("owlv2"), "device": "cpu", "min_score": 0.0})
    batch = {"image": pictures(), "caption": ["A red dog on a boat", "A blue kite", None]}
    made = pickle.loads(pickle.dumps(step))(batch)
    assert made == step(batch)
    assert made["phrases"][1] == ["blue kite"]


def test_bad_options_and_models_are_errors_of_one_line(tmp_path, folders):
    with pytest.raises(InputError, match="min_score must be between 0 and 1, not 3"):
        TransformersDetector("x", min_score=3)
    with pytest.raises(InputError, match="cannot load"):
        TransformersDetector(str(tmp_path), device="cpu").detect(pictures()[:1], [["a"]])
    clip = tiny_models.save_clip(tmp_path / "clip")
    with pytest.raises(InputError, match="no zero-shot detector"):
        TransformersDetector(str(clip), device="cpu").detect(pictures()[:1], [["a"]])
