# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The scripts in examples/ run, and what they leave behind is what they say."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)


EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def features_script():
    return runpy.run_path(str(EXAMPLES / "extract_features.py"))


@pytest.fixture(scope="module")
def llava_script():
    return runpy.run_path(str(EXAMPLES / "llava_with_turingvit.py"))


@pytest.fixture
def pictures(features_script, tmp_path):
    """A folder with a tower in `tower`, and six pictures and a broken one in `pictures`."""
    features_script["make_smoke_input"](tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for picture in tmp_path.glob("*.png"):
        picture.rename(folder / picture.name)
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:100])
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_every_example_is_tested():
    tested_here = {"extract_features.py", "llava_with_turingvit.py"}
    tested_elsewhere = {"curation_defects.py", "describe_stamps.py", "prepare_pretraining_data.py"}
    tested_elsewhere |= {"train_vlm.py", "lora_tower.py", "prepare_curation_data.py"}
    assert {script.name for script in EXAMPLES.glob("*.py")} == tested_here | tested_elsewhere


def test_extract_features_smoke(features_script, tmp_path):
    features_script["main"](["--smoke", "--output", str(tmp_path / "features.safetensors")])
    assert load_file(tmp_path / "features.safetensors")["features"].shape == (6, 64)


def test_features_of_a_folder_are_those_of_its_images(features_script, pictures, tmp_path, capsys):
    output, tower = tmp_path / "features.safetensors", tmp_path / "tower"
    features_script["main"]([str(pictures), "--output", str(output), "--tower", str(tower), "--max-patches", "35"])
    assert "broken.png" in capsys.readouterr().err
    with safe_open(output, "pt") as file:
        names, features = json.loads(file.metadata()["files"]), file.get_tensor("features")
    assert names == [str(pictures / f"{index}.png") for index in range(6)]
    model = AutoModel.from_pretrained(tower)
    processor = features_script["TuringViTImageProcessor"].from_pretrained(tower)
    with torch.inference_mode():
        for name, feature in zip(names, features, strict=True):
            alone = model(**processor(Image.open(name), return_tensors="pt")).pooler_output[0]
            torch.testing.assert_close(feature, alone)


def test_patch_features_have_the_shape_of_the_image(features_script, pictures, tmp_path):
    output = tmp_path / "patches.safetensors"
    arguments = [str(pictures / "0.png"), "--patches", "--output", str(output), "--tower", str(tmp_path / "tower")]
    features_script["main"](arguments)
    (patches,) = load_file(output).values()
    with Image.open(pictures / "0.png") as image:
        assert patches.shape == (round(image.height / 16), round(image.width / 16), 64)


@pytest.mark.parametrize("arguments", ["missing.png", "", "broken.png", "0.png --output missing/out"])
def test_extract_features_fails_with_words(features_script, pictures, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(pictures)
    with pytest.raises(SystemExit) as failure:
        features_script["main"]([*arguments.split(), "--tower", str(tmp_path / "tower")])
    assert failure.value.code not in (0, None)
    assert not list(pictures.glob("*.safetensors"))


def test_llava_smoke(llava_script, capsys):
    llava_script["main"](["--smoke"])
    printed = capsys.readouterr().out
    assert "image tokens" in printed
    assert "answer:" in printed


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_llava_keeps_both_models_and_reloads(llava_script, tmp_path, tied):
    llava_script["make_smoke_input"](tmp_path)
    language = LlamaForCausalLM.from_pretrained(tmp_path / "language").config.to_dict()
    LlamaForCausalLM(LlamaConfig(**language | {"tie_word_embeddings": tied})).save_pretrained(tmp_path / "language")
    llava, processor = llava_script["build_llava"](str(tmp_path / "tower"), str(tmp_path / "language"))

    tower = AutoModel.from_pretrained(tmp_path / "tower", vision_use_head=False)
    for name, weight in llava.model.vision_tower.state_dict().items():
        assert torch.equal(weight, tower.state_dict()[name]), name
    original = LlamaForCausalLM.from_pretrained(tmp_path / "language")
    for name, weight in llava.model.language_model.state_dict().items():
        assert torch.equal(weight[: original.config.vocab_size], original.model.state_dict()[name]), name
    assert torch.equal(llava.lm_head.weight[: original.config.vocab_size], original.lm_head.weight)

    llava.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    reloaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava").eval()
    reloaded_processor = AutoProcessor.from_pretrained(tmp_path / "llava")
    picture = Image.open(tmp_path / "picture.png")
    ask = llava_script["ask"]
    assert ask(reloaded, reloaded_processor, picture, "why") == ask(llava, processor, picture, "why")


def test_llava_says_which_language_models_it_cannot_hold(llava_script, tmp_path):
    llava_script["make_smoke_input"](tmp_path)
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(SystemExit, match="GPT2LMHeadModel"):
        llava_script["build_llava"](str(tmp_path / "tower"), str(tmp_path / "gpt2"))
