# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Models of transformers as curation loads them: frozen, and with an error of one line where one is not there."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from turingvit_hf.errors import InputError


def load(auto_class: Any, model: str, revision: str | None, **options: Any) -> Any:
    """Return what `auto_class.from_pretrained` makes of a hub id or folder.

    Raises:
        InputError: there is no such model, or it is none of that class.
    """
    try:
        return auto_class.from_pretrained(model, revision=revision, **options)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{auto_class.__name__} cannot load {model!r}: {error}") from error


def move(inputs: Mapping[str, Any], network: nn.Module) -> dict[str, Any]:
    """Return a processor's tensors on the device of a network, those of floats in its dtype."""
    parameter = next(network.parameters())
    return {
        name: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def pick_device(device: str | None) -> str:
    """Return the device by its name, or that of an accelerator where there is one, else `"cpu"`."""
    if device is not None:
        return device
    accelerator = torch.accelerator.current_accelerator()
    return "cpu" if accelerator is None else accelerator.type
