# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tower's forward as a function without arguments: eager, compiled, or a session of ONNX Runtime."""

import importlib.util
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from turingvit_hf.benchmarking.options import DTYPES
from turingvit_hf.errors import InputError
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel


ONNX_DTYPES = ("float32", "float16")
OPSET = 20


@dataclass(frozen=True)
class Forward:
    """A forward that can be timed.

    Attributes:
        run: does it once.
        prepare_seconds: wall time of compiling or exporting before; None for eager.
    """

    run: Callable[[], object]
    prepare_seconds: float | None = None


def check_mode(mode: str, dtype: str, device: torch.device) -> None:
    """Refuses a mode that cannot run here, before anything is built.

    Raises:
        InputError: the mode has no such dtype or device, or a package is missing.
    """
    if mode != "onnxruntime":
        return
    if dtype not in ONNX_DTYPES:
        raise InputError(f"mode='onnxruntime' runs in {' or '.join(ONNX_DTYPES)}, not in {dtype}")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"mode='onnxruntime' needs {package}: pip install 'turingvit_hf[onnx]'")
    import onnxruntime

    if device.type == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise InputError("this onnxruntime has no CUDAExecutionProvider: the package onnxruntime-gpu has it")


def prepare(
    model: nn.Module, inputs: dict[str, Any], *, mode: str, dtype: str, device: torch.device, folder: Path
) -> Forward:
    """A tower's forward in one of the modes.

    Args:
        model: with its weights.
        inputs: its arguments.
        mode: `"eager"`, `"compiled"` or `"onnxruntime"`.
        dtype: of weights and pixels.
        device: of both.
        folder: where files of ONNX go, a folder that is the tower's own; they stay as long as the forward is used.
    """
    inputs = cast_inputs(inputs, dtype)
    if mode == "eager":
        return Forward(lambda: _infer(model, inputs))
    start = time.perf_counter()
    if mode == "compiled":
        compiled = torch.compile(model, dynamic=False)
        _infer(compiled, inputs)
        return Forward(lambda: _infer(compiled, inputs), time.perf_counter() - start)
    file = _export_turingvit(model, dtype, folder) if isinstance(model, TuringViTModel) else None
    file = file or _export_peer(model, inputs, folder)
    run = _session(file, inputs, device)
    return Forward(run, time.perf_counter() - start)


def cast_inputs(inputs: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The arguments of a forward with all that is floating point in the tower's dtype."""
    return {
        name: value.to(DTYPES[dtype]) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }


def _infer(model: Callable[..., object], inputs: dict[str, Any]) -> object:
    with torch.inference_mode():
        return model(**inputs)


def _export_turingvit(model: TuringViTModel, dtype: str, folder: Path) -> Path:
    """The file of the package's own export, which takes any size and has been compared with the model."""
    from turingvit_hf.integrations.onnx.export import export_onnx

    exported = export_onnx(model.cpu().float(), folder, dtype=dtype)
    return folder / exported[0].file


class _ByPosition(nn.Module):
    """A model that takes its arguments by position and returns its last hidden state and pooled vectors."""

    def __init__(self, model: nn.Module, names: list[str]):
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors that a graph returns."""
        outputs = self.model(**dict(zip(self.names, values, strict=True)))
        if isinstance(outputs, torch.Tensor):
            return (outputs,)
        pooled = outputs.get("pooler_output")
        return (outputs.last_hidden_state,) if pooled is None else (outputs.last_hidden_state, pooled)


def _export_peer(model: nn.Module, inputs: dict[str, Any], folder: Path) -> Path:
    """A graph of exactly these sizes, by torch's exporter."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.onnx"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: what matters is whether the graph runs
        program = torch.onnx.export(
            _ByPosition(model, list(inputs)).eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            verbose=False,
        )
    assert program is not None
    program.save(str(file), external_data=True)
    return file


def _session(file: Path, inputs: dict[str, Any], device: torch.device) -> Callable[[], object]:
    """A run of the file, inputs and outputs staying on the device."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    session = onnxruntime.InferenceSession(str(file), options, providers=[provider])
    binding = session.io_binding()
    for entry in session.get_inputs():
        # the package's own graphs take float32 whatever their weights are
        values = inputs[entry.name]
        values = values.float() if entry.type == "tensor(float)" else values
        value = onnxruntime.OrtValue.ortvalue_from_numpy(values.cpu().numpy(), device.type, device.index or 0)
        binding.bind_ortvalue_input(entry.name, value)
    for entry in session.get_outputs():
        binding.bind_output(entry.name, device.type, device.index or 0)
    return lambda: session.run_with_iobinding(binding)
