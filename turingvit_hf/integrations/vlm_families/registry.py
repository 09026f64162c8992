# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Which adapter a VLM gets, by the `model_type` of its configuration; a person may add one."""

from transformers import PreTrainedConfig

from turingvit_hf.integrations.vlm_families.adapter import TowerAdapter


_ADAPTERS: dict[str, TowerAdapter] = {}


def register_adapter(adapter: TowerAdapter) -> TowerAdapter:
    """The adapter, from now on used for each of its `model_types`; a later one takes the place of an earlier one."""
    if not adapter.model_types:
        raise ValueError(f"{type(adapter).__name__} names no model_types")
    _ADAPTERS.update(dict.fromkeys(adapter.model_types, adapter))
    return adapter


def known_families() -> list[str]:
    """Every `model_type` with an adapter, sorted."""
    return sorted(_ADAPTERS)


def adapter_for(config: PreTrainedConfig) -> TowerAdapter:
    """The adapter for VLMs of this configuration.

    Raises:
        ValueError: There is none; the text names what was looked for, what there is and how to add one.
    """
    adapter = _ADAPTERS.get(config.model_type)
    if adapter is None:
        raise ValueError(
            f"no adapter for model_type {config.model_type!r} (a {type(config).__name__}); there are adapters for "
            f"{known_families()}. To add one, subclass TowerAdapter, name the tower and the projector in it, and pass "
            "an instance to register_adapter: see docs/vlm.md, 'Another family'"
        )
    return adapter
