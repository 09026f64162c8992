# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Where tower, projector and language model are in a VLM, by the names of its modules."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from turingvit_hf.errors import InputError
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel


@dataclass(frozen=True)
class VlmParts:
    """Names from the root of the VLM.

    Attributes:
        tower: the TuringViT.
        language_model: what reads the embeddings, without its head.
        projector: the modules that are in neither, nor embed or predict words: what maps features to embeddings.
        loose: parameters of that kind that are in no module of their own, such as LLaVA-NeXT's `image_newline`.
    """

    tower: str
    language_model: str
    projector: tuple[str, ...]
    loose: tuple[str, ...] = ()


def find_parts(vlm: PreTrainedModel) -> VlmParts:
    """Return where the parts of a VLM are.

    Raises:
        InputError: it has not one TuringViT, or no language model of its own.
    """
    names = {module: name for name, module in vlm.named_modules()}
    towers = [name for module, name in names.items() if isinstance(module, TuringViTModel)]
    if len(towers) != 1:
        raise InputError(f"{type(vlm).__name__} has {len(towers)} TuringViT towers; put one in with swap_vision_tower")
    language_model = vlm.get_decoder()
    if not names.get(language_model):
        raise InputError(f"{type(vlm).__name__} has no language model of its own")
    words = [module for module in (vlm.get_input_embeddings(), vlm.get_output_embeddings()) if module is not None]
    taken = [vlm.get_submodule(towers[0]), language_model, *words]
    known = {id(parameter) for module in taken for parameter in module.parameters()}
    projector: list[str] = []
    loose: list[str] = []
    _find_rest(vlm, "", known, projector, loose)
    return VlmParts(towers[0], names[language_model], tuple(projector), tuple(loose))


def _find_rest(module: nn.Module, name: str, known: set[int], whole: list[str], loose: list[str]) -> None:
    """Collects the largest modules that hold no known parameter, and the parameters beside known ones."""
    unknown = [id(parameter) not in known for parameter in module.parameters()]
    if not any(unknown):
        return
    # PEFT saves modules, and a list of them is none to it
    if all(unknown) and name and not isinstance(module, nn.ModuleList | nn.ModuleDict):
        whole.append(name)
        return
    prefix = f"{name}." if name else ""
    loose.extend(
        prefix + key for key, parameter in module.named_parameters(recurse=False) if id(parameter) not in known
    )
    for key, child in module.named_children():
        _find_rest(child, prefix + key, known, whole, loose)
