# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The classifier: one row of logits for each image in every input form, with and without a pooling head."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers import TOWER_TOLERANCE, assert_close
from tests.towers import TowerTwin, make_image, make_model, pack, pad, tiny_config
from turingvit_hf import TuringViTForImageClassification, TuringViTModel


IMAGES = [make_image(3, 5), make_image(3, 5) + 1]
FORMS = {"packed": pack(IMAGES), "batch": {"pixel_values": torch.stack(IMAGES)}, "padded": pad(IMAGES)}


def make_classifier(**changes):
    return make_model(TuringViTForImageClassification, tiny_config(num_labels=5, **changes))


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("head", [True, False], ids=["head", "no head"])
def test_logits_of_every_form(head, form):
    model = make_classifier(vision_use_head=head)
    twins = [TowerTwin(model.config, model.turingvit.state_dict()).image(image) for image in IMAGES]
    pooled = [twin.pooled if head else twin.hidden_states[-1].mean(0) for twin in twins]
    weight, bias = (np.asarray(x.double()) for x in (model.classifier.weight, model.classifier.bias))
    logits = model(**FORMS[form]).logits
    assert logits.shape == (2, 5)
    assert_close(logits, np.array(pooled) @ weight.T + bias, TOWER_TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("head", [True, False], ids=["head", "no head"])
def test_logits_of_images_of_unlike_sizes(head):
    model = make_classifier(vision_use_head=head)
    images = [make_image(3, 5), make_image(1, 1), make_image(4, 2)]
    alone = torch.cat([model(image[None]).logits for image in images])
    assert_close(model(**pack(images)).logits, alone, TOWER_TOLERANCE)
    padded = pad(images)
    assert_close(model(**padded).logits, alone, TOWER_TOLERANCE)
    assert_close(model(padded["pixel_values"], image_sizes=padded["image_sizes"].tolist()).logits, alone, 1e-5)


@torch.no_grad()
def test_a_clip_has_one_row_of_logits():
    images = [make_image(2, 3, frames=3), make_image(3, 5)]
    for head in (True, False):
        model = make_classifier(vision_use_head=head)
        logits = model(**pack(images)).logits
        assert logits.shape == (2, 5)
        assert_close(logits[0], model(images[0]).logits.mean(0), TOWER_TOLERANCE)


@pytest.mark.parametrize(
    ("problem_type", "labels", "loss"),
    [
        ("single_label_classification", torch.tensor([3, 0]), F.cross_entropy),
        ("multi_label_classification", torch.eye(5)[[3, 0]], F.binary_cross_entropy_with_logits),
        ("regression", torch.arange(10.0).view(2, 5), F.mse_loss),
    ],
)
def test_losses(problem_type, labels, loss):
    model = make_classifier(problem_type=problem_type)
    outputs = model(**FORMS["packed"], labels=labels)
    assert_close(outputs.loss, loss(outputs.logits, labels), TOWER_TOLERANCE)
    outputs.loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_loss_comes_only_with_labels_and_its_kind_from_their_dtype():
    model = make_classifier()
    assert model(**FORMS["packed"]).loss is None
    outputs = model(**FORMS["packed"], labels=torch.tensor([3, 0]))
    assert_close(outputs.loss, F.cross_entropy(outputs.logits, torch.tensor([3, 0])), TOWER_TOLERANCE)


@torch.no_grad()
def test_outputs_that_were_asked_for_are_passed_on():
    model = make_classifier()
    model.set_attn_implementation("eager")
    outputs = model(**FORMS["packed"], output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == 4
    assert len(outputs.attentions) == 1
    as_tuple = model(**FORMS["packed"], return_dict=False)
    assert torch.equal(as_tuple[0], outputs.logits)


@torch.no_grad()
def test_a_tower_becomes_a_classifier_and_back(tmp_path):
    tower, inputs = make_model(), FORMS["packed"]
    tower.save_pretrained(tmp_path / "tower")
    model, report = TuringViTForImageClassification.from_pretrained(
        tmp_path / "tower", num_labels=5, output_loading_info=True
    )
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(model.turingvit(**inputs).pooler_output, tower(**inputs).pooler_output)
    model.save_pretrained(tmp_path / "classifier")
    again, report = TuringViTModel.from_pretrained(tmp_path / "classifier", output_loading_info=True)
    assert not report["missing_keys"]
    assert torch.equal(again(**inputs).pooler_output, tower(**inputs).pooler_output)
