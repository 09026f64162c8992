# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a family of VLMs has to say for itself before its tower can be replaced, and what most families share."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

from turingvit_hf.modeling.configuration_reduced import TuringViTReducedConfig
from turingvit_hf.modeling.modeling_reduced import TuringViTReducedModel
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


@dataclass(frozen=True)
class SwapRequest:
    """Everything an adapter may look at: the VLM as it came, and what is to be put into it. Nothing here is changed
    before `TowerAdapter.put_in`.

    Attributes:
        vlm: The VLM, with the tower that it came with.
        processor: The VLM's processor, a `ProcessorMixin` of its family's class, as it came.
        tower: The new tower: a copy of the caller's without its pooling head, in the dtype and on the device of the
            old one.
        image_processor: The tower's image processor, as it came.
        token_reduction: None, "mean_pool" or "pixel_unshuffle": two by two tokens become one before the projector.
        image_size: Side in pixels of the squares that a family of fixed squares cuts; None keeps the VLM's own where
            whole patches fit into it.
        max_image_tokens: Most tokens an image may have in a family of native resolution; None leaves it to the
            family.
    """

    vlm: PreTrainedModel
    processor: Any
    tower: TuringViTModel
    image_processor: TuringViTImageProcessor
    token_reduction: str | None = None
    image_size: int | None = None
    max_image_tokens: int | None = None

    @property
    def config(self) -> PreTrainedConfig:
        """The VLM's configuration, as it came."""
        return self.vlm.config

    @property
    def text_config(self) -> PreTrainedConfig:
        """That of its language model."""
        return self.config.get_text_config(decoder=True)

    @property
    def merge_size(self) -> int:
        """How many patches to a side become one token before the VLM sees them."""
        return 1 if self.token_reduction is None else 2

    @property
    def unit(self) -> int:
        """Side in pixels of what the VLM takes for a patch."""
        return self.tower.config.patch_size * self.merge_size

    @property
    def context_length(self) -> int | None:
        """Most tokens the language model takes, where its configuration says so."""
        return getattr(self.text_config, "max_position_embeddings", None)


class TowerAdapter:
    """How one family takes a tower. A subclass says where things are and overrides what its family does otherwise.

    The order of the calls: `check`, `config_changes`, `make_processor`, `image_tokens`, and only when all of them have
    been right, `put_in`, the one that changes the VLM.

    Attributes:
        model_types: The `model_type` of the configurations that it is for.
        tower_name: Where the tower is in the VLM, dotted.
        projector_names: Modules between the tower and the language model whose shapes follow from the configuration;
            each is built anew by its own class from the new configuration, and keeps every weight whose shape has
            stayed.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    tower_name: ClassVar[str] = "model.vision_tower"
    projector_names: ClassVar[tuple[str, ...]] = ("model.multi_modal_projector",)

    def check(self, request: SwapRequest) -> None:
        """Raises ValueError, with the reason, for what this family cannot do."""

    def make_tower(self, request: SwapRequest) -> PreTrainedModel:
        """What goes to `tower_name`, with its `config` for `vision_config`: the tower, or one with fewer tokens."""
        return request.tower if request.token_reduction is None else reduced_tower(request)

    def config_changes(self, request: SwapRequest, vision_config: PreTrainedConfig) -> dict[str, Any]:
        """The fields of the VLM's configuration that change, with their new values."""
        return {"vision_config": vision_config}

    def make_processor(self, request: SwapRequest, config: PreTrainedConfig) -> ProcessorMixin:
        """The processor for the VLM of this, new configuration; the one that came is left as it is."""
        raise NotImplementedError

    def image_tokens(self, processor: Any, config: PreTrainedConfig) -> int:
        """Most tokens that one image takes in a text."""
        raise NotImplementedError

    def put_in(self, request: SwapRequest, tower: PreTrainedModel, changes: dict[str, Any]) -> list[str]:
        """Changes the VLM: configuration, tower, projector. Returns the names of the parameters that are new."""
        for name, value in changes.items():
            setattr(request.config, name, value)
        replace_tower(request.vlm, self.tower_name, tower)
        return [
            name
            for projector in self.projector_names
            for name in rebuild_module(request.vlm, projector, lambda old: type(old)(request.config))
        ]


def bare_copy(tower: TuringViTModel, like: Any) -> TuringViTModel:
    """A copy of a tower without its pooling head, in the dtype, on the device and in the mode of the old tower."""
    head, tower.head = tower.head, None  # not copied for nothing
    try:
        bare = copy.deepcopy(tower)
    finally:
        tower.head = head
    bare.config.vision_use_head = False
    placed: Any = bare  # `to` is wrapped by transformers in a way that type checkers cannot follow
    return placed.to(dtype=like.dtype, device=like.device).train(like.training)


def reduced_tower(request: SwapRequest) -> TuringViTReducedModel:
    """The tower inside a model that merges its tokens as `token_reduction` says; without a parameter of its own."""
    config = TuringViTReducedConfig(
        tower_config=request.tower.config,
        token_reduction=str(request.token_reduction),
        merge_size=request.merge_size,
    )
    config.tower_config = request.tower.config  # the very object, so that both stay in step
    with torch.device("meta"):
        reduced = TuringViTReducedModel(config)
    reduced.turingvit = request.tower
    return reduced.train(request.tower.training)


def replace_tower(vlm: PreTrainedModel, name: str, tower: nn.Module) -> None:
    """Puts `tower` where `name` says, and renews what the VLM's models have gathered from their parts."""
    parent, _, child = name.rpartition(".")
    old = vlm.get_submodule(name)
    setattr(vlm.get_submodule(parent), child, tower)
    # innermost first, since each gathers from its children
    chain = [vlm.get_submodule(path) for path in reversed(_prefixes(parent))]
    for module in chain:
        _regather(module, old)


def rebuild_module(vlm: PreTrainedModel, name: str, build: Callable[[nn.Module], nn.Module]) -> list[str]:
    """Replaces a module by `build(module)`, a new one with the same names, and keeps each weight of the same shape.

    New weights start as the VLM's own `_init_weights` starts them, in the dtype, on the device and with the
    `requires_grad` of those that they replace.

    Returns:
        The names, from the VLM's root, of the parameters that did not keep their values.
    """
    parent, _, child = name.rpartition(".")
    old = vlm.get_submodule(name)
    with torch.device(next(old.parameters()).device):
        fresh = build(old)
    old_parameters, new_parameters = dict(old.named_parameters()), dict(fresh.named_parameters())
    if old_parameters.keys() != new_parameters.keys():
        raise ValueError(
            f"{name}: the new {type(fresh).__name__} has parameters {sorted(new_parameters)}, the old one has "
            f"{sorted(old_parameters)}"
        )
    for module in fresh.modules():
        vlm._init_weights(module)
    changed = []
    for key, parameter in new_parameters.items():
        before = old_parameters[key]
        owner, _, leaf = key.rpartition(".")
        if before.shape == parameter.shape:
            setattr(fresh.get_submodule(owner), leaf, before)
        else:
            value = parameter.detach().to(dtype=before.dtype, device=before.device)
            setattr(fresh.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=before.requires_grad))
            changed.append(f"{name}.{key}")
    setattr(vlm.get_submodule(parent), child, fresh.train(old.training))
    return changed


def _prefixes(name: str) -> list[str]:
    """ "" and each dotted beginning of a name, shortest first."""
    parts = name.split(".") if name else []
    return [".".join(parts[:length]) for length in range(len(parts) + 1)]


# What `post_init` of transformers unites over the parts of a model
_GATHERED = ("_no_split_modules", "_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")


def _regather(module: nn.Module, old: nn.Module) -> None:
    """Takes out of a model's gathered names those that came from the old tower alone, and adds those of its parts."""
    for attribute in _GATHERED:
        own = set(getattr(type(module), attribute, None) or ())
        for child in module.children():
            own |= set(getattr(child, attribute, None) or ())
        stale = set(getattr(old, attribute, None) or ()) - own
        setattr(module, attribute, (set(getattr(module, attribute, None) or ()) | own) - stale)
