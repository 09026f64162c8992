# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether an exported graph says what its model says, at sizes that it was not traced with, and what it is made of."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turingvit_hf.integrations.onnx.graphs import Graph


logger = logging.getLogger(__name__)

# (rows, columns) of patches: one patch, odd and even sides, and 1536 x 1024 pixels of patches of 16
GRIDS = ((1, 1), (1, 5), (7, 3), (14, 14), (16, 24), (31, 17), (32, 32), (96, 64))
# scores of softmax attention are 4 bytes x heads x tokens² an image: 3 GB at 6,144 tokens and 20 heads
LARGEST_IN_A_BATCH = 1024
# loops and branches, and Tile, which exporters make branches of: TensorRT has given wrong numbers for them
REFUSED_OPERATORS = ("If", "Loop", "Scan", "Tile")
# https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md, of those that our graphs may have
TENSORRT_OPERATORS = frozenset(
    (
        "Add",
        "And",
        "Cast",
        "CastLike",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Cos",
        "CumSum",
        "Div",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Gelu",
        "Gemm",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "IsNaN",
        "LayerNormalization",
        "Less",
        "LessOrEqual",
        "Log",
        "MatMul",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pad",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Relu",
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Sigmoid",
        "Sin",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
        "Where",
    )
)


class ExportError(ValueError):
    """A graph that must not be kept: it does not say what its model says, or holds what runtimes cannot take."""


@dataclass(frozen=True)
class Limits:
    """How far a graph may be from its model.

    Attributes:
        max_error: largest difference of any output, as a share of the largest magnitude in it or of 1; None: any.
        min_cosine: least cosine of any vector of an output with the model's.
    """

    max_error: float | None
    min_cosine: float


LIMITS = {"float32": Limits(1e-4, 0.99999), "float16": Limits(None, 0.999), "int8": Limits(None, 0.95)}


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        inputs: what the graph was given, in words.
        output: of which output.
        max_error: see `Limits`.
        min_cosine: likewise.
    """

    inputs: str
    output: str
    max_error: float
    min_cosine: float


def compare(path: Path, graph: Graph, reference: torch.nn.Module, grids: Sequence[tuple[int, int]]) -> list[Check]:
    """Return how far the file's outputs are from the model's, for each of the sizes.

    Args:
        path: the ONNX file.
        graph: what it was made from.
        reference: the graph's module in float32.
        grids: sizes of images, in patches; texts of their own lengths are compared instead where it takes texts.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # weights stay in their file and scratch memory is given back: the model in torch is in memory as well
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    checks = []
    for words, inputs in _inputs(graph, grids):
        with torch.no_grad():
            expected = reference(*inputs.values())
        found = session.run(list(graph.outputs), {name: tensor.numpy() for name, tensor in inputs.items()})
        for name, actual, exact in zip(graph.outputs, found, expected, strict=True):
            checks.append(Check(words, name, *_distance(np.asarray(actual), exact.numpy())))
        logger.info("%s: compared %s", path.name, words)
    return checks


def refuse_bad(checks: Iterable[Check], limits: Limits, name: str) -> None:
    """Raise `ExportError`, naming the worst comparison, if any is beyond the limits."""
    for check in checks:
        too_far = limits.max_error is not None and not check.max_error <= limits.max_error
        if too_far or not check.min_cosine >= limits.min_cosine:
            raise ExportError(
                f"{name} differs from the model: {check.output} of {check.inputs} has error {check.max_error:.2e} "
                f"(allowed {limits.max_error}) and cosine {check.min_cosine:.6f} (at least {limits.min_cosine})"
            )


def operators_of(path: Path) -> Counter[str]:
    """Return how often each operator occurs in a file, after ONNX's own checks of it.

    Raises:
        ExportError: it has loops, branches, `Tile`, or operators that ONNX does not define.
    """
    import onnx

    onnx.checker.check_model(str(path))
    model = onnx.load(str(path), load_external_data=False)
    operators = Counter(node.op_type for node in model.graph.node)
    refused = [name for name in REFUSED_OPERATORS if name in operators]
    foreign = sorted({node.domain for node in model.graph.node if node.domain not in ("", "ai.onnx")})
    if refused or foreign or model.functions:
        raise ExportError(f"{path.name} has {', '.join(refused + foreign) or 'functions'}, which runtimes cannot take")
    return operators


def _inputs(graph: Graph, grids: Sequence[tuple[int, int]]) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    if not graph.patch_size:
        for count, length in ((1, 1), (1, 7), (3, 12), (2, 16)):
            yield f"{count} texts of {length} tokens", _texts(graph, count, length, generator)
        return
    if graph.is_packed:
        width = graph.inputs["pixel_values"].shape[1]
        packs = [*([grid] for grid in grids), list(grids[: len(grids) // 2 + 1]), list(grids[1:4]) * 2]
        for pack in packs:
            # every other image of a pack of several is a clip
            rows = [(1 + (place % 2 if len(pack) > 1 else 0), *grid) for place, grid in enumerate(pack)]
            grid = torch.tensor(rows)
            patches = torch.randn(int(grid.prod(-1).sum()), width, generator=generator)
            yield f"a pack of {rows}", {"pixel_values": patches, "image_grid_thw": grid}
        return
    channels, patch = graph.inputs["pixel_values"].shape[1], graph.patch_size
    for place, (rows, columns) in enumerate(grids):
        batch = 3 if place % 3 == 1 and rows * columns <= LARGEST_IN_A_BATCH else 1
        pixels = torch.randn(batch, channels, rows * patch, columns * patch, generator=generator)
        yield f"{batch} x {rows * patch} x {columns * patch} pixels", {"pixel_values": pixels}


def _texts(graph: Graph, count: int, length: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    vocabulary = graph.module.model.text_model.get_input_embeddings().num_embeddings  # pyrefly: ignore
    ids = torch.randint(vocabulary, (count, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, count):
        mask[row, length - row :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _distance(actual: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Largest error, as a share of the largest magnitude or of 1, and least cosine of the last dimension's vectors."""
    actual, exact = actual.astype(np.float64), exact.astype(np.float64)
    if actual.shape != exact.shape:
        raise ExportError(f"an output has shape {actual.shape}, the model's has {exact.shape}")
    error = float(np.abs(actual - exact).max() / max(1.0, np.abs(exact).max()))
    lengths = np.linalg.norm(actual, axis=-1) * np.linalg.norm(exact, axis=-1)
    cosine = float(((actual * exact).sum(-1) / np.maximum(lengths, 1e-30)).min())
    return error, cosine


def as_rows(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Return checks as plain values."""
    return [vars(check) for check in checks]
