# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Towers, classifiers and dual encoders as ONNX files that take any image size, checked before they are kept."""

import copy
import importlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoProcessor

from turingvit_hf import __version__
from turingvit_hf.files.whole_folder import check_free, written_whole
from turingvit_hf.integrations.onnx.checks import (
    GRIDS,
    LIMITS,
    TENSORRT_OPERATORS,
    Check,
    Limits,
    as_rows,
    compare,
    operators_of,
    refuse_bad,
)
from turingvit_hf.integrations.onnx.graphs import Graph, graphs_of
from turingvit_hf.integrations.onnx.tensorrt import write_build_script
from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.modeling.modeling_turingvit import TuringViTForImageClassification, TuringViTModel


logger = logging.getLogger(__name__)

OPSET = 20
# endings of file names, as transformers.js and optimum have them
SUFFIXES = {"float32": "", "float16": "_fp16", "int8": "_quantized"}


@dataclass(frozen=True)
class Exported:
    """One file of an export.

    Attributes:
        file: its name in the folder.
        operators: how often each operator occurs.
        checks: the comparisons with the model, all within their limits.
    """

    file: str
    operators: dict[str, int]
    checks: list[Check]


def export_onnx(
    model: nn.Module,
    directory: str | os.PathLike,
    *,
    processor: Any = None,
    forms: Sequence[str] = ("dense",),
    dtype: str = "float32",
    outputs: Sequence[str] | None = None,
    grids: Sequence[tuple[int, int]] = GRIDS,
    limits: Limits | None = None,
    program: bool = False,
) -> list[Exported]:
    """Write a model as ONNX into a new folder and return what was written.

    A graph takes any batch and any size in multiples of the patch. Each file runs in ONNX Runtime at all of `grids`
    and is compared with the model before it is kept; where one is too far off, nothing is left behind. Beside the
    files: the configuration and the processor, `export.json` with the comparisons, and, unless they are of int8,
    `build_tensorrt.sh`.

    | file | inputs | outputs |
    |---|---|---|
    | `model.onnx` of a tower | `pixel_values` (B, C, H, W) | `last_hidden_state` (B, N, D), `pooler_output` (B, D) |
    | `model_packed.onnx` | `pixel_values` (T, C·p·p), `image_grid_thw` (N, 3) int64 | (T, D), (N, D) |
    | `vision_model.onnx` of a dual encoder | as above | `image_embeds` (B, E), of length 1 |
    | `text_model.onnx` | `input_ids`, `attention_mask` (M, L) int64 | `text_embeds` (M, E), of length 1 |

    Inputs and outputs are float32 in all of them. The model stays as it was, in its mode and dtype.

    Args:
        model: a `TuringViTModel`, `TuringViTForImageClassification` or `TuringViTDualEncoderModel`, on the CPU.
        directory: a folder that is empty or does not exist.
        processor: saved beside the files; None saves none.
        forms: `"dense"` or `"packed"`, or both.
        dtype: `"float32"`, `"float16"`, or `"int8"`: weights of matrix products of 8 bits, activations as they come.
        outputs: of a tower: `last_hidden_state` or `pooler_output`, or both; None takes all that it has.
        grids: (rows, columns) of patches at which files are compared with the model.
        limits: how far they may be off; None takes those of the dtype, `LIMITS`.
        program: whether each graph is saved as a `torch.export` program (`.pt2`) too, in float32 beside int8.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        ExportError: a graph differs from its model by more than the limits, or holds what runtimes cannot take.
        ValueError: the model, dtype, form or output is none of those above, or the folder is not free.
    """
    if dtype not in LIMITS:
        raise ValueError(f"dtype={dtype!r}: allowed are {', '.join(LIMITS)}")
    check_free(directory)
    _require("onnx", "onnxscript", "onnxruntime")
    limits = limits or LIMITS[dtype]
    with _single_precision(model) as exact:
        references = graphs_of(exact, forms=forms, outputs=outputs)
        graphs = references
        if dtype == "float16":
            graphs = graphs_of(copy.deepcopy(exact).half(), forms=forms, outputs=outputs)
        with _ends_on_sigterm(), written_whole(directory) as folder:
            exported = []
            for graph, reference in zip(graphs, references, strict=True):
                file = folder / f"{graph.name}{SUFFIXES[dtype]}.onnx"
                _write(graph, file, is_quantized=dtype == "int8", program=program)
                operators = operators_of(file)
                checks = compare(file, graph, reference.module, grids)
                refuse_bad(checks, limits, file.name)
                exported.append(Exported(file.name, dict(operators), checks))
                logger.info("%s: largest error %.1e", file.name, max(check.max_error for check in checks))
            _write_beside(folder, exact, processor, graphs, exported, dtype)
    return exported


def export_saved(checkpoint: str, directory: str | os.PathLike, **options: Any) -> list[Exported]:
    """Export a checkpoint with its processor; arguments and errors as `export_onnx`.

    Args:
        checkpoint: folder or hub id of a tower, of a classifier or of a dual encoder.
        directory: a folder that is empty or does not exist.
        **options: of `export_onnx`.

    Raises:
        ValueError: the checkpoint is none of those, or its weights cannot be read.
    """
    check_free(directory)
    if checkpoint.startswith((".", "/", "~")) and not Path(checkpoint).is_dir():
        raise ValueError(f"there is no folder {checkpoint}")
    config = AutoConfig.from_pretrained(checkpoint)
    names = config.architectures or []
    classes = {cls.__name__: cls for cls in (TuringViTForImageClassification, TuringViTDualEncoderModel)}
    if not isinstance(config, TuringViTConfig | TuringViTDualEncoderConfig):
        raise ValueError(f"{checkpoint} is a {config.model_type}; a TuringViT tower or dual encoder can be exported")
    # a model on top of a tower, such as that of stage 1, gives the tower
    cls = next((classes[name] for name in names if name in classes), TuringViTModel)
    try:
        model = cls.from_pretrained(checkpoint, dtype=torch.float32)
    except SafetensorError as error:
        raise ValueError(f"the weights of {checkpoint} cannot be read: {error}") from error
    try:
        processor = AutoProcessor.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        logger.warning("no processor is saved beside the files, since %s has none: %s", checkpoint, error)
        processor = None
    return export_onnx(model, directory, processor=processor, **options)


def _write(graph: Graph, file: Path, *, is_quantized: bool, program: bool) -> None:
    import onnx_ir

    from turingvit_hf.integrations.onnx.translations import translation_table

    with _quiet(), torch.no_grad():
        exported = torch.export.export(
            graph.module, tuple(graph.inputs.values()), dynamic_shapes=graph.dynamic_shapes, strict=False
        )
        if program:
            # only the ONNX file is quantized
            torch.export.save(exported, file.with_name(f"{graph.name if is_quantized else file.stem}.pt2"))
        translated = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            custom_translation_table=translation_table(),
            verbose=False,
        )
    assert translated is not None
    for node in translated.model.graph:
        node.metadata_props.clear()  # the Python stack of each, most of the file
    if not is_quantized:
        # weights in a file of their own, since a protobuf message holds 2 GiB; optimum and transformers.js name it so
        onnx_ir.save(translated.model, file, external_data=f"{file.name}_data")
        return
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        plain = Path(scratch, "plain.onnx")
        onnx_ir.save(translated.model, plain, external_data=f"{plain.name}_data")
        del translated, exported  # a copy of the weights, some of them transposed
        _quantize(plain, file)


def _quantize(plain: Path, file: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    # it asks for a pass over the graph that torch's exporter has made already, and gives the root logger a handler
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            str(plain), str(file), weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=True
        )
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
    model = onnx.load(str(file), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = f"{file.name}_data"
    onnx.save(model, str(file))
    weights = file.with_name(f"{file.name}.data").rename(file.with_name(f"{file.name}_data"))
    weights.chmod(file.stat().st_mode)  # onnx writes it for its owner's eyes alone


def _write_beside(
    folder: Path, model: Any, processor: Any, graphs: list[Graph], exported: list[Exported], dtype: str
) -> None:
    model.config.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    facts: dict[str, Any] = {
        "model": type(model).__name__,
        "dtype": dtype,
        "opset": OPSET,
        "versions": {"turingvit_hf": __version__, "torch": str(torch.__version__)}
        | {name: importlib.import_module(name).__version__ for name in ("onnx", "onnxscript", "onnxruntime")},
        "files": [
            {
                "file": entry.file,
                "operators": entry.operators,
                "not_in_tensorrt": sorted(set(entry.operators) - TENSORRT_OPERATORS),
                "checks": as_rows(entry.checks),
            }
            for entry in exported
        ],
    }
    if isinstance(model, TuringViTDualEncoderModel):
        # logits = exp(logit_scale) · image_embeds · text_embeds + logit_bias
        facts |= {"logit_scale": model.logit_scale.item(), "logit_bias": model.logit_bias.item()}
    (folder / "export.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if dtype != "int8":  # TensorRT takes neither DynamicQuantizeLinear nor MatMulInteger
        write_build_script(folder, graphs, [entry.file for entry in exported], is_half=dtype == "float16")


def _require(*modules: str) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"exporting needs the package {name}: pip install 'turingvit_hf[onnx]'") from error


@contextmanager
def _single_precision(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode and float32, a copy if it has another dtype; its modes are given back."""
    modes = {module: module.training for module in model.modules()}
    is_single = all(parameter.dtype == torch.float32 for parameter in model.parameters())
    try:
        yield model.eval() if is_single else copy.deepcopy(model).float().eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that half a folder goes; by itself it ends Python at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers can be set in the main thread alone
        return
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL  # None: it was set outside of Python
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of themselves: packages that are not there, their own deprecations."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
