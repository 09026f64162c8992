# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What comes with exported graphs: programs of torch, TensorRT's build script, names that other loaders look for."""

import json
import logging
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from tests.processes import PATIENCE
from turingvit_hf import TuringViTConfig, TuringViTForImageClassification, TuringViTModel


onnx = pytest.importorskip("onnx", reason="export needs the onnx extra")
pytest.importorskip("onnxruntime", reason="export needs the onnx extra")
pytest.importorskip("onnxscript", reason="export needs the onnx extra")

from turingvit_hf.cli import app  # noqa: E402
from turingvit_hf.integrations.onnx import export as export_module  # noqa: E402
from turingvit_hf.integrations.onnx.export import export_onnx  # noqa: E402


PATCH = 4
GRIDS = ((1, 1), (7, 3))
# inputs of each operator that TensorRT's parser wants to know when it parses
CONSTANT_INPUTS = {"CumSum": 1, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1, "Pad": 3} | {
    f"Reduce{name}": 1 for name in ("Max", "Mean", "Min", "Prod", "Sum")
}


def tiny_config(**values):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    layers = ["linear_attention", "full_attention"]
    return TuringViTConfig(**sizes, layer_types=layers, patch_size=PATCH, initializer_range=0.2, **values)


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return TuringViTModel(tiny_config()).eval()


@pytest.fixture(scope="module")
def folder(tower, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export_onnx(tower, folder, forms=("packed", "dense"), grids=GRIDS, program=True)
    return folder


@torch.no_grad()
def test_programs_run_in_another_process_at_other_sizes(tower, folder, tmp_path):
    grid = torch.tensor([(1, 5, 2), (3, 2, 7), (1, 1, 1)])
    patches = torch.randn(int(grid.prod(-1).sum()), 3 * PATCH**2)
    images = [torch.randn(1, 3, 4, 4), torch.randn(2, 3, 24, 4), torch.randn(5, 3, 36, 20)]
    torch.save({"images": images, "patches": patches, "grid": grid}, tmp_path / "inputs.pt")
    code = """if True:
        import sys, torch
        folder, scratch = sys.argv[1:]
        inputs = torch.load(f"{scratch}/inputs.pt")
        dense = torch.export.load(f"{folder}/model.pt2")
        # torch guards against sides of one patch, which it did not trace with; they are right all the same
        found = [dense.module(check_guards=min(x.shape[2:]) > 4)(x) for x in inputs["images"]]
        import turingvit_hf
        packed = torch.export.load(f"{folder}/model_packed.pt2").module()
        torch.save([*found, packed(inputs["patches"], inputs["grid"])], f"{scratch}/outputs.pt")
    """
    subprocess.run([sys.executable, "-c", code, str(folder), str(tmp_path)], check=True, timeout=PATIENCE)
    found = torch.load(tmp_path / "outputs.pt")
    expected = [*(tower(pixels) for pixels in images), tower(patches, image_grid_thw=grid)]
    for outputs, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(outputs[0], exact.last_hidden_state, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(outputs[1], exact.pooler_output, atol=1e-5, rtol=1e-5)


def profiles_of(folder):
    """Shapes by file, bound and input in `build_tensorrt.sh`, as `trtexec` would read them."""
    (folder / "bin").mkdir(exist_ok=True)
    stand_in = folder / "bin/trtexec"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PACKED": "1"}
    command = ["sh", str(folder / "build_tensorrt.sh")]
    lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    profiles = {}
    for line in lines:
        (file,) = re.findall(r"--onnx=(\S+)", line)
        profiles[file] = {
            bound: {
                name: [int(size) for size in sizes.split("x")] for name, sizes in re.findall(r"(\w+):([\dx]+)", text)
            }
            for bound, text in re.findall(r"--(min|opt|max)Shapes=(\S+)", line)
        }
    return profiles


def test_ranges_of_sizes_for_tensorrt_fit_the_graphs(folder):
    profiles = profiles_of(folder)
    assert list(profiles) == ["model.onnx", "model_packed.onnx"]  # what may be refused comes last
    for file, bounds in profiles.items():
        inputs = {
            value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in onnx.load(folder / file, load_external_data=False).graph.input
        }
        assert list(bounds) == ["min", "opt", "max"]
        for shapes in bounds.values():
            assert set(shapes) == set(inputs)
            for name, shape in shapes.items():
                # 0: a size that may change
                assert all(fixed in (0, size) for fixed, size in zip(inputs[name], shape, strict=True))
        for name in inputs:
            least, best, largest = (bounds[bound][name] for bound in ("min", "opt", "max"))
            assert all(a <= b <= c for a, b, c in zip(least, best, largest, strict=True))
    for shapes in profiles["model.onnx"].values():
        assert all(size % PATCH == 0 for size in shapes["pixel_values"][2:])
    for shapes in profiles["model_packed.onnx"].values():
        # the same square image so often as there are images
        each, rest = divmod(shapes["pixel_values"][0], shapes["image_grid_thw"][0])
        assert rest == 0
        assert int(each**0.5) ** 2 == each


def test_the_packed_graph_is_built_for_tensorrt_only_when_asked(folder):
    script = (folder / "build_tensorrt.sh").read_text()
    assert script.index("--onnx=model.onnx") < script.index('if [ "$PACKED" = 1 ]') < script.index("model_packed.onnx")


@pytest.mark.parametrize("file", ["model.onnx", "model_packed.onnx"])
def test_axes_are_known_when_tensorrt_parses(folder, file):
    graph = onnx.load(folder / file, load_external_data=False).graph
    known = {tensor.name for tensor in graph.initializer}
    axes = [
        node.input[CONSTANT_INPUTS[node.op_type]]
        for node in graph.node
        if len(node.input) > CONSTANT_INPUTS.get(node.op_type, 99)
    ]
    assert len(axes) > 10
    assert set(axes) <= known | {""}


@pytest.mark.parametrize(
    ("dtype", "file"), [("float32", "model.onnx"), ("float16", "model_fp16.onnx"), ("int8", "model_quantized.onnx")]
)
def test_weights_stand_where_browsers_look_for_them(tower, tmp_path, dtype, file):
    export_onnx(tower, tmp_path / "onnx", dtype=dtype, grids=GRIDS[:1])
    names = {path.name for path in (tmp_path / "onnx").iterdir()}
    assert names - {"build_tensorrt.sh"} == {file, f"{file}_data", "config.json", "export.json"}
    (entry,) = json.loads((tmp_path / "onnx/export.json").read_text())["files"]
    assert entry["operators"]
    # TensorRT has no operators for what int8 is computed with, so nothing says how to build it
    lacking = ["DynamicQuantizeLinear", "MatMulInteger"] if dtype == "int8" else []
    assert entry["not_in_tensorrt"] == lacking
    assert ("build_tensorrt.sh" in names) == (not lacking)
    places = {
        entry.value
        for tensor in onnx.load(tmp_path / "onnx" / file, load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert places == {f"{file}_data"}


def test_quantizing_leaves_loggers_as_they_were(tower, tmp_path, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    before = root.level
    export_onnx(tower, tmp_path / "onnx", dtype="int8", grids=GRIDS[:1])
    assert (root.handlers, root.level) == ([], before)


def test_a_program_beside_a_quantized_file_is_called_what_it_is(tower, tmp_path):
    export_onnx(tower, tmp_path / "onnx", dtype="int8", grids=[(3, 2)], program=True)
    assert [path.name for path in (tmp_path / "onnx").glob("*.pt2")] == ["model.pt2"]
    pixels = torch.randn(2, 3, 2 * PATCH, 5 * PATCH)
    with torch.no_grad():
        tokens, _ = torch.export.load(tmp_path / "onnx" / "model.pt2").module()(pixels)
        torch.testing.assert_close(tokens, tower(pixels).last_hidden_state)


def test_weights_that_are_cut_off_are_an_error_of_one_line(tower, tmp_path):
    tower.save_pretrained(tmp_path / "tower")
    weights = tmp_path / "tower" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    result = CliRunner().invoke(app, ["export", "--model", str(tmp_path / "tower"), "--out", str(tmp_path / "onnx")])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: the weights of {tmp_path / 'tower'} cannot be read")
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_stays_as_it_was(tmp_path, dtype):
    """In training mode and in its dtype; the graph has what its weights say in float32."""
    model = TuringViTModel(tiny_config()).to(dtype).train()
    model.layers[0].eval()  # such as a part that is frozen
    modes = [module.training for module in model.modules()]
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    export_onnx(model, tmp_path / "onnx", grids=[(1, 1), (3, 5)])
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match="outputs="):
        export_onnx(model, tmp_path / "other", outputs=["logits"])
    assert [module.training for module in model.modules()] == modes
    for name, weight in model.state_dict().items():
        assert weight.dtype == dtype
        assert torch.equal(weight, weights[name])


def test_an_export_that_is_stopped_leaves_nothing(tower, tmp_path, monkeypatch):
    def stopped(path, *_):
        assert path.is_file()
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("SIGTERM did not end it")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(export_module, "compare", stopped)
    with pytest.raises(SystemExit) as ended:
        export_onnx(tower, tmp_path / "onnx", grids=GRIDS[:1])
    assert ended.value.code == 128 + signal.SIGTERM
    assert not any(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_command_exports_a_classifier_and_says_what_it_has(tmp_path):
    torch.manual_seed(0)
    model = TuringViTForImageClassification(tiny_config(num_labels=5, vision_use_head=False))
    model.save_pretrained(tmp_path / "classifier")
    arguments = ["export", "--model", str(tmp_path / "classifier"), "--out", str(tmp_path / "onnx")]
    wrong = CliRunner().invoke(app, [*arguments, "--output", "pooler_output"])
    assert wrong.exit_code == 1
    assert "a TuringViTForImageClassification has logits" in wrong.output
    assert not (tmp_path / "onnx").exists()
    wrong = CliRunner().invoke(app, [*arguments, "--form", "padded"])
    assert wrong.exit_code == 1
    assert "allowed are 'dense' and 'packed'" in wrong.output
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert [x.name for x in onnx.load(tmp_path / "onnx/model.onnx").graph.output] == ["logits"]
