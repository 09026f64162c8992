# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""One evaluation from start to end: features in shards, the task's figures, results in a folder."""

import hashlib
import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers

import turingvit_hf
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.evaluation.features import FeatureStore, identity_of_files
from turingvit_hf.evaluation.options import EvaluationOptions, check, describe
from turingvit_hf.evaluation.processes import Processes
from turingvit_hf.evaluation.report import make_table, options_of_figures, read_results
from turingvit_hf.evaluation.tasks import TASKS


LONGEST_NAME = 200


def run_evaluation(options: EvaluationOptions) -> dict[str, Any]:
    """The figures of one task, written to `results/` in the folder, beside `table.md` of all results there.

    Features are kept in the folder: a run that was interrupted goes on, and another task on the same images computes
    nothing twice. Under torchrun or accelerate each process makes its share of them; the figures are those of one.

    Returns:
        `{"task", "name", "model", "figures": {name: {"value", "interval", "chance"}}, "num_images", "left_out", ...}`,
        shares in [0, 1]. In processes other than the first one there are no figures.

    Raises:
        InputError: an option, the model or the data is at fault.
    """
    check(options)
    _check_device(options.device)
    processes = Processes(cpu=options.device == "cpu")
    device = str(processes.device) if options.device is None else options.device
    encoder = TransformersEncoder(
        options.model,
        revision=options.revision,
        dtype=options.dtype,
        device=device,
        image_size=options.image_size,
        max_patches=options.max_patches,
        tokens_per_batch=options.tokens_per_batch,
    )
    identity = _identity(options, encoder, device)
    store = FeatureStore(encoder, identity, Path(options.out).expanduser() / "features", processes)
    figures, details = TASKS[options.task](options, store, torch.device(device))
    result = {
        "task": options.task,
        "name": options.name or Path(options.data).stem,
        "model": options.model,
        "setting": describe(options),
        "figures": figures,
        **details,
        "options": asdict(replace(options, out=str(options.out))),
        "num_processes": processes.number,
        "versions": {module.__name__: module.__version__ for module in (turingvit_hf, torch, transformers)},
    }
    if processes.is_main:
        _write(result, Path(options.out).expanduser())
    processes.wait()
    return result


def _check_device(device: str | None) -> None:
    """Refuses a device that torch does not know or that is not there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={device!r} cannot be used: {str(error).partition(chr(10))[0]}") from error


def _identity(options: EvaluationOptions, encoder: TransformersEncoder, device: str) -> dict[str, Any]:
    """What features depend on beside the data."""
    return {
        "model": options.model,
        "files": identity_of_files(options.model, but=Path(options.out).expanduser()),
        "revision": getattr(encoder.network.config, "_commit_hash", None),
        "dtype": options.dtype,
        "device": torch.device(device).type,
        "image_options": encoder.image_options,
        "tokens_per_batch": options.tokens_per_batch,
        "transformers": transformers.__version__,
        "turingvit_hf": turingvit_hf.__version__,
    }


def _write(result: dict[str, Any], folder: Path) -> None:
    """Writes a result beside others, and the table of all."""
    words = (result["task"], result["name"], Path(result["model"]).name, result["setting"])
    # names of files end at 255 bytes, and many prompts are longer
    file = "-".join(re.sub(r"[^\w.]+", "_", word, flags=re.ASCII) for word in words)[:LONGEST_NAME]
    # checkpoints and data of two runs may be called the same, and prompts begin alike
    whole = json.dumps([result["model"], result["options"]["revision"], words, options_of_figures(result)])
    file += "-" + hashlib.sha256(whole.encode()).hexdigest()[:6]
    try:
        (folder / "results").mkdir(parents=True, exist_ok=True)
        _replace(folder / "results" / f"{file}.json", json.dumps(result, indent=2) + "\n")
        _replace(folder / "table.md", make_table(read_results(folder / "results")))
    except OSError as error:
        raise InputError(f"cannot write results to {folder}: {error.strerror}") from error


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
