# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What is exported: a model's forward with named tensors in and out, and an example of its inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.modeling.modeling_turingvit import TuringViTForImageClassification, TuringViTModel


OUTPUTS = ("last_hidden_state", "pooler_output")
# the example is what a graph is traced with; sizes of 0 and 1 would be taken for constants
EXAMPLE_BATCH, EXAMPLE_GRID = 2, (3, 4)


@dataclass(frozen=True)
class Graph:
    """One graph of an export.

    Attributes:
        name: of its file, without ending.
        module: takes the inputs by position and returns the outputs as a tuple, float32.
        inputs: an example, by name.
        outputs: their names.
        dynamic_shapes: of each input, as `torch.export` takes them.
        patch_size: side of a patch; 0 for a graph of texts.
    """

    name: str
    module: nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    dynamic_shapes: tuple[dict[int, Any], ...]
    patch_size: int = 0

    @property
    def is_packed(self) -> bool:
        """Whether images come packed, with their grid."""
        return "image_grid_thw" in self.inputs


class ImageGraph(nn.Module):
    """`pixel_values` (B, C, H, W), or packed (T, C·p·p) with `image_grid_thw` (N, 3), to the outputs named.

    Args:
        model: a tower, a classifier or a dual encoder, in evaluation mode.
        outputs: `last_hidden_state` and `pooler_output` of a tower, `logits` of a classifier, `image_embeds` of a dual
            encoder, of length 1.
    """

    def __init__(self, model: nn.Module, outputs: Sequence[str]):
        super().__init__()
        self.model = model
        self.outputs = tuple(outputs)
        self.train(False)

    def forward(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor | None = None):
        """The outputs, float32 whatever the dtype of the weights."""
        if isinstance(self.model, TuringViTDualEncoderModel):
            embedded = self.model.get_image_features(pixel_values, image_grid_thw=image_grid_thw).pooler_output
            return (F.normalize(embedded.float(), dim=-1),)
        found = self.model(pixel_values, image_grid_thw=image_grid_thw)
        return tuple(getattr(found, name).float() for name in self.outputs)


class TextGraph(nn.Module):
    """`input_ids` and `attention_mask` (M, L) to `text_embeds` (M, E) of length 1."""

    def __init__(self, model: TuringViTDualEncoderModel):
        super().__init__()
        self.model = model
        self.train(False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor):
        """The embeddings, float32."""
        embedded = self.model.get_text_features(input_ids, attention_mask=attention_mask).pooler_output
        return (F.normalize(embedded.float(), dim=-1),)


def graphs_of(model: nn.Module, *, forms: Sequence[str], outputs: Sequence[str] | None = None) -> list[Graph]:
    """Return the graphs of a model: one a form of images, and one of texts for a dual encoder.

    Args:
        model: a tower, a classifier or a dual encoder.
        forms: `"dense"` (a batch of images of one size) or `"packed"` (patches with their grid), or both.
        outputs: of a tower; None takes all that it has.

    Raises:
        ValueError: there is no such form or output, or the model is none of the three.
    """
    unknown = [form for form in forms if form not in ("dense", "packed")]
    if unknown or not forms:
        raise ValueError(f"forms={list(forms)}: allowed are 'dense' and 'packed'")
    tower, names = _tower_and_outputs(model, outputs)
    is_dual = isinstance(model, TuringViTDualEncoderModel)
    stem = "vision_model" if is_dual else "model"
    graphs = [
        _dense(model, tower, names, stem) if form == "dense" else _packed(model, tower, names, f"{stem}_packed")
        for form in dict.fromkeys(forms)
    ]
    return [*graphs, _text(model)] if isinstance(model, TuringViTDualEncoderModel) else graphs


def _tower_and_outputs(model: nn.Module, outputs: Sequence[str] | None) -> tuple[TuringViTModel, tuple[str, ...]]:
    if isinstance(model, TuringViTModel):
        known = OUTPUTS if model.head is not None else OUTPUTS[:1]
        names = tuple(outputs) if outputs is not None else known
        wrong = [name for name in names if name not in known]
        if wrong or not names:
            raise ValueError(f"outputs={list(names)}: this tower has {', '.join(known)}")
        return model, names
    if isinstance(model, TuringViTForImageClassification | TuringViTDualEncoderModel):
        names = ("logits",) if isinstance(model, TuringViTForImageClassification) else ("image_embeds",)
        if outputs is not None and tuple(outputs) != names:
            raise ValueError(f"outputs={list(outputs)}: a {type(model).__name__} has {names[0]}")
        return model.turingvit, names
    raise ValueError(
        f"cannot export a {type(model).__name__}: expected a TuringViTModel, a TuringViTForImageClassification or a "
        "TuringViTDualEncoderModel"
    )


def _dense(model: nn.Module, tower: TuringViTModel, outputs: tuple[str, ...], name: str) -> Graph:
    patch, channels = tower.config.patch_size, tower.config.num_channels
    rows, columns = EXAMPLE_GRID
    shapes = {0: Dim("batch"), 2: patch * Dim("rows"), 3: patch * Dim("columns")}
    example = torch.zeros(EXAMPLE_BATCH, channels, patch * rows, patch * columns)
    return Graph(name, ImageGraph(model, outputs), {"pixel_values": example}, outputs, (shapes,), patch)


def _packed(model: nn.Module, tower: TuringViTModel, outputs: tuple[str, ...], name: str) -> Graph:
    rows, columns = EXAMPLE_GRID
    grid = torch.tensor([[1, rows, columns], [2, 2, columns]])
    example = {"pixel_values": torch.zeros(int(grid.prod(-1).sum()), tower.config.patch_dim), "image_grid_thw": grid}
    shapes = ({0: Dim("patches")}, {0: Dim("images")})
    return Graph(name, ImageGraph(model, outputs), example, outputs, shapes, tower.config.patch_size)


def _text(model: TuringViTDualEncoderModel) -> Graph:
    # learned positions end somewhere, and the exporter wants to be told
    longest = getattr(model.text_model.config, "max_position_embeddings", None)
    shape = {0: Dim("texts"), 1: Dim("tokens", max=longest) if longest else Dim("tokens")}
    example = torch.ones(2, 5, dtype=torch.int64)
    inputs = {"input_ids": example, "attention_mask": example.clone()}
    return Graph("text_model", TextGraph(model), inputs, ("text_embeds",), (shape, dict(shape)))
