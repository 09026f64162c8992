# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Learning rates of the parts of a model, and what holds its scale in bounds.

Trainer makes the optimizer, whichever `optim` names, with its own groups for weight decay; here its groups are split
by learning rate. So every optimizer works whose groups have a rate.
"""

import re
from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from turingvit_hf.errors import InputError
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.training.arguments import OptimizerRecipe
from turingvit_hf.training.loop.sharding import local_part, plain_name


# Trainer's own rule spares biases and norms; these too are no matrices that decay would regularize
NO_DECAY = re.compile(r"(^|\.)(logit_scale|query|mask_token)$")
FACTOR = "lr_factor"


def is_decayed(name: str) -> bool:
    """Whether weight decay applies to a parameter that Trainer's rule does not spare."""
    return not NO_DECAY.search(name)


def learning_rate_factors(model: nn.Module, recipe: OptimizerRecipe) -> dict[str, float]:
    """The factor on the learning rate of each parameter by its name.

    Tower, text encoder (`text_model`) and everything else have a factor each. In the tower it is multiplied with
    `layer_decay` to the power of the layers above: patch embedding and mask token are layer 0, layers 1 to L follow,
    final norm and pooling head are layer L + 1 and keep the tower's factor (the rule of BEiT, arXiv 2106.08254).

    Args:
        model: not wrapped yet.
        recipe: the factors.
    """
    towers = {name: module for name, module in model.named_modules() if isinstance(module, TuringViTModel)}
    factors = {}
    for full_name, _ in model.named_parameters():
        name = plain_name(full_name)
        # the mask token of a masked image model lies beside its tower
        is_mask_token = name == "mask_token"
        tower = next(
            (tower for tower in towers if not tower or is_mask_token or name.startswith(f"{plain_name(tower)}.")), None
        )
        if tower is not None:
            num_layers = towers[tower].config.num_hidden_layers
            above = num_layers + 1 - _layer_index(name.removeprefix(f"{plain_name(tower)}."), num_layers)
            factors[full_name] = recipe.tower * recipe.layer_decay**above
        else:
            factors[full_name] = recipe.text if "text_model" in name.split(".") else recipe.heads
    return factors


def _layer_index(name: str, num_layers: int) -> int:
    """The layer, 0 to `num_layers` + 1, of a tower's parameter."""
    match name.split("."):
        case ["layers", index, *_]:
            return int(index) + 1
        case ["patch_embed" | "mask_token", *_]:
            return 0
        case _:
            return num_layers + 1


def scale_learning_rates(optimizer: Optimizer, model: nn.Module, recipe: OptimizerRecipe) -> None:
    """Splits the optimizer's groups so that each parameter has its learning rate; before the first step.

    A split group keeps all its options and notes its factor under `lr_factor`. The largest factor comes first.

    Raises:
        InputError: factors differ from 1 and the optimizer has no learning rate of its own to multiply.
    """
    factors = learning_rate_factors(model, recipe)
    if all(factor == 1 for factor in factors.values()):
        return
    factor_of: dict[Tensor, float] = {parameter: factors[name] for name, parameter in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        if group["lr"] is None:
            raise InputError(
                f"{type(optimizer).__name__} chooses its learning rate itself, so the factors of {recipe} cannot be "
                "applied; leave them at 1 or choose another optim"
            )
        by_factor = defaultdict(list)
        for parameter in group["params"]:
            by_factor[factor_of.get(parameter, 1.0)].append(parameter)
        groups += [
            {**group, "params": parameters, "lr": group["lr"] * factor, FACTOR: factor}
            for factor, parameters in by_factor.items()
        ]
    optimizer.param_groups[:] = sorted(groups, key=lambda group: -group[FACTOR])


def base_learning_rate(rate: float, optimizer: Optimizer) -> float:
    """The rate before factors, from the rate of the first group."""
    factor = optimizer.param_groups[0].get(FACTOR, 1.0)
    return rate / factor if factor else rate


@torch.no_grad()
def clamp_logit_scale(model: nn.Module, largest: float) -> None:
    """Brings every `logit_scale` back into [0, largest], in place; open_clip does so with ln 100."""
    for name, parameter in model.named_parameters():
        if name.rsplit(".", 1)[-1] == "logit_scale" and parameter.requires_grad:
            local_part(parameter).clamp_(0, largest)
