# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A hybrid linear-attention vision tower for transformers; importing it makes the Auto classes know `turingvit`."""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoVideoProcessor,
    Idefics3Config,
    Idefics3VisionTransformer,
    InternVLConfig,
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    SmolVLMConfig,
    SmolVLMVisionTransformer,
)
from transformers.utils import is_torchvision_available

from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.configuration_qwen_vision import TuringViTQwenVisionConfig
from turingvit_hf.modeling.configuration_reduced import TuringViTReducedConfig
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.modeling.modeling_masked_image import TuringViTForMaskedImageModeling
from turingvit_hf.modeling.modeling_qwen_vision import TuringViTQwenVisionModel
from turingvit_hf.modeling.modeling_reduced import TuringViTReducedModel
from turingvit_hf.modeling.modeling_turingvit import (
    TuringViTBackbone,
    TuringViTForImageClassification,
    TuringViTModel,
)
from turingvit_hf.modeling.vlm_hooks import build_own_models, read_own_configs
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.processing.processing_llava import TuringViTLlavaProcessor
from turingvit_hf.processing.processing_turingvit import TuringViTProcessor
from turingvit_hf.processing.video_processing_turingvit import TuringViTVideoProcessor


__version__ = "0.1.0.dev0"

AutoConfig.register("turingvit", TuringViTConfig, exist_ok=True)
AutoModel.register(TuringViTConfig, TuringViTModel, exist_ok=True)
AutoModelForImageClassification.register(TuringViTConfig, TuringViTForImageClassification, exist_ok=True)
AutoModelForMaskedImageModeling.register(TuringViTConfig, TuringViTForMaskedImageModeling, exist_ok=True)
AutoBackbone.register(TuringViTConfig, TuringViTBackbone, exist_ok=True)
# One class under both names: it needs no torchvision and works the same where torchvision is installed.
AutoImageProcessor.register(
    TuringViTConfig,
    image_processor_classes={"pil": TuringViTImageProcessor, "torchvision": TuringViTImageProcessor},
    exist_ok=True,
)
# transformers has this Auto class only where torchvision is installed; ours works without, loaded by its own name.
if is_torchvision_available():
    AutoVideoProcessor.register(TuringViTConfig, TuringViTVideoProcessor, exist_ok=True)

AutoConfig.register("turingvit_dual_encoder", TuringViTDualEncoderConfig, exist_ok=True)
AutoModel.register(TuringViTDualEncoderConfig, TuringViTDualEncoderModel, exist_ok=True)
AutoModelForZeroShotImageClassification.register(TuringViTDualEncoderConfig, TuringViTDualEncoderModel, exist_ok=True)
AutoProcessor.register(TuringViTDualEncoderConfig, TuringViTProcessor, exist_ok=True)

AutoConfig.register("turingvit_reduced", TuringViTReducedConfig, exist_ok=True)
AutoModel.register(TuringViTReducedConfig, TuringViTReducedModel, exist_ok=True)
# Found by its name in a LLaVA's processor_config.json. The configuration that it is filed under is one that no
# checkpoint has at its top: under LlavaConfig it would take the place of LlavaProcessor for every LLaVA.
AutoProcessor.register(TuringViTReducedConfig, TuringViTLlavaProcessor, exist_ok=True)

AutoConfig.register("turingvit_qwen_vision", TuringViTQwenVisionConfig, exist_ok=True)
AutoModel.register(TuringViTQwenVisionConfig, TuringViTQwenVisionModel, exist_ok=True)
for _vlm_config in (Qwen2_5_VLConfig, Qwen3VLConfig, Qwen3VLMoeConfig):
    read_own_configs(_vlm_config, TuringViTQwenVisionConfig)
build_own_models(Qwen2_5_VisionTransformerPretrainedModel, TuringViTQwenVisionConfig)
for _vlm_config in (InternVLConfig, Idefics3Config, SmolVLMConfig):
    read_own_configs(_vlm_config, TuringViTConfig, TuringViTReducedConfig)
for _vision_model in (Idefics3VisionTransformer, SmolVLMVisionTransformer):
    build_own_models(_vision_model, TuringViTConfig, TuringViTReducedConfig)

__all__ = [
    "TuringViTBackbone",
    "TuringViTConfig",
    "TuringViTDualEncoderConfig",
    "TuringViTDualEncoderModel",
    "TuringViTForImageClassification",
    "TuringViTForMaskedImageModeling",
    "TuringViTImageProcessor",
    "TuringViTLlavaProcessor",
    "TuringViTModel",
    "TuringViTProcessor",
    "TuringViTQwenVisionConfig",
    "TuringViTQwenVisionModel",
    "TuringViTReducedConfig",
    "TuringViTReducedModel",
    "TuringViTVideoProcessor",
]
