# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Teachers: every family gives one feature for each patch of the student, in its order, of the crop that it sees."""

import json
import pickle
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from torch.testing import assert_close

from turingvit_hf.errors import InputError
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.arguments import ResolutionRecipe, TeacherRecipe
from turingvit_hf.training.teachers import CHUNK, load_teacher


TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL = TEXT | {"patch_size": 8}
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
EVA = "eva02_base_patch16_clip_224"

# name: config class, model class, values, number of class and register tokens
FAMILIES = {
    "clip": ("CLIPVisionConfig", "CLIPVisionModel", SMALL | {"image_size": 32}, 1),
    "siglip": ("SiglipVisionConfig", "SiglipVisionModel", SMALL | {"image_size": 32}, 0),
    "siglip2-naflex": ("Siglip2VisionConfig", "Siglip2VisionModel", SMALL | {"num_patches": 16}, 0),
    "dinov2": ("Dinov2Config", "Dinov2Model", SMALL | {"image_size": 56}, 1),
    "dinov2-registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        SMALL | {"image_size": 56, "num_register_tokens": 4},
        5,
    ),
    "dinov3": ("DINOv3ViTConfig", "DINOv3ViTModel", SMALL | {"image_size": 32, "num_register_tokens": 4}, 5),
    "aimv2": ("Aimv2VisionConfig", "Aimv2VisionModel", SMALL | {"image_size": 32}, 0),
}


def processor_files(folder, **settings):
    """A folder's `preprocessor_config.json`, as the hub's are written."""
    square = {"size": {"height": 32, "width": 32}, "image_mean": MEAN, "image_std": STD, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(square | settings))


def save_family(folder, name):
    config_class, model_class, values, _ = FAMILIES[name]
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**values))
    model.save_pretrained(folder)
    processor_files(folder)
    return model.eval()


def load(folder, resolution=ResolutionRecipe(), **recipe):  # noqa: B008
    recipe = TeacherRecipe(model=str(folder), **recipe)
    return load_teacher(recipe, student_processor=TuringViTImageProcessor(), resolution=resolution)


def make_crops(*sizes, seed=0):
    """Smooth pictures, since resampled noise says little."""
    rng = np.random.default_rng(seed)
    crops = []
    for height, width in sizes:
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        crops.append(np.moveaxis(np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR)), -1, 0))
    return crops


def make_pack(teacher, crops, patch_size=16):
    """A pack as the loader makes it."""
    images = TuringViTImageProcessor(patch_size=patch_size)(crops, do_pack=True, return_tensors="pt")
    pack = {**images}
    if teacher.preprocess is not None:
        pack["teacher_pixel_values"] = pickle.loads(pickle.dumps(teacher.preprocess))(crops)
    return pack


@pytest.mark.parametrize("name", FAMILIES)
def test_patch_tokens_come_out_in_order(name, tmp_path):
    """Where the grids agree, features are the model's own tokens after its last norm, class and registers dropped."""
    model = save_family(tmp_path, name)
    teacher = load(tmp_path)
    pack = make_pack(teacher, make_crops((64, 64), (64, 64)))
    assert teacher.num_prefix_tokens == FAMILIES[name][3]
    assert teacher.hidden_size == 32

    pixels = pack["teacher_pixel_values"]
    if name == "siglip2-naflex":
        patches = pixels.reshape(2, 3, 4, 8, 4, 8).permute(0, 2, 4, 3, 5, 1).reshape(2, 16, 192)
        mask, shapes = torch.ones(2, 16, dtype=torch.int32), torch.tensor([[4, 4]] * 2)
        output = model(patches, pixel_attention_mask=mask, spatial_shapes=shapes)
    else:
        output = model(pixels)
    tokens = output.last_hidden_state[:, FAMILIES[name][3] :]
    if name == "clip":
        tokens = model.post_layernorm(tokens)
    features = teacher.features(pack, "cpu")
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert_close(features, tokens.flatten(0, 1))
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert not teacher.network.training


@pytest.mark.parametrize("name", FAMILIES)
def test_another_grid_is_resampled_image_by_image(name, tmp_path):
    save_family(tmp_path, name)
    teacher = load(tmp_path)
    crops = make_crops((32, 96), (128, 16), (64, 64), (160, 80))
    pack = make_pack(teacher, crops)
    assert pack["image_grid_thw"].tolist() == [[1, 2, 6], [1, 8, 1], [1, 4, 4], [1, 10, 5]]
    parts = teacher.features(pack, "cpu").split([12, 8, 16, 50])
    own = teacher.features({**pack, "image_grid_thw": torch.tensor([[1, 4, 4]] * 4)}, "cpu").split(16)
    for part, tokens, (_, rows, columns) in zip(parts, own, pack["image_grid_thw"].tolist(), strict=True):
        grid = tokens.reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
        expected = F.interpolate(grid, (rows, columns), mode="bilinear", align_corners=False)
        assert_close(part, expected[0].permute(1, 2, 0).reshape(-1, 32))


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2-naflex", "dinov2", "dinov3"])
def test_another_size_is_another_grid(name, tmp_path):
    save_family(tmp_path, name)
    teacher = load(tmp_path, size=48)
    pack = make_pack(teacher, make_crops((96, 96)))
    assert pack["teacher_pixel_values"].shape == (1, 3, 48, 48)
    assert teacher.side == 6
    assert teacher.features(pack, "cpu").shape == (36, 32)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_the_vision_part_of_a_model_of_images_and_texts(kind, tmp_path):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vision_config=SMALL | {"image_size": 32}, text_config=TEXT | {"vocab_size": 50000}
    )
    model = getattr(transformers, f"{kind}Model")(config)
    model.save_pretrained(tmp_path)
    processor_files(tmp_path)
    teacher = load(tmp_path)
    weights = {name.removeprefix("model."): value for name, value in teacher.network.state_dict().items()}
    for name, value in model.vision_model.state_dict().items():
        assert torch.equal(weights[name], value)
    assert not [name for name in weights if name.startswith("text")]


def test_the_teacher_has_its_own_pixels(tmp_path):
    save_family(tmp_path, "clip")
    teacher = load(tmp_path)
    (crop,) = make_crops((32, 32))
    expected = (torch.tensor(crop / 255) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert_close(teacher.preprocess([crop])[0], expected.float())
    (crop,) = make_crops((70, 45))
    resized = Image.fromarray(np.ascontiguousarray(crop.transpose(1, 2, 0))).resize((32, 32), Image.Resampling.BICUBIC)
    assert_close(teacher.preprocess([crop]), teacher.preprocess([np.asarray(resized).transpose(2, 0, 1)]))
    for wrong in ([], [crop.astype(np.float32)], [crop[:2]]):
        with pytest.raises(ValueError, match=r"at least one image|\(3, H, W\) uint8"):
            teacher.preprocess(wrong)


def test_the_size_is_that_of_the_crop_where_there_is_one(tmp_path):
    transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, image_size=56)).save_pretrained(tmp_path)
    processor_files(tmp_path, size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, do_center_crop=True)
    assert load(tmp_path).preprocess.size == 32
    processor_files(tmp_path, size=40, crop_size=32, do_center_crop=False)
    assert load(tmp_path).preprocess.size == 40
    processor_files(tmp_path, size=None)
    assert load(tmp_path).preprocess.size == 56


def test_many_images_go_through_in_chunks(tmp_path):
    save_family(tmp_path, "siglip")
    teacher = load(tmp_path)
    crops = make_crops(*[(16, 16)] * (CHUNK + 3))
    pack = make_pack(teacher, crops)
    features = teacher.features(pack, "cpu")
    last = {name: value[-1:] for name, value in pack.items()}
    assert_close(features[-1:], teacher.features(last, "cpu"))


def test_precision_is_the_recipes_also_under_autocast(tmp_path):
    save_family(tmp_path, "siglip")
    exact, rounded = load(tmp_path), load(tmp_path, dtype="bfloat16")
    pack = make_pack(exact, make_crops((64, 64)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(exact.features(pack, "cpu"), exact.features(pack, "cpu").float())
        under_autocast = exact.features(pack, "cpu")
    features = exact.features(pack, "cpu")
    assert torch.equal(under_autocast, features)
    assert next(rounded.network.parameters()).dtype == torch.bfloat16
    approximate = rounded.features(pack, "cpu")
    assert approximate.dtype == torch.float32
    assert not torch.equal(approximate, features)
    assert F.cosine_similarity(approximate, features).min() > 0.99


@pytest.fixture
def tower(tmp_path):
    torch.manual_seed(0)
    config = TuringViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        layer_types=["linear_attention", "full_attention"],
    )
    model = TuringViTModel(config).eval()
    model.save_pretrained(tmp_path)
    TuringViTImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    return model


@torch.no_grad()
def test_a_turingvit_teacher_reads_the_students_pixels(tower, tmp_path):
    teacher = load(tmp_path)
    assert teacher.preprocess is None
    crops = make_crops((48, 80), (64, 32))
    own = TuringViTImageProcessor.from_pretrained(tmp_path)(crops, do_pack=True, return_tensors="pt")
    features = teacher.features(make_pack(teacher, crops), "cpu")
    assert_close(features, tower(**own).last_hidden_state, atol=1e-4, rtol=1e-4)
    assert not features.requires_grad
    with pytest.raises(ValueError, match="hold 192 values, the TuringViT teacher's 768"):
        teacher.features(make_pack(teacher, crops, patch_size=8), "cpu")
    with pytest.raises(InputError, match=r"teacher\.size=64: a TuringViT teacher sees"):
        load(tmp_path, size=64)
    with pytest.raises(InputError, match="has patches of 16 pixels, the student of 8"):
        load_teacher(
            TeacherRecipe(model=str(tmp_path)),
            student_processor=TuringViTImageProcessor(patch_size=8),
            resolution=ResolutionRecipe(),
        )


@pytest.fixture(params=[(EVA, 64, 96), ("eva02_enormous_patch14_clip_224", 56, 84)], ids=["base", "enormous"])
def eva(request, tmp_path):
    """A small EVA02-CLIP in a folder, as timm's `local-dir:` reads it, with a grid of 4 x 4; and a larger size."""
    name, image_size, larger = request.param
    timm = pytest.importorskip("timm", reason="timm teachers need the teachers extra")
    torch.manual_seed(0)
    values = {"embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 24, "img_size": image_size}
    model = timm.create_model(name, pretrained=False, **values).eval()
    # a zero bias would hide a head that is left out
    torch.nn.init.normal_(model.norm.weight)
    torch.nn.init.normal_(model.head.weight)
    timm.models.save_for_hf(model, tmp_path, model_args=values)
    return model, larger


def test_an_eva_clip_teacher_gives_projected_features(eva, tmp_path):
    teacher = load(f"timm/local-dir:{tmp_path}")
    eva, _ = eva
    assert teacher.hidden_size == 24
    assert teacher.num_prefix_tokens == eva.num_prefix_tokens == 1
    assert teacher.preprocess.mean == eva.pretrained_cfg["mean"]
    pack = make_pack(teacher, make_crops((64, 64), (64, 64)))
    tokens = {}
    eva.norm.register_forward_hook(lambda module, inputs, output: tokens.update(after_norm=output))
    eva(pack["teacher_pixel_values"])
    assert_close(teacher.features(pack, "cpu"), eva.head(tokens["after_norm"][:, 1:]).flatten(0, 1).detach())
    # the class token takes the same way to the embedding of the image
    assert_close(teacher.network(pack["teacher_pixel_values"])[:, 0], eva(pack["teacher_pixel_values"]).detach())


def test_an_eva_clip_teacher_takes_another_size(eva, tmp_path):
    teacher = load(f"timm/local-dir:{tmp_path}", size=eva[1])
    assert teacher.side == 6
    assert teacher.features(make_pack(teacher, make_crops((96, 96), (48, 16))), "cpu").shape == (39, 24)


def test_timm_teachers_are_never_random(monkeypatch):
    pytest.importorskip("timm", reason="timm teachers need the teachers extra")
    with pytest.raises(InputError, match="cannot load the teacher 'timm/eva02_base_patch16_clip_224'"):
        load(f"timm/{EVA}")
    with pytest.raises(InputError, match=r"cannot load the teacher 'timm/no_such_model' through timm: Unknown model"):
        load("timm/no_such_model")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs timm: pip install 'turingvit_hf\[teachers\]'"):
        load(f"timm/{EVA}")


def test_a_model_without_a_grid_of_patches_is_refused_with_numbers(tmp_path):
    config = transformers.SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[1] * 2, num_heads=[1] * 2)
    config.window_size = 4
    transformers.SwinModel(config).save_pretrained(tmp_path / "swin")
    processor_files(tmp_path / "swin")
    with pytest.raises(InputError, match=r"tokens of shape \(16, 32\).*patches of 4 pixels make 8 x 8 = 64"):
        load(tmp_path / "swin")

    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    transformers.ResNetModel(config).save_pretrained(tmp_path / "resnet")
    processor_files(tmp_path / "resnet")
    with pytest.raises(InputError, match=r"'resnet' model with patch_size=None"):
        load(tmp_path / "resnet")


def test_bad_teachers_are_refused_with_words(tmp_path):
    model = save_family(tmp_path, "aimv2")
    with pytest.raises(InputError, match=r"patches of 8 pixels, which do not divide its input of 36"):
        load(tmp_path, size=36)
    with pytest.raises(InputError, match=r"at 48 x 48 pixels fails: .*teacher.size must be one that it can take"):
        load(tmp_path, size=48)

    weights = model.state_dict()
    del weights["encoder.layers.0.attention.q_proj.weight"]
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(InputError, match=r"lacks 1 weights of Aimv2VisionModel, such as .*q_proj"):
        load(tmp_path)

    save_family(tmp_path, "aimv2")
    (tmp_path / "preprocessor_config.json").write_text('{"size": 32}')
    with pytest.raises(InputError, match="image_mean=None"):
        load(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="has no image processor"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"cannot load the teacher '.*nowhere'"):
        load(tmp_path / "nowhere")


def test_packs_that_do_not_fit_are_refused(tmp_path):
    save_family(tmp_path, "siglip")
    teacher = load(tmp_path)
    pack = make_pack(teacher, make_crops((32, 32), (32, 32)))
    with pytest.raises(ValueError, match="has 2 images, teacher_pixel_values has 1"):
        teacher.features(pack | {"teacher_pixel_values": pack["teacher_pixel_values"][:1]}, "cpu")
    with pytest.raises(ValueError, match="has 2 images, teacher_pixel_values has none"):
        teacher.features({"image_grid_thw": pack["image_grid_thw"]}, "cpu")
    with pytest.raises(ValueError, match="sees still images"):
        teacher.features(pack | {"image_grid_thw": torch.tensor([[2, 2, 2], [1, 2, 2]])}, "cpu")
