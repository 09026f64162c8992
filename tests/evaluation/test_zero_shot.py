# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Zero-shot classification: prompts become classes, images find the nearest one."""

from types import SimpleNamespace

import pytest
import torch

from turingvit_hf.evaluation.zero_shot import class_embeddings, zero_shot_metrics


class Letters(torch.nn.Module):
    """An encoder of texts whose embedding counts letters."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(26))

    def get_text_features(self, input_ids):
        return SimpleNamespace(
            pooler_output=torch.nn.functional.one_hot(input_ids, 27)[..., :26].sum(1).float() @ self.weight
        )


def tokenize(texts):
    width = max(map(len, texts))
    return {"input_ids": torch.tensor([[ord(c) - 97 if c.isalpha() else 26 for c in t.ljust(width)] for t in texts])}


def test_a_class_is_the_mean_of_its_prompts():
    model = Letters()
    classes_CE = class_embeddings(model, ["cat", "dog"], ["{}", "a {}"], tokenize=tokenize)
    assert model.training
    assert classes_CE.shape == (2, 26)
    torch.testing.assert_close(classes_CE.norm(dim=-1), torch.ones(2))
    first, second = (model.get_text_features(**tokenize([text])).pooler_output[0] for text in ("cat", "a cat"))
    expected = first / first.norm() + second / second.norm()
    torch.testing.assert_close(classes_CE[0], (expected / expected.norm()).detach())


def test_images_find_their_class():
    classes_CE = torch.eye(4)
    images_NE = torch.tensor([[9.0, 1, 0, 0], [0, 2, 3, 0], [0, 0, 0, 1], [1, 2, 3, 4]])
    metrics = zero_shot_metrics(images_NE, classes_CE, [0, 1, 3, 0], ks=(1, 2, 4, 5))
    assert metrics == {"top1": 0.5, "chance1": 0.25, "top2": 0.75, "chance2": 0.5, "top4": 1.0, "chance4": 1.0}


def test_a_model_that_knows_nothing_gets_nothing():
    assert zero_shot_metrics(torch.ones(6, 3), torch.ones(4, 3), [0, 1, 2, 3, 0, 1])["top1"] == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "2 images and 0 labels"),
        ([0], "2 images and 1 labels"),
        ([0, 4], "labels from 0 to 4 do not fit 4 classes"),
    ],
)
def test_labels_must_fit(labels, message):
    with pytest.raises(ValueError, match=message):
        zero_shot_metrics(torch.ones(2, 3), torch.ones(4, 3), labels)


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [([], ["{}"], "0 classes"), (["cat"], [], "0 templates"), (["cat"], ["a cat"], "'a cat' has none")],
)
def test_classes_and_templates_are_needed(names, templates, message):
    with pytest.raises(ValueError, match=message):
        class_embeddings(Letters(), names, templates, tokenize=tokenize)
