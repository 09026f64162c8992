# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The adapter for CLIP_benchmark: what it hands over, and figures equal to ours where CLIP_benchmark is installed."""

import json
import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoModel

from tests.curation import tiny_models
from tests.evaluation.test_encoders import save_siglip2
from tests.evaluation.test_run import CLASSES, draw_pictures, options_of
from tests.helpers import TOWER_TOLERANCE, assert_close
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.evaluation.run import run_evaluation
from turingvit_hf.evaluation.zero_shot import mean_of_prompts
from turingvit_hf.integrations import clip_benchmark as adapter


PROMPTS = ["a {c}.", "the {c}."]
WORDS = tiny_models.WORDS
CASES = [("model", "native"), ("model", "image_size=24"), ("clip", ""), ("siglip", ""), ("siglip2", "max_patches=12")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    tiny_models.save_dual_encoder(folder / "model")
    tiny_models.save_clip(folder / "clip")
    tiny_models.save_siglip(folder / "siglip")
    save_siglip2(folder / "siglip2")
    for name in ("model", "clip", "siglip", "siglip2"):
        # as they are initialized all texts and pictures are nearly the same, and figures a matter of rounding
        model = AutoModel.from_pretrained(folder / name)
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder / name)
    draw_pictures(folder / "test", 7, seed=2)
    lines = []
    for number, file in enumerate(sorted((folder / "test").rglob("*.png"))):
        # no two captions are the same, or they would tie
        words = f"{WORDS[number % 20]} {WORDS[number // 20 + 3]}"
        captions = [f"a {file.parent.name.replace('_', ' ')} {words}", f"{words} {WORDS[(number * 7) % 20]}"]
        lines.append({"image": str(file), "class": file.parent.name.replace("_", " "), "caption": captions})
    assert len({caption for line in lines for caption in line["caption"]}) == 2 * len(lines)
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


class Pictures(torch.utils.data.Dataset):
    """Pictures as CLIP_benchmark's data sets give them: transformed, with a class or a list of captions."""

    def __init__(self, folder, transform, *, with_captions: bool = False):
        lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
        self.files = [line["image"] for line in lines]
        self.targets = [line["caption"] if with_captions else CLASSES.index(line["class"]) for line in lines]
        self.transform = transform
        self.classes = list(CLASSES)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index):
        return self.transform(Image.open(self.files[index])), self.targets[index]


@pytest.mark.parametrize(("name", "pretrained"), CASES)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_pictures_through_a_loader_are_those_of_the_encoder(folder, name, pretrained, num_workers):
    model, transform, tokenizer = adapter.load_turingvit(str(folder / name), pretrained)
    encoder = TransformersEncoder(str(folder / name), **adapter._settings(pretrained))
    loader = DataLoader(Pictures(folder, transform), batch_size=5, num_workers=num_workers)
    embeddings = torch.cat([model.encode_image(images.to("cpu")) for images, _ in loader])
    files = [Image.open(file) for file in loader.dataset.files]
    pixels = [torch.tensor(list(file.tobytes()), dtype=torch.uint8).view(file.height, file.width, 3) for file in files]
    expected = encoder.image_features([image.permute(2, 0, 1).numpy() for image in pixels])
    assert_close(embeddings, expected, TOWER_TOLERANCE)
    with torch.no_grad():
        texts = model.encode_text(tokenizer(["a red dog", "sky"]).to("cpu"))
    assert_close(texts, encoder.text_features(["a red dog", "sky"]), TOWER_TOLERANCE)


def test_large_batches_go_to_the_model_in_parts(folder, monkeypatch):
    model, transform, _ = adapter.load_turingvit(str(folder / "model"), "tokens_per_batch=300")
    sizes, encode = [], TransformersEncoder._encode
    monkeypatch.setattr(
        TransformersEncoder,
        "_encode",
        lambda self, inputs, kind: sizes.append(len(inputs["pixel_values"])) or encode(self, inputs, kind),
    )
    (images, _) = next(iter(DataLoader(Pictures(folder, transform), batch_size=21)))
    assert len(images) == 21
    assert model.encode_image(images).shape[0] == 21
    assert len(sizes) > 3
    assert max(sizes) <= 300
    assert isinstance(pickle.loads(pickle.dumps(transform)), adapter.TransformOfOne)


def test_clip_benchmark_learns_of_the_type(monkeypatch):
    package, models = ModuleType("clip_benchmark"), ModuleType("clip_benchmark.models")
    models.TYPE2FUNC, models.MODEL_TYPES, package.models = {}, ["open_clip"], models
    monkeypatch.setitem(sys.modules, "clip_benchmark", package)
    monkeypatch.setitem(sys.modules, "clip_benchmark.models", models)
    adapter.register()
    adapter.register()
    assert models.TYPE2FUNC["turingvit"] is adapter.load_turingvit
    assert models.MODEL_TYPES == ["open_clip", "turingvit"]
    monkeypatch.setitem(sys.modules, "clip_benchmark", None)
    monkeypatch.delitem(sys.modules, "clip_benchmark.models")
    with pytest.raises(InputError, match="pip install clip-benchmark"):
        adapter.register()


def test_bad_settings_and_towers_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="settings are image_size, max_patches"):
        adapter.load_turingvit(str(folder / "model"), "size=24")
    with pytest.raises(InputError, match="not 'image_size=big'"):
        adapter.load_turingvit(str(folder / "model"), "image_size=big")
    encoder = TransformersEncoder(str(folder / "model"))
    tiny_models.save(encoder._tower, encoder.image_processor, tmp_path / "tower")
    with pytest.raises(InputError, match="has no text encoder"):
        adapter.load_turingvit(str(tmp_path / "tower"))


@pytest.mark.parametrize(("name", "pretrained"), CASES)
def test_clip_benchmark_measures_what_we_measure(folder, tmp_path, name, pretrained):
    """Its zero-shot classification and retrieval on our pictures and texts, and ours: equal scores and figures."""
    classification = pytest.importorskip(
        "clip_benchmark.metrics.zeroshot_classification", reason="CI does not install clip-benchmark"
    )
    from clip_benchmark.datasets.builder import image_captions_collate_fn
    from clip_benchmark.metrics import zeroshot_retrieval
    from clip_benchmark.models import load_clip

    adapter.register()
    model, transform, tokenizer = load_clip("turingvit", str(folder / name), pretrained, None, "cpu")
    loader = DataLoader(Pictures(folder, transform), batch_size=6)
    # what its `evaluate` does up to the logits; behind them it makes a number of an array of one, which numpy 2.4 ends
    classifier = classification.zero_shot_classifier(model, tokenizer, list(CLASSES), PROMPTS, "cpu", amp=False)
    logits, labels = classification.run_classification(model, classifier, loader, "cpu", amp=False)
    encoder = TransformersEncoder(str(folder / name), **adapter._settings(pretrained))
    prompts = [prompt.format(c=class_name) for class_name in CLASSES for prompt in PROMPTS]
    files = [np.array(Image.open(file)).transpose(2, 0, 1) for file in loader.dataset.files]
    images = nn.functional.normalize(encoder.image_features(files), dim=-1)
    texts = mean_of_prompts(encoder.text_features(prompts), len(CLASSES))
    assert_close(logits / 100, images @ texts.T, TOWER_TOLERANCE)
    best = logits.topk(2).values
    assert (best[:, 0] - best[:, 1]).min() > 100 * TOWER_TOLERANCE, "no two classes may tie"

    options = adapter._settings(pretrained) | {"model": str(folder / name)}
    templates = tuple(prompt.replace("{c}", "{}") for prompt in PROMPTS)
    ours = run_evaluation(options_of(folder, tmp_path, "zero-shot", templates=templates, **options))["figures"]
    assert float((logits.argmax(1) == labels).double().mean()) == ours["top1"]["value"]
    pairs = Pictures(folder, transform, with_captions=True)
    loader = DataLoader(pairs, batch_size=6, collate_fn=image_captions_collate_fn)
    theirs = zeroshot_retrieval.evaluate(model, loader, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
    ours = run_evaluation(options_of(folder, tmp_path, "retrieval", **options))["figures"]
    for k in (1, 5, 10):
        # theirs are means in float32
        assert theirs[f"text_retrieval_recall@{k}"] == pytest.approx(ours[f"image_to_text_R@{k}"]["value"], abs=1e-6)
        assert theirs[f"image_retrieval_recall@{k}"] == pytest.approx(ours[f"text_to_image_R@{k}"]["value"], abs=1e-6)
