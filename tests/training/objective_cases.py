# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Tiny models in float64 and packs for the tests of objectives, the same in every process that asks for them."""

from contextlib import nullcontext

import torch
from transformers import BertConfig

from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.modeling.modeling_masked_image import TuringViTForMaskedImageModeling


NUM_CLASSES, TEACHER_SIZE, PATCH_DIM, NUM_TOKENS, VOCABULARY = 19, 6, 48, 5, 30


def tower_config(**changes) -> TuringViTConfig:
    """A tower of one layer of each kind with patches of 4 x 4 pixels."""
    fields = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 4,
        "layer_types": ["linear_attention", "full_attention"],
        "teacher_hidden_size": TEACHER_SIZE,
    }
    return TuringViTConfig(**fields | changes)


def make_dual_encoder(*, num_superclasses: int = NUM_CLASSES, pos_embed_rescale: float | None = 2.0):
    """A dual encoder in training mode whose every parameter takes part in its outputs."""
    torch.manual_seed(0)
    text_config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=NUM_TOKENS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.3,
    )
    config = TuringViTDualEncoderConfig(
        vision_config=tower_config(pos_embed_rescale=pos_embed_rescale, initializer_range=0.2),
        text_config=text_config,
        projection_dim=8,
        text_pooling="pooler",
        num_superclasses=num_superclasses,
        logit_bias_init_value=-1.0,
    )
    return TuringViTDualEncoderModel(config).double().train()


def make_masked_model(*, pos_embed_rescale: float | None = 2.0):
    """A masked image model in training mode."""
    torch.manual_seed(0)
    config = tower_config(pos_embed_rescale=pos_embed_rescale, initializer_range=0.2)
    return TuringViTForMaskedImageModeling(config).double().train()


def _pixels(grid: list[tuple[int, int, int]], generator: torch.Generator) -> dict[str, torch.Tensor]:
    num_patches = sum(frames * rows * columns for frames, rows, columns in grid)
    pixels = torch.randn(num_patches, PATCH_DIM, generator=generator, dtype=torch.float64)
    return {"image_grid_thw": torch.tensor(grid), "pixel_values": pixels}


def _grid(num_images: int, generator: torch.Generator, frames: int = 1) -> list[tuple[int, int, int]]:
    sides = torch.randint(1, 4, (num_images, 2), generator=generator).tolist()
    return [(frames, rows, columns) for rows, columns in sides]


def image_pack(num_images: int, seed: int) -> dict:
    """Images, captions and their classes; some captions have repeated classes, every third has none at all."""
    generator = torch.Generator().manual_seed(seed)
    pack = _pixels(_grid(num_images, generator), generator)
    pack["input_ids"] = torch.randint(VOCABULARY, (num_images, NUM_TOKENS), generator=generator)
    pack["attention_mask"] = torch.ones_like(pack["input_ids"])
    ids = torch.randint(NUM_CLASSES, (num_images, 4 + seed % 3), generator=generator)
    ids[::2, 2:] = -100
    ids[2::3] = -100
    pack["superclass_ids"] = ids
    return pack | {"kind": "image", "reader_state": (seed, {})}


def video_pack(num_clips: int, seed: int) -> dict:
    """Clips of two frames and captions."""
    pack = image_pack(num_clips, seed)
    generator = torch.Generator().manual_seed(seed)
    del pack["superclass_ids"]
    return pack | _pixels(_grid(num_clips, generator, frames=2), generator) | {"kind": "video"}


def masked_pack(num_images: int, seed: int) -> dict:
    """Images, a mask that is another share of each, and the teacher's features."""
    generator = torch.Generator().manual_seed(seed)
    pack = _pixels(_grid(num_images, generator), generator)
    num_patches = len(pack["pixel_values"])
    pack["bool_masked_pos"] = torch.rand(num_patches, generator=generator) < 0.2 + 0.2 * (seed % 3)
    pack["teacher_features"] = torch.randn(num_patches, TEACHER_SIZE, generator=generator, dtype=torch.float64)
    return pack | {"kind": "image"}


MAKE_PACK = {"image": image_pack, "video": video_pack, "mim": masked_pack}


def concatenate(packs: list[dict]) -> dict:
    """The pack that holds all of them."""
    whole = {}
    for name, value in packs[0].items():
        if not isinstance(value, torch.Tensor):
            whole[name] = value
            continue
        parts = [pack[name] for pack in packs]
        if name == "superclass_ids":
            width = max(part.shape[1] for part in parts)
            parts = [torch.nn.functional.pad(part, (0, width - part.shape[1]), value=-100) for part in parts]
        whole[name] = torch.cat(parts)
    return whole


def run_step(objective, model, packs: list[dict], *, no_sync=nullcontext, seed: int = 7) -> dict:
    """One step from a fixed seed: the losses, and the gradient of every parameter (None without)."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    losses = objective.step(model, packs, backward=lambda loss: loss.backward(), no_sync=no_sync)
    names = [(name.removeprefix("module."), parameter) for name, parameter in model.named_parameters()]
    return {"losses": losses, "gradients": {name: parameter.grad for name, parameter in names}}


def assert_same_step(actual: dict, exact: dict, rtol: float = 1e-9) -> None:
    """Fail unless losses and all gradients agree; a gradient may be off by rounding of the largest of its tensor.

    The gradient of a key's bias is zero but for rounding: 1e-14 is that of numbers near 1.
    """
    torch.testing.assert_close(actual["losses"], exact["losses"], rtol=rtol, atol=0)
    assert actual["gradients"].keys() == exact["gradients"].keys()
    for name, gradient in exact["gradients"].items():
        floor = rtol * float(gradient.abs().max()) + 1e-14
        torch.testing.assert_close(
            actual["gradients"][name], gradient, rtol=rtol, atol=floor, msg=lambda text, name=name: f"{name}: {text}"
        )
