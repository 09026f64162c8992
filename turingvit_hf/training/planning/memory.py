# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Bytes on the device of one process: what it holds of weights, optimizer, activations and losses, by formulas.

Activations are the tensors that autograd keeps for backward. With D the width, I that of the MLP, in values a patch,
where everything has one dtype:

- linear attention: two norms' inputs and outputs 4·D, Q, K, V and gate 4·D; softmax attention instead: Q, K, V 3·D,
  its output by frame and once more for the projection 3·D;
- MLP: gate, its activation, up and their product, 4·I.

Under autocast to 16 bits norms are float32 and each matrix keeps a 16-bit copy of its input of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.modeling.modeling_masked_image import TuringViTForMaskedImageModeling
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.planning.known_models import TeacherSize
from turingvit_hf.training.planning.workload import PackShape


# bytes of state a trained parameter has, by the prefix of Trainer's name of the optimizer; the longest prefix counts
OPTIMIZER_BYTES = {
    "adamw": 8,
    "adamw_bnb_8bit": 2,
    "adamw_8bit": 2,
    "lion": 4,
    "lion_8bit": 1,
    "sgd": 0,
    "adafactor": 0,
}
UNKNOWN_OPTIMIZER_BYTES = 8
FLOAT32, HALF = 4, 2


@dataclass(frozen=True)
class MemoryPlan:
    """What a process holds at the peak of a step, in bytes.

    Attributes:
        weights: float32, frozen ones included; FSDP2's parts with the layers that are gathered at a time.
        gradients: of what is trained, and DDP's buckets.
        optimizer: its state.
        averages: of the weights, where the recipe keeps some.
        copies: 16-bit copies of the weights under autocast, of frozen ones while the forward lasts.
        activations: kept for backward, or of the one layer that is recomputed beside the inputs of all.
        losses: logits in chunks, embeddings of all ranks, gradients of the heads.
        pixels: of a pack, float32, and what the teacher sees.
        teacher: its weights and what its forward holds.
        total: of these, at the time when they are most: without DDP and with one pack a process gradients come as
            activations go.
    """

    weights: int
    gradients: int
    optimizer: int
    averages: int
    copies: int
    activations: int
    losses: int
    pixels: int
    teacher: int
    total: int


@dataclass(frozen=True)
class Setting:
    """How a stage is run.

    Attributes:
        sharding: `"none"` (one process), `"ddp"` or `"fsdp2"`.
        num_gpus: processes.
        checkpointing: whether layers are computed again in backward.
        tokens_per_pack: budget of a pack.
    """

    sharding: str
    num_gpus: int
    checkpointing: bool
    tokens_per_pack: int


def plan_memory(
    recipe: StageRecipe, model: nn.Module, shape: PackShape, *, setting: Setting, teacher: TeacherSize | None = None
) -> MemoryPlan:
    """What one process holds at the peak of a step.

    Args:
        recipe: the stage's.
        model: its model, on the meta device or not.
        shape: a pack of the stage; scaled to the setting's budget.
        setting: how it is run.
        teacher: of stage `mim`.
    """
    is_half = _is_half(recipe)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    num_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    scale = setting.tokens_per_pack / shape.num_patches
    parts = 1 / setting.num_gpus if setting.sharding == "fsdp2" else 1.0
    weights = FLOAT32 * num_parameters * parts
    copies = frozen_copies = 0.0
    if setting.sharding == "fsdp2":
        weights += _gathered(model) * (HALF if is_half else FLOAT32)
    elif is_half:
        copies, frozen_copies = HALF * num_trained, HALF * (num_parameters - num_trained)
    gradients = FLOAT32 * num_trained * parts * (2 if setting.sharding == "ddp" else 1)
    optimizer = _optimizer_bytes(recipe) * num_trained * parts
    averages = FLOAT32 * num_trained * parts if recipe.optimizer.ema_decay is not None else 0
    kept, inputs, recomputed = (value * scale for value in activation_bytes(model, shape, recipe, is_half=is_half))
    losses, remaining = loss_bytes(recipe, model, shape, setting=setting)
    # with checkpointing nothing is computed again before the losses are done with all but their head and its gradient
    moments = [(inputs, losses), (recomputed, remaining)] if setting.checkpointing else [(kept, losses)]
    activations, losses = max(moments, key=sum)
    # those of what is frozen end with the forward, before there are losses
    copies += max(0.0, (inputs if setting.checkpointing else kept) + frozen_copies - activations - losses)
    # each pack's come for its turn
    pixels = setting.tokens_per_pack * _config_of(model).patch_dim * (FLOAT32 + (HALF if is_half else 0))
    teacher_bytes = 0.0
    if teacher is not None and recipe.teacher is not None:
        pixels += shape.num_images * scale * 3 * teacher.size**2 * FLOAT32
        value = FLOAT32 if recipe.teacher.dtype == "float32" else HALF
        features = setting.tokens_per_pack * recipe.objective.mask_ratio * teacher.hidden_size * FLOAT32
        teacher_bytes = value * teacher.num_parameters + features
        # runs before the student's forward, so that its activations and the student's are never there together
        activations = max(activations, shape.num_images * scale * teacher.activation_values * value)
    transient = activations + losses
    moving = transient + gradients if _keeps_gradients(recipe, setting) else max(transient, gradients)
    total = weights + copies + optimizer + averages + pixels + teacher_bytes + moving
    values = (weights, gradients, optimizer, averages, copies, activations, losses, pixels, teacher_bytes, total)
    return MemoryPlan(*(int(value) for value in values))


def activation_bytes(
    model: nn.Module, shape: PackShape, recipe: StageRecipe, *, is_half: bool
) -> tuple[float, float, float]:
    """What autograd keeps of a pack's forward; with checkpointing what it keeps then, and while a layer is recomputed.

    Layers of the tower and of the text encoder are computed again one after the other, never two at a time.
    """
    config = _config_of(model)
    layers = [_layer_bytes(config, kind, is_half=is_half) for kind in config.layer_types or ()]
    # the input of each layer is what checkpointing keeps
    boundary = config.hidden_size * (HALF if is_half else FLOAT32)
    patches = shape.num_patches
    rope = patches * config.head_dim * FLOAT32  # cosines and sines
    # the final norm, and a layer's temporaries in its backward: three gradients inside of the MLP, two around it
    around = patches * (_final_bytes(config, is_half=is_half) + _pooling_bytes(model, is_half=is_half)) + rope
    backward = patches * (3 * config.intermediate_size + 2 * config.hidden_size) * (HALF if is_half else FLOAT32)
    kept = patches * sum(layers) + around + backward
    inputs = patches * len(layers) * boundary
    # what is around the layers is gone when the last one is computed again, whose input is among what it keeps
    one_layer = patches * (max(layers) - boundary) + rope + backward
    text_kept, text_inputs, text_layer = _text_bytes(model, shape, recipe, is_half=is_half)
    decoder = 0.0
    if isinstance(model, TuringViTForMaskedImageModeling):
        masked = recipe.objective.mask_ratio * patches
        decoder = masked * (config.hidden_size + 2 * config.teacher_hidden_size) * FLOAT32
    inputs += text_inputs + decoder
    return kept + text_kept + decoder, inputs + around, inputs + max(one_layer, text_layer)


def _layer_bytes(config: Any, kind: str, *, is_half: bool) -> int:
    """What a layer keeps of one patch."""
    width, inner, is_linear = config.hidden_size, config.intermediate_size, kind == "linear_attention"
    projected = is_linear and config.tla_output_projection
    if not is_half:
        attention = 4 * width + (width if projected else 0) if is_linear else 6 * width
        return FLOAT32 * (4 * width + attention + 4 * inner)
    norms = 2 * FLOAT32 * width
    inputs = HALF * width * ((4 if is_linear else 3) + 2)
    attention = 4 * width + (width if projected else 0) if is_linear else 6 * width
    return norms + inputs + HALF * (attention + 4 * inner)


def _final_bytes(config: Any, *, is_half: bool) -> int:
    return config.hidden_size * (2 * FLOAT32 + (HALF if is_half else 0))


def _pooling_bytes(model: nn.Module, *, is_half: bool) -> int:
    """Keys, values, weighted values and the products whose sums are the scores."""
    tower: Any = model.turingvit
    if tower.head is None:
        return 0
    width = tower.config.hidden_size
    return width * (2 * HALF + 2 * HALF + FLOAT32 if is_half else 3 * FLOAT32)


def _text_bytes(
    model: nn.Module, shape: PackShape, recipe: StageRecipe, *, is_half: bool
) -> tuple[float, float, float]:
    """What a text encoder keeps: per layer 9 widths and two inner ones, as plain transformers with biases and GELU.

    Returns:
        All of it, the inputs of its layers, and one layer without its input.
    """
    text_model = getattr(model, "text_model", None)
    if text_model is None or recipe.text is None:
        return 0.0, 0.0, 0.0
    if not any(parameter.requires_grad for parameter in text_model.parameters()):
        return 0.0, 0.0, 0.0
    config = text_model.config
    tokens = shape.num_images * recipe.text.max_tokens
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", 4 * width)
    if is_half:
        layer = width * (2 * FLOAT32 + HALF * (4 + 6)) + HALF * 2 * inner
        boundary = HALF * width
    else:
        layer = FLOAT32 * (9 * width + 2 * inner)
        boundary = FLOAT32 * width
    num_layers = config.num_hidden_layers
    return tokens * layer * num_layers, tokens * boundary * num_layers, tokens * (layer - boundary)


def loss_bytes(recipe: StageRecipe, model: nn.Module, shape: PackShape, *, setting: Setting) -> tuple[float, float]:
    """Chunks of logits, embeddings of a step, and what the losses keep of gradients; and what is left when they are
    done."""
    if not isinstance(model, TuringViTDualEncoderModel):
        return 0.0, 0.0
    images = shape.num_images * setting.tokens_per_pack / shape.num_patches
    step = images * recipe.data.packs_per_step
    own = step / setting.num_gpus
    width = model.config.projection_dim
    tile = min(recipe.objective.chunk_size, int(own) or 1) * min(recipe.objective.chunk_size, int(step) or 1)
    # embeddings and their gradients; logits, their sigmoid and their gradient
    remaining = FLOAT32 * 2 * width * (own + step)
    total = remaining + FLOAT32 * 3 * tile
    if model.superclass_head is not None:
        num_classes, hidden = model.superclass_head.weight.shape
        chunk = min(recipe.objective.chunk_size, int(images) or 1) if shape.kind == "image" else 0
        # the head's copy and its gradient, which clips give it too, of zeros; logits and their gradient
        total += FLOAT32 * (2 * num_classes * hidden + 2 * chunk * num_classes)
        # the gradient may have its place among those of all parameters
        remaining += FLOAT32 * num_classes * hidden * (1 if _keeps_gradients(recipe, setting) else 2)
    return total, remaining


def _keeps_gradients(recipe: StageRecipe, setting: Setting) -> bool:
    """Whether gradients of all parameters are there during a backward pass: DDP's buckets, or earlier packs' sums."""
    return setting.sharding == "ddp" or recipe.data.packs_per_step > setting.num_gpus


def parameters_by_part(model: nn.Module) -> Mapping[str, int]:
    """The exact number of parameters of the tower's parts, of the text encoder and of each head."""
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        words = name.split(".")
        first = words[0]
        if first == "turingvit":
            first = {"layers": "tower layers", "head": "tower pooling head"}.get(words[1], "tower patches and norm")
        elif first == "text_model":
            first = "text encoder"
        elif first in ("logit_scale", "logit_bias"):
            first = "scale and bias"
        first = first.replace("_", " ")
        parts[first] = parts.get(first, 0) + parameter.numel()
    return parts


def _gathered(model: nn.Module) -> int:
    """Parameters that FSDP2 has in one piece at a time: two layers, and what is in no layer."""
    outside = sum(parameter.numel() for parameter in model.parameters())
    largest = 0
    for name, module in model.named_modules():
        if name.rpartition(".")[2].isdigit() and name.rpartition(".")[0].endswith(("layers", "layer")):
            number = sum(parameter.numel() for parameter in module.parameters())
            outside -= number
            largest = max(largest, number)
    return outside + 2 * largest


def _is_half(recipe: StageRecipe) -> bool:
    return bool(recipe.training.get("bf16") or recipe.training.get("fp16"))


def _optimizer_bytes(recipe: StageRecipe) -> int:
    name = str(recipe.training.get("optim", "adamw_torch_fused"))
    known = [prefix for prefix in OPTIMIZER_BYTES if name.startswith(prefix)]
    return OPTIMIZER_BYTES[max(known, key=len)] if known else UNKNOWN_OPTIMIZER_BYTES


def _config_of(model: nn.Module) -> Any:
    """The configuration of the model's tower."""
    tower: Any = model.turingvit
    return tower.config
