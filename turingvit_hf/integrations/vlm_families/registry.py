# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Which adapter a VLM gets, by the `model_type` of its configuration; a person may add one."""

from transformers import PreTrainedConfig

from turingvit_hf.integrations.vlm_families.adapter import TowerAdapter


_ADAPTERS: dict[str, TowerAdapter] = {}
# relatives of families that have an adapter, and why it is not for them
_REASONS = {
    "gemma3n": "its tower is a convolutional network of timm, whose maps of features its code reads by their channels",
    "llava_next_video": "nobody has written or tried one for how it pools the frames of a video",
    "qwen2_vl": "its merger normalizes and names its weights otherwise than that of Qwen2.5-VL",
    "vipllava": "its code drops the first token of an image for a class token, and a TuringViT has none to lose",
}


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
        ValueError: There is none; the text names what was looked for, for relatives of known families why it is not
            there, what there is and how to add one.
    """
    adapter = _ADAPTERS.get(config.model_type)
    if adapter is None:
        reason = _REASONS.get(config.model_type)
        raise ValueError(
            f"no adapter for model_type {config.model_type!r} (a {type(config).__name__})"
            f"{f': {reason}' if reason else ''}; there are adapters for "
            f"{known_families()}. To add one, subclass TowerAdapter, name the tower and the projector in it, and pass "
            "an instance to register_adapter: see docs/vlm.md, 'Another family'"
        )
    return adapter
