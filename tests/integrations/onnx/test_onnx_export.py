# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Exported graphs say what their models say at sizes that they were not traced with, or there is no file."""

import json

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

from turingvit_hf import (
    TuringViTConfig,
    TuringViTDualEncoderModel,
    TuringViTForImageClassification,
    TuringViTImageProcessor,
    TuringViTModel,
)


onnx = pytest.importorskip("onnx", reason="export needs the onnx extra")
onnxruntime = pytest.importorskip("onnxruntime", reason="export needs the onnx extra")
pytest.importorskip("onnxscript", reason="export needs the onnx extra")

from turingvit_hf.cli import app  # noqa: E402
from turingvit_hf.integrations.onnx.checks import ExportError, Limits, operators_of  # noqa: E402
from turingvit_hf.integrations.onnx.export import export_onnx  # noqa: E402


PATCH = 4
GRIDS = ((1, 1), (1, 5), (7, 3), (12, 9))


def tiny_config(**values):
    values = {"layer_types": ["linear_attention", "full_attention", "linear_attention"], **values}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    return TuringViTConfig(**sizes, patch_size=PATCH, image_size=32, initializer_range=0.2, **values)


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return TuringViTModel(tiny_config()).eval()


@pytest.fixture(scope="module")
def exported(tower, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    processor = TuringViTImageProcessor(patch_size=PATCH)
    entries = export_onnx(tower, folder, processor=processor, forms=("dense", "packed"), grids=GRIDS, program=True)
    return folder, entries


def run(file, **inputs):
    return onnxruntime.InferenceSession(str(file)).run(None, {name: x.numpy() for name, x in inputs.items()})


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 4, 4), (2, 8, 40), (1, 36, 12), (5, 16, 16), (1, 100, 60)])
def test_images_of_other_sizes_and_batches(tower, exported, size):
    batch, height, width = size
    pixels = torch.randn(batch, 3, height, width)
    tokens, pooled = run(exported[0] / "model.onnx", pixel_values=pixels)
    expected = tower(pixels)
    np.testing.assert_allclose(tokens, expected.last_hidden_state.numpy(), atol=1e-4)
    np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "rows", [[(1, 1, 1)], [(1, 2, 3)] * 4, [(8, 3, 5), (1, 20, 2), (1, 1, 9)], [(1, 1, 1), (1, 40, 33), (3, 2, 2)]]
)
def test_packs_of_other_images_and_clips(tower, exported, rows):
    grid = torch.tensor(rows)
    patches = torch.randn(int(grid.prod(-1).sum()), 3 * PATCH**2)
    tokens, pooled = run(exported[0] / "model_packed.onnx", pixel_values=patches, image_grid_thw=grid)
    expected = tower(patches, image_grid_thw=grid)
    np.testing.assert_allclose(tokens, expected.last_hidden_state.numpy(), atol=1e-4)
    np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), atol=1e-4)


@torch.no_grad()
def test_many_tokens_are_pooled_the_same_every_time(tower, exported):
    # sums by several threads at once have lost terms here
    grid = torch.tensor([[1, 64, 64]])
    patches = torch.randn(64 * 64, 3 * PATCH**2)
    expected = tower(patches, image_grid_thw=grid).pooler_output.numpy()
    for _ in range(3):
        pooled = run(exported[0] / "model_packed.onnx", pixel_values=patches, image_grid_thw=grid)[1]
        np.testing.assert_allclose(pooled, expected, atol=1e-4)


def test_graphs_have_no_branches_and_nothing_that_tensorrt_lacks(exported):
    folder, entries = exported
    for entry in entries:
        assert not {"If", "Loop", "Scan", "Tile"} & set(entry.operators)
    files = json.loads((folder / "export.json").read_text())["files"]
    assert [entry["not_in_tensorrt"] for entry in files] == [[], []]


def test_what_stands_beside_the_files(exported):
    folder, entries = exported
    assert [entry.file for entry in entries] == ["model.onnx", "model_packed.onnx"]
    assert TuringViTImageProcessor.from_pretrained(folder).patch_size == PATCH
    assert TuringViTConfig.from_pretrained(folder).hidden_size == 32
    script = (folder / "build_tensorrt.sh").read_text()
    assert "--minShapes=pixel_values:1x3x4x4 " in script
    assert "pixel_values:16384x48,image_grid_thw:64x3" in script
    checks = json.loads((folder / "export.json").read_text())["files"][0]["checks"]
    assert len(checks) == 2 * len(GRIDS)
    assert all(check["max_error"] < 1e-4 for check in checks)


@torch.no_grad()
def test_the_program_of_torch_runs_as_well(tower, exported):
    program = torch.export.load(exported[0] / "model.pt2").module()
    pixels = torch.randn(3, 3, 20, 8)
    torch.testing.assert_close(program(pixels)[1], tower(pixels).pooler_output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "file"), [("float16", "model_fp16.onnx"), ("int8", "model_quantized.onnx")])
def test_smaller_weights(tower, tmp_path, dtype, file):
    before = {name: weight.clone() for name, weight in tower.state_dict().items()}
    (entry,) = export_onnx(tower, tmp_path / "onnx", dtype=dtype, outputs=("pooler_output",), grids=GRIDS)
    assert entry.file == file
    assert min(check.min_cosine for check in entry.checks) >= (0.999 if dtype == "float16" else 0.95)
    data = sum(path.stat().st_size for path in (tmp_path / "onnx").glob("*_data"))
    num_bytes = 4 * sum(weight.numel() for weight in before.values())
    assert data < (0.55 if dtype == "float16" else 0.45) * num_bytes
    assert all(torch.equal(weight, before[name]) for name, weight in tower.state_dict().items())
    # whoever may read one file may read its weights
    assert len({path.stat().st_mode for path in (tmp_path / "onnx").iterdir()}) == 1


@torch.no_grad()
def test_a_dual_encoder_is_two_graphs(tower, tmp_path):
    torch.manual_seed(1)
    text = BertModel(
        BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    )
    model = TuringViTDualEncoderModel.from_vision_text_pretrained(tower, text, projection_dim=16, text_pooling="mean")
    entries = export_onnx(model, tmp_path / "onnx", grids=GRIDS[:3])
    assert [entry.file for entry in entries] == ["vision_model.onnx", "text_model.onnx"]
    pixels, ids = torch.randn(3, 3, 12, 28), torch.randint(60, (4, 9))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    (images,) = run(tmp_path / "onnx/vision_model.onnx", pixel_values=pixels)
    (texts,) = run(tmp_path / "onnx/text_model.onnx", input_ids=ids, attention_mask=mask)
    facts = json.loads((tmp_path / "onnx/export.json").read_text())
    logits = np.exp(facts["logit_scale"]) * images @ texts.T + facts["logit_bias"]
    expected = model(pixel_values=pixels, input_ids=ids, attention_mask=mask).logits_per_image
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


@torch.no_grad()
def test_a_classifier(tmp_path):
    torch.manual_seed(0)
    model = TuringViTForImageClassification(tiny_config(num_labels=5, vision_use_head=False)).eval()
    export_onnx(model, tmp_path / "onnx", grids=GRIDS[:2])
    pixels = torch.randn(2, 3, 24, 8)
    (logits,) = run(tmp_path / "onnx/model.onnx", pixel_values=pixels)
    np.testing.assert_allclose(logits, model(pixels).logits.numpy(), atol=1e-4)


def test_a_graph_that_is_off_is_not_kept(tower, tmp_path):
    with pytest.raises(ExportError, match=r"model.onnx differs from the model: .* of 1 x 4 x 4 pixels has error"):
        export_onnx(tower, tmp_path / "onnx", grids=GRIDS[:1], limits=Limits(1e-12, 0.0))
    assert not any(tmp_path.iterdir())


def test_branches_are_refused(tmp_path):
    tile = onnx.helper.make_node("Tile", ["x", "n"], ["y"])
    vector = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([tile], "g", [vector("x", 1, [2]), vector("n", 7, [1])], [vector("y", 1, [None])])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "tile.onnx")
    with pytest.raises(ExportError, match="has Tile, which runtimes cannot take"):
        operators_of(tmp_path / "tile.onnx")


def test_wrong_arguments_are_refused(tower, tmp_path):
    for options, message in (
        ({"dtype": "int4"}, "dtype='int4': allowed are float32, float16, int8"),
        ({"forms": ("padded",)}, "allowed are 'dense' and 'packed'"),
        ({"outputs": ("logits",)}, "this tower has last_hidden_state, pooler_output"),
    ):
        with pytest.raises(ValueError, match=message):
            export_onnx(tower, tmp_path / "onnx", **options)
    with pytest.raises(ValueError, match="cannot export a Linear"):
        export_onnx(torch.nn.Linear(2, 2), tmp_path / "onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(ValueError, match="is not empty"):
        export_onnx(tower, tmp_path / "full")


def test_the_command(tower, tmp_path):
    tower.save_pretrained(tmp_path / "tower")
    TuringViTImageProcessor(patch_size=PATCH).save_pretrained(tmp_path / "tower")
    arguments = ["export", "--model", str(tmp_path / "tower"), "--out", str(tmp_path / "onnx")]
    result = CliRunner().invoke(app, [*arguments, "--output", "pooler_output"])
    assert result.exit_code == 0, result.output
    assert "8 comparisons, error at most" in result.output
    assert {"model.onnx", "config.json", "preprocessor_config.json"} <= {f.name for f in (tmp_path / "onnx").iterdir()}
    for wrong, message in (
        ([*arguments[:3], "--out", str(tmp_path / "other"), "--dtype", "int4"], "allowed are float32, float16, int8"),
        (arguments, "is not empty: choose another folder"),
        (["export", "--model", str(tmp_path / "none"), "--out", str(tmp_path / "other")], "there is no folder"),
    ):
        result = CliRunner().invoke(app, wrong)
        assert result.exit_code == 1
        assert message in result.output
    assert not (tmp_path / "other").exists()
