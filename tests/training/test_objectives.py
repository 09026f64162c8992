# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Objectives: packs of a step count as one batch, in losses and in every gradient."""

import copy
import io
from contextlib import contextmanager, nullcontext

import pytest
import torch

from tests.training.objective_cases import (
    MAKE_PACK,
    NUM_CLASSES,
    TEACHER_SIZE,
    assert_same_step,
    concatenate,
    image_pack,
    make_dual_encoder,
    make_masked_model,
    masked_pack,
    run_step,
    video_pack,
)
from turingvit_hf.training.arguments import ObjectiveRecipe
from turingvit_hf.training.losses import naive_superclass_loss, siglip_loss
from turingvit_hf.training.objectives import ContrastiveObjective, MaskedDistillationObjective, Objective
from turingvit_hf.training.superclass import unique_classes


RECIPE = ObjectiveRecipe(siglip=0.7, superclass=0.3, video_siglip=1.3, chunk_size=4)


def setting(kind):
    """A model and what makes an objective for it."""
    if kind == "mim":
        return make_masked_model(), MaskedDistillationObjective
    return make_dual_encoder(), lambda: ContrastiveObjective(RECIPE)


@pytest.mark.parametrize("sizes", [(3, 2), (1, 6), (4, 1, 5)], ids=str)
@pytest.mark.parametrize("kind", MAKE_PACK)
def test_packs_of_a_step_are_one_batch(kind, sizes):
    model, make_objective = setting(kind)
    split, whole = make_objective(), make_objective()
    for step in range(2):  # the second one finds an IDF from the first
        packs = [MAKE_PACK[kind](size, seed=10 * step + number) for number, size in enumerate(sizes)]
        exact = run_step(whole, model, [concatenate(packs)])
        state = torch.get_rng_state()
        actual = run_step(split, model, packs)
        assert torch.equal(torch.get_rng_state(), state)
        assert_same_step(actual, exact)
        assert all(gradient is not None for gradient in actual["gradients"].values())
    torch.testing.assert_close(split.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_step_of_one_pack_is_the_weighted_naive_loss():
    model, pack = make_dual_encoder(pos_embed_rescale=None), image_pack(7, seed=0)
    objective = ContrastiveObjective(RECIPE)
    actual = run_step(objective, model, [pack])
    outputs = model(**{name: pack[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")})
    ids = unique_classes(pack["superclass_ids"])
    losses = {
        "siglip": siglip_loss(outputs.image_embeds, outputs.text_embeds, outputs.logit_scale, outputs.logit_bias),
        "superclass": naive_superclass_loss(
            outputs.pooled_image_features,
            model.superclass_head.weight,
            model.superclass_head.bias,
            class_ids=ids,
            class_weights=objective.idf.targets(ids),
        ),
    }
    model.zero_grad()
    (0.7 * losses["siglip"] + 0.3 * losses["superclass"]).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert_same_step(
        actual, {"losses": {name: loss.detach() for name, loss in losses.items()}, "gradients": gradients}
    )
    alone = objective(model, pack)  # the IDF does not move in evaluation
    torch.testing.assert_close({name: loss.detach() for name, loss in alone.items()}, actual["losses"])
    assert float(objective.total(actual["losses"])) == pytest.approx(
        0.7 * float(actual["losses"]["siglip"]) + 0.3 * float(actual["losses"]["superclass"])
    )


def test_evaluation_leaves_the_idf_alone():
    model, objective = make_dual_encoder().eval(), ContrastiveObjective()
    with torch.no_grad():
        first = objective(model, image_pack(5, seed=0))
        assert objective.state_dict() == {}
        assert first.keys() == {"siglip", "superclass"}
        run = objective(model, video_pack(2, seed=1))
    assert run.keys() == {"video_siglip"}


def test_all_packs_but_the_last_are_not_synchronized():
    log = []

    @contextmanager
    def no_sync():
        log.append("enter")
        yield
        log.append("leave")

    for kind in MAKE_PACK:
        log.clear()
        model, make_objective = setting(kind)
        packs = [MAKE_PACK[kind](2, seed=seed) for seed in range(3)]
        make_objective().step(model, packs, backward=lambda loss: (loss.backward(), log.append("b")), no_sync=no_sync)
        assert log == ["enter", "b", "leave", "enter", "b", "leave", "b"]


def test_a_callers_autocast_does_not_lose_gradients():
    """Weights cast in a pass without a graph must not serve the pass with one."""
    model = make_dual_encoder(pos_embed_rescale=None).float()
    packs = [image_pack(2, seed=seed) for seed in range(2)]
    packs = [pack | {"pixel_values": pack["pixel_values"].float()} for pack in packs]
    with torch.autocast("cpu", torch.bfloat16):
        gradients = run_step(ContrastiveObjective(), model, packs)["gradients"]
    assert all(gradient is not None for gradient in gradients.values())


def test_losses_that_a_step_does_not_have_still_reach_the_superclass_head():
    """DDP without a search for unused parameters wants each of them in every step."""
    for packs in ([video_pack(3, seed=0)], [video_pack(3, seed=0), video_pack(2, seed=1)]):
        model = make_dual_encoder()
        gradients = run_step(ContrastiveObjective(), model, packs)["gradients"]
        assert not gradients["superclass_head.weight"].any()
        assert not gradients["superclass_head.bias"].any()


def test_superclass_needs_head_and_ids():
    pack = image_pack(2, seed=0)
    plain = {name: value for name, value in pack.items() if name not in ("superclass_ids", "kind", "reader_state")}
    bare = make_dual_encoder(num_superclasses=0)
    assert ContrastiveObjective()(bare, plain).keys() == {"siglip"}
    assert run_step(ContrastiveObjective(), bare, [plain])["losses"].keys() == {"siglip"}
    with pytest.raises(ValueError, match="the model has no head"):
        ContrastiveObjective()(bare, pack)
    with pytest.raises(ValueError, match="the pack has no superclass_ids"):
        run_step(ContrastiveObjective(), make_dual_encoder(), [pack, plain])
    without = ContrastiveObjective(ObjectiveRecipe(superclass=0))
    assert run_step(without, make_dual_encoder(), [pack])["losses"].keys() == {"siglip"}
    with pytest.raises(ValueError, match="must be of one kind"):
        run_step(ContrastiveObjective(), make_dual_encoder(), [pack, video_pack(2, seed=1)])


@pytest.mark.parametrize("kind", MAKE_PACK)
def test_a_step_needs_a_pack(kind):
    model, make_objective = setting(kind)
    with pytest.raises(ValueError, match="at least one pack"):
        run_step(make_objective(), model, [])


def test_state_goes_through_a_file():
    model, objective = make_dual_encoder(), ContrastiveObjective()
    for seed in range(3):
        run_step(objective, model, [image_pack(4, seed=seed)])
    file = io.BytesIO()
    torch.save(objective.state_dict(), file)
    file.seek(0)
    resumed = ContrastiveObjective()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    packs = [image_pack(3, seed=8), image_pack(2, seed=9)]
    assert_same_step(run_step(resumed, model, packs), run_step(objective, model, packs), rtol=0)
    torch.testing.assert_close(resumed.state_dict(), objective.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="unknown entries"):
        resumed.load_state_dict({"ema": 1})
    with pytest.raises(ValueError, match="has no state"):
        MaskedDistillationObjective().load_state_dict({"idf": {}})


class Teacher:
    """Gives each patch what the pack holds for it."""

    hidden_size = TEACHER_SIZE

    def features(self, pack, device):
        assert not torch.is_grad_enabled()
        return pack["kept"].to(device)


def test_features_come_from_the_pack_or_the_teacher():
    model, pack = make_masked_model(pos_embed_rescale=None), masked_pack(4, seed=1)
    whole = MaskedDistillationObjective()(model, pack)["cosine"]
    masked = pack | {"teacher_features": pack["teacher_features"][pack["bool_masked_pos"]]}
    assert torch.equal(MaskedDistillationObjective()(model, masked)["cosine"], whole)
    live = {name: value for name, value in pack.items() if name != "teacher_features"}
    with pytest.raises(ValueError, match="no teacher_features and there is no teacher"):
        MaskedDistillationObjective()(model, live)
    outputs = model(**{name: pack[name] for name in ("pixel_values", "image_grid_thw", "bool_masked_pos")})
    cosines = torch.cosine_similarity(outputs.predictions, masked["teacher_features"], dim=-1)
    torch.testing.assert_close(whole, 1 - cosines.mean())


class LiveTeacher:
    """Features of the pixels of the pack, as a network would give them."""

    hidden_size = TEACHER_SIZE

    def features(self, pack, device):
        return pack["pixel_values"][:, :TEACHER_SIZE].to(device)


def test_a_teacher_is_asked_where_the_pack_brings_nothing():
    model, pack = make_masked_model(), masked_pack(4, seed=1)
    expected = pack | {"teacher_features": pack["pixel_values"][:, :TEACHER_SIZE]}
    exact = run_step(MaskedDistillationObjective(), model, [expected])
    del pack["teacher_features"]
    assert_same_step(run_step(MaskedDistillationObjective(LiveTeacher()), model, [pack]), exact, rtol=0)


def test_masked_packs_are_checked():
    model, pack = make_masked_model(), masked_pack(4, seed=1)
    without = {name: value for name, value in pack.items() if name != "bool_masked_pos"}
    with pytest.raises(ValueError, match="needs bool_masked_pos"):
        MaskedDistillationObjective()(model, without)
    with pytest.raises(ValueError, match="needs bool_masked_pos"):
        run_step(MaskedDistillationObjective(), model, [without])
    with pytest.raises(ValueError, match="1 teacher features for"):
        MaskedDistillationObjective()(model, pack | {"teacher_features": pack["teacher_features"][:1]})


def test_a_pack_without_a_masked_patch_adds_nothing():
    model, pack, empty = make_masked_model(), masked_pack(4, seed=1), masked_pack(1, seed=2)
    empty["bool_masked_pos"] = torch.zeros_like(empty["bool_masked_pos"])
    exact = run_step(MaskedDistillationObjective(), model, [pack])
    assert_same_step(run_step(MaskedDistillationObjective(), model, [pack, empty]), exact)
    nothing = run_step(MaskedDistillationObjective(), model, [empty])
    assert nothing["losses"]["cosine"] == 0
    assert not any(gradient.any() for gradient in nothing["gradients"].values())


class Parts(Objective):
    """Two losses of a linear model, with a weight for one of them."""

    weights = {"square": 0.5}

    def __call__(self, model, pack):
        y = model(pack["x"])
        return {"square": (y**2).mean(), "line": y.mean()}


def test_an_objective_of_ones_own_averages_over_packs():
    model = torch.nn.Linear(3, 2).double()
    packs = [{"x": torch.randn(4, 3, dtype=torch.float64)} for _ in range(3)]
    losses = run_step(Parts(), model, packs, no_sync=nullcontext)["losses"]
    gradients = copy.deepcopy({name: parameter.grad for name, parameter in model.named_parameters()})
    exact = run_step(Parts(), model, [{"x": torch.cat([pack["x"] for pack in packs])}])
    assert_same_step({"losses": losses, "gradients": gradients}, exact)
    assert Parts().state_dict() == {}


def test_number_of_classes_may_not_change():
    objective = ContrastiveObjective()
    run_step(objective, make_dual_encoder(), [image_pack(4, seed=0)])
    with pytest.raises(ValueError, match=f"counts of 25 classes for frequencies of {NUM_CLASSES}"):
        run_step(objective, make_dual_encoder(num_superclasses=25), [image_pack(4, seed=0)])
