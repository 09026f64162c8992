# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The masked image model: what it hides, predicts and is told, in every input form, and the tower it leaves behind."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedImageModeling

from tests.helpers import TOWER_TOLERANCE, assert_close
from tests.towers import TowerTwin, make_image, make_model, pack, pad, tiny_config
from turingvit_hf import TuringViTConfig, TuringViTForMaskedImageModeling, TuringViTModel
from turingvit_hf.modeling.modeling_masked_image import cosine_distance


TEACHER_SIZE = 7
IMAGES = [make_image(3, 5), make_image(3, 5) + 1]
FORMS = {"packed": pack(IMAGES), "batch": {"pixel_values": torch.stack(IMAGES)}, "padded": pad(IMAGES)}
SHAPES = {"packed": (30,), "batch": (2, 15), "padded": (1, 30)}


def make_mim(**changes):
    """With the RoPE augmentation off, so that training mode is as certain as evaluation."""
    config = tiny_config(teacher_hidden_size=TEACHER_SIZE, pos_embed_rescale=None, **changes)
    return make_model(TuringViTForMaskedImageModeling, config)


def make_targets(num_patches):
    """A mask of 40 % of the patches and a teacher's features of all."""
    generator = torch.Generator().manual_seed(num_patches)
    mask = torch.zeros(num_patches, dtype=torch.bool)
    mask[torch.randperm(num_patches, generator=generator)[: round(0.4 * num_patches)]] = True
    return mask, torch.randn(num_patches, TEACHER_SIZE, generator=generator)


class MaskedTwin(TowerTwin):
    """The twin of a tower in float64 NumPy, with the mask token in place of the embeddings of masked patches."""

    def __init__(self, model):
        super().__init__(model.config, model.turingvit.state_dict())
        self.token = np.asarray(model.mask_token.detach().double())
        self.mask = None

    def linear(self, name, x):
        """As in the tower, but for masked patches."""
        out = super().linear(name, x)
        if name == "patch_embed":
            # the bias is added afterwards
            out[self.mask] = self.token - self.weights["patch_embed.bias"]
        return out


def exact_predictions(model, images, masks):
    """What the model predicts of the masked patches of images of one size, in float64 NumPy."""
    twin, predictions = MaskedTwin(model), []
    weight, bias = (np.asarray(x.detach().double()) for x in (model.decoder.weight, model.decoder.bias))
    for image, mask in zip(images, masks, strict=True):
        twin.mask = np.asarray(mask)
        predictions.append(twin.frame(np.asarray(image)).hidden_states[-1][twin.mask] @ weight.T + bias)
    return np.concatenate(predictions)


@pytest.mark.parametrize("form", FORMS)
def test_predictions_and_loss_of_every_form(form):
    model = make_mim()
    mask, features = make_targets(30)
    exact = exact_predictions(model, IMAGES, mask.view(2, 15))
    outputs = model(
        **FORMS[form], bool_masked_pos=mask.view(SHAPES[form]), teacher_features=features.view(*SHAPES[form], -1)
    )
    assert outputs.predictions.shape == (12, TEACHER_SIZE)
    assert_close(outputs.predictions, exact, TOWER_TOLERANCE)
    targets = np.asarray(features[mask].double())
    cosines = (exact * targets).sum(-1) / np.linalg.norm(exact, axis=-1) / np.linalg.norm(targets, axis=-1)
    assert_close(outputs.loss, np.array((1 - cosines).mean()), TOWER_TOLERANCE)


def loss_and_gradients(model, inputs, mask, features):
    model.zero_grad()
    outputs = model(**inputs, bool_masked_pos=mask, teacher_features=features)
    outputs.loss.backward()
    return outputs, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_a_pack_is_like_its_images_one_by_one():
    model = make_mim()
    images = [make_image(3, 5), make_image(1, 1), make_image(2, 7)]
    mask, features = make_targets(30)
    mask[15] = True  # the image of one patch, wholly hidden
    packed, gradients = loss_and_gradients(model, pack(images), mask, features)
    predictions, summed, loss = [], dict.fromkeys(gradients, 0.0), 0.0
    num_masked = int(mask.sum())
    for image, own_mask, own_features in zip(
        images, mask.split([15, 1, 14]), features.split([15, 1, 14]), strict=True
    ):
        outputs, own = loss_and_gradients(model, {"pixel_values": image[None]}, own_mask[None], own_features[None])
        share = int(own_mask.sum()) / num_masked
        predictions.append(outputs.predictions)
        loss += share * outputs.loss
        summed = {name: summed[name] + share * own[name] for name in own}
    assert_close(packed.predictions, torch.cat(predictions), TOWER_TOLERANCE)
    assert_close(packed.loss, loss, TOWER_TOLERANCE)
    for name, gradient in gradients.items():
        assert_close(gradient, summed[name], 10 * TOWER_TOLERANCE)


def test_every_parameter_gets_a_gradient_and_checkpointing_changes_none():
    model = make_mim().train()
    mask, features = make_targets(30)
    _, expected = loss_and_gradients(model, FORMS["packed"], mask, features)
    assert all(gradient.abs().sum() > 0 for gradient in expected.values())
    model.activation_checkpointing_enable()
    _, actual = loss_and_gradients(model, FORMS["packed"], mask, features)
    assert all(torch.equal(actual[name], gradient) for name, gradient in expected.items())


@torch.no_grad()
def test_a_hidden_patch_is_not_seen():
    model = make_mim()
    mask, _ = make_targets(30)
    pixels = FORMS["packed"]["pixel_values"].clone()
    pixels[mask] = torch.randn(12, pixels.shape[1])
    hidden = model(**FORMS["packed"], bool_masked_pos=mask).predictions
    assert torch.equal(model(**FORMS["packed"] | {"pixel_values": pixels}, bool_masked_pos=mask).predictions, hidden)
    pixels[~mask] += 1
    assert not torch.equal(
        model(**FORMS["packed"] | {"pixel_values": pixels}, bool_masked_pos=mask).predictions, hidden
    )


@torch.no_grad()
def test_without_a_mask_every_patch_is_predicted_from_what_the_tower_sees():
    model = make_mim()
    _, features = make_targets(30)
    outputs = model(**FORMS["packed"], teacher_features=features)
    tokens = model.turingvit(**FORMS["packed"]).last_hidden_state
    assert torch.equal(outputs.predictions, model.decoder(tokens))
    assert_close(outputs.loss, cosine_distance(outputs.predictions, features).mean(), TOWER_TOLERANCE)


@torch.no_grad()
def test_features_of_all_patches_or_of_the_masked_ones_and_masks_of_numbers():
    model = make_mim()
    mask, features = make_targets(30)
    whole = model(**FORMS["packed"], bool_masked_pos=mask, teacher_features=features)
    assert torch.equal(
        model(**FORMS["packed"], bool_masked_pos=mask.long(), teacher_features=features[mask]).loss, whole.loss
    )
    assert model(**FORMS["packed"], bool_masked_pos=mask).loss is None


def test_a_batch_without_a_masked_patch_has_no_loss_and_no_gradient():
    model = make_mim()
    mask, features = torch.zeros(1, dtype=torch.bool), torch.randn(1, TEACHER_SIZE)
    outputs, gradients = loss_and_gradients(model, pack([make_image(1, 1)]), mask, features[:0])
    assert outputs.predictions.shape == (0, TEACHER_SIZE)
    assert outputs.loss == 0
    assert not any(gradient.any() for gradient in gradients.values())


@torch.no_grad()
def test_the_loss_is_computed_in_float32():
    model = make_mim()
    mask, features = make_targets(30)
    exact = model(**FORMS["packed"], bool_masked_pos=mask, teacher_features=features).loss
    loss = model.bfloat16()(**FORMS["packed"], bool_masked_pos=mask, teacher_features=features.bfloat16()).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), abs=0.05)
    assert cosine_distance(features.half(), features.half()).abs().max() < 1e-6
    assert cosine_distance(features.double(), features).dtype == torch.float64


def test_hidden_states_and_tuples():
    model = make_mim()
    mask, features = make_targets(30)
    model.set_attn_implementation("eager")
    inputs = FORMS["packed"] | {"bool_masked_pos": mask, "teacher_features": features}
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == 4
    assert torch.equal(outputs.hidden_states[0][mask], model.mask_token.expand(12, -1))
    assert len(outputs.attentions) == 1
    loss, predictions = model(**inputs, return_dict=False)
    assert torch.equal(predictions, outputs.predictions)
    assert torch.equal(loss, outputs.loss)


@pytest.mark.parametrize(
    ("mask", "features", "message"),
    [
        (torch.zeros(29).bool(), None, r"a mask of patches must be shaped like them, \(30,\), got \(29,\)"),
        (torch.zeros(2, 15).bool(), None, r"shaped like them, \(30,\), got \(2, 15\)"),
        (torch.arange(30) < 12, torch.zeros(13, 7), r"teacher_features must be \(12, 7\), .* got \(13, 7\)"),
        (torch.arange(30) < 12, torch.zeros(30, 8), r"teacher_features must be \(12, 7\), .* got \(12, 8\)"),
    ],
    ids=["short mask", "mask of a batch", "number of features", "width of features"],
)
def test_masks_and_features_that_do_not_fit(mask, features, message):
    with pytest.raises(ValueError, match=message):
        make_mim()(**FORMS["packed"], bool_masked_pos=mask, teacher_features=features)


def test_a_tower_alone_has_no_mask_token():
    tower = make_model()
    assert not any("mask" in name for name in tower.state_dict())
    with pytest.raises(ValueError, match="needs a mask_token, which TuringViTForMaskedImageModeling has"):
        tower(**FORMS["packed"], masked_patches=torch.zeros(30).bool())


def test_the_head_is_left_out_and_the_given_configuration_left_alone():
    config = tiny_config(teacher_hidden_size=TEACHER_SIZE)
    model = TuringViTForMaskedImageModeling(config)
    assert config.vision_use_head
    assert not model.config.vision_use_head
    assert model.turingvit.head is None
    assert not any(".head." in name for name in model.state_dict())
    # weights start like those of a tower
    assert 0.01 < model.mask_token.std().item() < 0.03
    assert model.decoder.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_saved_and_loaded_bit_by_bit_and_the_bare_tower_from_it(tmp_path, caplog):
    model = make_mim()
    model.save_pretrained(tmp_path)
    mask, _ = make_targets(30)
    loaded = AutoModelForMaskedImageModeling.from_pretrained(tmp_path).eval()
    assert type(loaded) is TuringViTForMaskedImageModeling
    inputs = FORMS["packed"] | {"bool_masked_pos": mask}
    assert torch.equal(loaded(**inputs).predictions, model(**inputs).predictions)

    tower = AutoModel.from_pretrained(tmp_path).eval()
    assert type(tower) is TuringViTModel
    assert tower.state_dict().keys() == model.turingvit.state_dict().keys()
    assert all(torch.equal(value, model.turingvit.state_dict()[key]) for key, value in tower.state_dict().items())
    assert tower(**FORMS["packed"]).pooler_output is None

    with caplog.at_level("WARNING"):
        with_head = AutoModel.from_pretrained(tmp_path, vision_use_head=True)
    assert with_head.head is not None
    assert "head.query" in caplog.text
    assert "MISSING" in caplog.text


def test_a_tower_with_a_head_becomes_a_masked_image_model(tmp_path):
    tower = make_model(config=tiny_config(teacher_hidden_size=TEACHER_SIZE))
    tower.save_pretrained(tmp_path)
    model = AutoModelForMaskedImageModeling.from_pretrained(tmp_path)
    for key, value in model.turingvit.state_dict().items():
        assert torch.equal(value, tower.state_dict()[key])
    assert 0 < model.mask_token.std().item() < 0.05


def test_the_default_width_is_that_of_the_report_s_teacher():
    assert TuringViTConfig().teacher_hidden_size == 1024
