# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The command that builds TensorRT engines of exported files, with ranges of sizes. It was not run by this package."""

from collections.abc import Sequence
from pathlib import Path

from turingvit_hf.integrations.onnx.graphs import Graph


# (batch, rows, columns) in patches, or (patches, images), or (texts, tokens); scores of softmax attention that are not
# fused take batch x heads x patches², 5 GB at the largest of these with 20 heads in float32
PROFILES = {
    "dense": {"min": (1, 1, 1), "opt": (1, 32, 32), "max": (4, 64, 64)},
    "packed": {"min": (1, 1), "opt": (4096, 4), "max": (16_384, 64)},
    "text": {"min": (1, 1), "opt": (16, 64), "max": (256, 64)},
}
HEAD = """#!/bin/sh
# Builds a TensorRT engine beside each ONNX file: sh build_tensorrt.sh. It needs a GPU and `trtexec` of TensorRT 10 or
# later, and has not been run. The shapes are the least, the best and the largest; change them to what you serve.
# Compare the engine with the ONNX file before you use it, for example by `polygraphy run FILE.onnx --trt --onnxrt`.
set -e
cd "$(dirname "$0")"
"""
PACKED = """\
# The sizes inside a packed graph follow from what is in image_grid_thw. Such a tensor has at most 64 entries and a
# shape fixed when the engine is built, says TensorRT, so expect it to refuse; PACKED=1 tries.
if [ "$PACKED" = 1 ]; then
"""


def write_build_script(folder: Path, graphs: Sequence[Graph], files: Sequence[str], *, is_half: bool) -> Path:
    """Write `build_tensorrt.sh`, with a `trtexec` command for each file, those of packs last, and return its path.

    Args:
        folder: where the files are.
        graphs: what they were made from.
        files: their names.
        is_half: whether their weights are float16. Files say which precision each product has, and engines keep it.
    """
    lines = [HEAD]
    if is_half:
        lines.append("# float16 with float32 where the model computes in it: --stronglyTyped keeps both\n")
    for graph, file in sorted(zip(graphs, files, strict=True), key=lambda pair: pair[0].is_packed):
        shapes = " \\\n".join(f"  --{bound}Shapes={_shapes(graph, bound)}" for bound in ("min", "opt", "max"))
        engine = f"{Path(file).stem}.engine"
        command = f"trtexec --onnx={file} --saveEngine={engine} --stronglyTyped \\\n{shapes}\n"
        lines.append(f"{PACKED}{command}fi\n" if graph.is_packed else command)
    path = folder / "build_tensorrt.sh"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _shapes(graph: Graph, bound: str) -> str:
    if not graph.patch_size:
        texts, tokens = PROFILES["text"][bound]
        return f"input_ids:{texts}x{tokens},attention_mask:{texts}x{tokens}"
    pixels = graph.inputs["pixel_values"]
    if graph.is_packed:
        patches, images = PROFILES["packed"][bound]
        return f"pixel_values:{patches}x{pixels.shape[1]},image_grid_thw:{images}x3"
    batch, rows, columns = PROFILES["dense"][bound]
    return f"pixel_values:{batch}x{pixels.shape[1]}x{rows * graph.patch_size}x{columns * graph.patch_size}"
