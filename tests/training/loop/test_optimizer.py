# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Learning rates of the parts of a model, averages of weights, and counts of operations."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.optimization import Adafactor

from tests.training.tiny_run import history, make_model, make_pack, make_trainer
from turingvit_hf.errors import InputError
from turingvit_hf.kernels.linear_attention import use_linear_attention_backend
from turingvit_hf.training.arguments import OptimizerRecipe
from turingvit_hf.training.loop.ema import WeightAverage
from turingvit_hf.training.loop.flops import PEAK_BFLOAT16, TrainingFlops, peak_flops
from turingvit_hf.training.loop.optimizer import learning_rate_factors, scale_learning_rates


RECIPE = OptimizerRecipe(tower=0.5, text=0.1, heads=2.0, layer_decay=0.5)


def rates(trainer) -> dict[str, float]:
    """The learning rate of each parameter by name."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}


def test_layers_and_parts_have_their_factors():
    factors = learning_rate_factors(make_model(), RECIPE)
    assert factors["turingvit.patch_embed.weight"] == 0.5 * 0.5**3
    assert factors["turingvit.layers.0.mlp.up_proj.weight"] == 0.5 * 0.5**2
    assert factors["turingvit.layers.1.mlp_norm.weight"] == 0.5 * 0.5
    assert factors["turingvit.final_norm.weight"] == factors["turingvit.head.query"] == 0.5
    assert factors["visual_projection.weight"] == factors["logit_scale"] == 2.0
    assert {factor for name, factor in factors.items() if name.startswith("text_model.")} == {0.1}


def test_a_tower_by_itself_has_layers_too():
    tower = make_model().turingvit
    assert learning_rate_factors(tower, RECIPE)["layers.0.mlp.up_proj.weight"] == 0.5 * 0.5**2


OPTIMIZERS = [
    "adamw_torch",
    "adamw_torch_fused",
    "sgd",
    "adafactor",
    "rmsprop",
    "lion_8bit",
    "adamw_bnb_8bit",
    "adagrad",
]


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_every_optimizer_has_the_rates(tmp_path, optim):
    trainer = make_trainer(tmp_path, recipe=RECIPE, optim=optim, learning_rate=1e-2, weight_decay=0.1)
    trainer.create_optimizer()
    factors = learning_rate_factors(trainer.model, RECIPE)
    assert rates(trainer) == pytest.approx({name: 1e-2 * factor for name, factor in factors.items()})
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (names[id(parameter)] in decayed)


def test_an_optimizer_without_a_rate_is_refused():
    model = make_model()
    optimizer = Adafactor(model.parameters(), lr=None, relative_step=True)
    with pytest.raises(InputError, match="chooses its learning rate itself"):
        scale_learning_rates(optimizer, model, RECIPE)


def test_the_logged_rate_is_the_one_before_factors(tmp_path):
    plain, scaled = make_trainer(tmp_path / "plain"), make_trainer(tmp_path / "scaled", recipe=RECIPE)
    plain.train()
    scaled.train()
    assert history(scaled, "learning_rate") == pytest.approx(history(plain, "learning_rate"), rel=1e-6)


def test_a_frozen_part_stays_as_it_is(tmp_path):
    model = make_model()
    model.text_model.requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = make_trainer(tmp_path, model=model, recipe=OptimizerRecipe(ema_decay=0.9, layer_decay=0.5))
    trainer.train()
    assert not {name for name in rates(trainer) if name.startswith("text_model.")}
    assert not {name for name in trainer.average.complete() if name.startswith("text_model.")}
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) == name.startswith("text_model."), name


def test_the_average_follows_its_definition(tmp_path):
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, 0.9)
    expected = model.weight.detach().double()
    for number in range(1, 200):
        with torch.no_grad():
            model.weight.add_(0.1)
        average.update()
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
    torch.testing.assert_close(average.complete()["weight"].double(), expected, rtol=1e-5, atol=1e-5)
    average.save(tmp_path / "ema.safetensors", is_writer=True)
    other = WeightAverage(torch.nn.Linear(3, 2), 0.9)
    other.load(tmp_path / "ema.safetensors")
    assert torch.equal(other.complete()["weight"], average.complete()["weight"])
    assert other.num_updates == 199
    own = model.weight.detach().clone()
    with average.swapped_in():
        assert torch.equal(model.weight, average.complete()["weight"])
    assert torch.equal(model.weight, own)


def test_averages_of_another_model_are_refused(tmp_path):
    WeightAverage(torch.nn.Linear(3, 2), 0.9).save(tmp_path / "ema.safetensors", is_writer=True)
    with pytest.raises(InputError, match="differ in the parameters bias"):
        WeightAverage(torch.nn.Linear(3, 2, bias=False), 0.9).load(tmp_path / "ema.safetensors")


def test_operations_are_those_that_torch_counts():
    """Of the tower's forward; torch leaves out products that are written as a sum, those of the pooling head."""
    tower = make_model().turingvit.eval()
    tower.set_attn_implementation("eager")
    pack = {**make_pack(0), "image_grid_thw": torch.tensor([[1, 20, 17], [2, 9, 13], [1, 1, 1]])}
    pack["pixel_values"] = torch.randn(int(pack["image_grid_thw"].prod(-1).sum()), 768)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, use_linear_attention_backend("reference"):
        tower(pack["pixel_values"], image_grid_thw=pack["image_grid_thw"])
    del pack["input_ids"]
    pooling = 4 * len(pack["pixel_values"]) * 32
    forward = sum(part.forward for part in TrainingFlops(tower).by_part(pack).values())
    assert forward == pytest.approx(counter.get_total_flops() + pooling, rel=1e-3)


def test_operations_of_frozen_parts_are_those_of_a_forward():
    model = make_model()
    forward = sum(part.forward for part in TrainingFlops(model).by_part(make_pack(0)).values())
    assert TrainingFlops(model.requires_grad_(False))(make_pack(0)) == pytest.approx(forward)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100"),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100"),
        ("NVIDIA L40S", "NVIDIA L40S"),
        ("NVIDIA L40", None),
    ],
)
def test_peaks_of_devices(monkeypatch, name, known):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == PEAK_BFLOAT16.get(known)
    assert peak_flops(torch.device("cpu")) is None
