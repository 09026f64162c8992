# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Two changes to VLMs of transformers, so that one with a TuringViT in it loads with plain `from_pretrained`.

Most VLMs build whatever tower their configuration names. Some read a saved `vision_config` as their own kind without
looking at its `model_type`, and some build their own vision model without looking at its class. Both is changed for
configurations of this package and for nothing else: what a VLM does with any other configuration is what it did.
"""

from typing import Any

from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec


class OwnTowerSpec(SubConfigSpec):
    """What a VLM's configuration makes of its `vision_config`: ours where it says so, else what it always made."""

    def __init__(self, native: SubConfigSpec, own: dict[str, type[PreTrainedConfig]]):
        super().__init__(native.config_class, native.model_type, native.init_kwargs, native.optional)
        self.own = own

    def create_subconfig(self, key: str, subconfig: Any = None, **kwargs: Any) -> tuple[PreTrainedConfig, dict]:
        """The configuration, and the keyword arguments that are left."""
        config_class = self.own.get(subconfig.get("model_type", "")) if isinstance(subconfig, dict) else None
        if config_class is None:
            return super().create_subconfig(key, subconfig, **kwargs)
        return config_class(**subconfig), kwargs


def read_own_configs(vlm_config: type[PreTrainedConfig], *own: type[PreTrainedConfig]) -> None:
    """Makes a VLM's configuration class read a saved `vision_config` of these classes as what it is."""
    specs = vlm_config.sub_configs_defaults
    spec = OwnTowerSpec(specs["vision_config"], {config.model_type: config for config in own})
    # a dict of its own: another configuration class may share the old one
    vlm_config.sub_configs_defaults = {**specs, "vision_config": spec}


def build_own_models(vision_model: type[PreTrainedModel], *own: type[PreTrainedConfig]) -> None:
    """Makes `vision_model._from_config`, by which a VLM builds it, build our model for a configuration of ours."""
    native = vision_model._from_config

    def _from_config(cls: type[PreTrainedModel], config: PreTrainedConfig, **kwargs: Any) -> PreTrainedModel:
        if type(config) in own:
            return AutoModel.from_config(config, **kwargs)
        return native.__func__(cls, config, **kwargs)

    setattr(vision_model, "_from_config", classmethod(_from_config))  # noqa: B010 - a type checker sees no method in it


__all__ = ["OwnTowerSpec", "build_own_models", "read_own_configs"]
