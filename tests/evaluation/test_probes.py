# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Probes that are trained equal plain references with their gradients, go on when stopped, and learn."""

import json
import shutil
import sys
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.curation import tiny_models
from tests.evaluation.test_run import draw_pictures, options_of
from tests.helpers import assert_close
from tests.processes import launch, run_command
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation import probe_training
from turingvit_hf.evaluation import tokens as tokens_module
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.evaluation.probe_heads import AttentiveHeads, LinearHeads
from turingvit_hf.evaluation.probe_training import ProbeRecipe, judge, probe_scores, sweep_probes, train_probes
from turingvit_hf.evaluation.run import run_evaluation
from turingvit_hf.evaluation.tokens import FeatureRows, TokenFiles


# float32 against float64, sums over some tens of tokens
TOLERANCE = 2e-6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def make_heads(kind, num_classes, mean, std, num_heads, **others):
    return kind(mean, std, num_heads, num_classes, generator(7), **others)


def save_tokens(folder, num_images: int = 90, width: int = 8, num_classes: int = 3) -> TokenFiles:
    """Files of 40 images each; an image's class shows in one of its tokens alone, the others are noise."""
    draws = generator(1)
    labels = torch.randint(num_classes, (num_images,), generator=draws)
    paths = []
    for start in range(0, num_images, 40):
        images = []
        for label in labels[start : start + 40].tolist():
            image = torch.randn(int(torch.randint(1, 12, (1,), generator=draws)), width, generator=draws)
            image[0, label] += 8
            images.append(image + 3)
        lengths = torch.tensor([len(image) for image in images])
        paths.append(folder / f"{start}.safetensors")
        save_file({"tokens": torch.cat(images), "lengths": lengths}, paths[-1])
    return TokenFiles(paths, labels, {}, "tokens")


def plain_attentive_logits(heads: AttentiveHeads, images: list[torch.Tensor], head: int) -> torch.Tensor:
    """One image after the other, one attention head after the other, each token projected to keys and values."""
    logits = []
    for image in images:
        x = (image - heads.mean) / heads.std
        keys, values = x @ heads.key_weight[head].T, x @ heads.value_weight[head].T
        seen = []
        size = x.shape[1] // heads.num_attention_heads
        for start in range(0, x.shape[1], size):
            part = slice(start, start + size)
            weights = torch.softmax(keys[:, part] @ heads.query[head][part] / size**0.5, 0)
            seen.append(weights @ values[:, part])
        logits.append(heads.weight[head] @ torch.cat(seen) + heads.bias[head])
    return torch.stack(logits)


@pytest.mark.parametrize("num_attention_heads", [1, 4])
def test_attentive_heads_are_those_of_a_plain_reference_with_all_gradients(num_attention_heads):
    images = [noise(length, 8, seed=length) for length in (5, 1, 11)]
    heads = AttentiveHeads(noise(8), noise(8).abs() + 0.5, 3, 4, generator(), num_attention_heads)
    for number, parameter in enumerate(heads.parameters()):
        parameter.data = noise(*parameter.shape, seed=100 + number)
    padded = nn.utils.rnn.pad_sequence(images, batch_first=True, padding_value=50.0)
    upstream = noise(3, 3, 4, seed=1)
    logits = heads(padded, torch.tensor([5, 1, 11]))
    (logits * upstream).sum().backward()
    gradients = [parameter.grad for parameter in heads.parameters()]
    heads.double().zero_grad()
    exact = torch.stack([plain_attentive_logits(heads, [i.double() for i in images], head) for head in range(3)], 1)
    (exact * upstream).sum().backward()
    assert_close(logits, exact, TOLERANCE)
    for gradient, parameter in zip(gradients, heads.parameters(), strict=True):
        assert_close(gradient, parameter.grad, TOLERANCE)


def test_tokens_of_ragged_images_come_out_of_their_files(tmp_path, monkeypatch):
    files = save_tokens(tmp_path)
    images = [files.image(row) for row in range(90)]
    monkeypatch.setattr(tokens_module, "TOKENS_AT_ONCE", 30)
    monkeypatch.setattr(tokens_module, "OPEN_FILES", 1)
    rows = torch.randperm(90, generator=generator())[:50]
    chunks = files.chunks(rows)
    assert sorted(torch.cat(chunks).tolist()) == sorted(rows.tolist())
    for chunk in chunks:
        padded, lengths = files.load(chunk)
        assert padded.shape[:2].numel() <= 30
        for row, image, length in zip(chunk.tolist(), padded, lengths.tolist(), strict=True):
            torch.testing.assert_close(image[:length], images[row], rtol=0, atol=0)
            assert not image[length:].any()
    std, mean = torch.std_mean(torch.cat([images[row] for row in rows.tolist()]).double(), dim=0, correction=0)
    for actual, exact in zip(files.statistics(rows), (mean, std), strict=True):
        assert_close(actual, exact, TOLERANCE)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_side_by_side_is_one_after_the_other(tmp_path, monkeypatch, optimizer):
    """Each of four variants trained alone, by a loop over whole batches, has the same weights."""
    monkeypatch.setattr(tokens_module, "TOKENS_AT_ONCE", 30)
    files, rows = save_tokens(tmp_path), torch.arange(70)
    recipe = ProbeRecipe((1e-2, 1e-3), (0.0, 0.3), optimizer, epochs=2, batch_size=4)
    together = train_probes(partial(make_heads, AttentiveHeads, 3), files, rows, recipe, recipe.variants)
    for number, (rate, decay) in enumerate(recipe.variants):
        alone = make_heads(AttentiveHeads, 3, *files.statistics(rows), 1)
        decaying = [alone.weight[0], alone.key_weight[0], alone.value_weight[0]]
        groups = [{"params": decaying, "weight_decay": decay}, {"params": [alone.bias[0], alone.query[0]]}]
        kind = partial(torch.optim.SGD, momentum=0.9) if optimizer == "sgd" else torch.optim.AdamW
        steps = kind(groups, lr=rate, weight_decay=0.0)
        for epoch in range(2):
            order = torch.randperm(70, generator=generator(epoch))
            for step, batch in enumerate(order.split(4)):
                progress = (18 * epoch + step + 0.5) / 36
                shape = (
                    progress / 0.1
                    if progress < 0.1
                    else 0.5 * (1 + torch.cos(torch.tensor((progress - 0.1) / 0.9 * torch.pi)))
                )
                for group in steps.param_groups:
                    group["lr"] = rate * float(shape)
                logits = plain_attentive_logits(alone, [files.image(row) for row in batch.tolist()], 0)
                nn.functional.cross_entropy(logits, files.labels[batch]).backward()
                steps.step()
                steps.zero_grad()
        for name, values in alone.named_children():
            torch.testing.assert_close(together.get_submodule(name)[number], values[0], rtol=1e-4, atol=1e-5)


def test_a_sweep_learns_what_stands_in_one_token_and_chooses_on_held_out_images(tmp_path):
    files = save_tokens(tmp_path, num_images=300)
    recipe = ProbeRecipe((1e-6, 3e-2), (0.01,), epochs=20)
    heads, shares = sweep_probes(partial(make_heads, AttentiveHeads, 3), files, torch.arange(200), recipe)
    assert list(shares) == ["1e-06, 0.01", "0.03, 0.01"]
    assert shares["1e-06, 0.01"] < 0.6
    assert shares["0.03, 0.01"] > 0.9
    (share,), _ = judge(heads, files, torch.arange(200, 300))
    scores = probe_scores(heads, files)
    assert share == float((scores[200:].argmax(1) == files.labels[200:]).double().mean()) > 0.9
    assert scores.shape == (300, 3)


def test_a_rate_that_diverges_is_not_chosen():
    features = torch.cat([noise(60, 4) + 1, noise(60, 4, seed=1) - 1])
    examples = FeatureRows(features, torch.arange(2).repeat_interleave(60))
    recipe = ProbeRecipe((0.1, 3e38), optimizer="sgd", warmup=0.0)
    heads, shares = sweep_probes(partial(make_heads, LinearHeads, 2), examples, torch.arange(120), recipe)
    assert shares["3e+38, 0"] == 0
    assert judge(heads, examples, torch.arange(120))[0][0] > 0.9
    with pytest.raises(InputError, match="there are 1 in all"):
        sweep_probes(partial(make_heads, LinearHeads, 2), examples, torch.arange(1), recipe)


def test_training_that_was_stopped_goes_on(tmp_path, monkeypatch):
    files, recipe = save_tokens(tmp_path), ProbeRecipe((1e-2,), epochs=4)
    train = partial(
        train_probes, partial(make_heads, AttentiveHeads, 3), files, torch.arange(90), recipe, [(1e-2, 0.1)]
    )
    expected = train()
    save, epochs = probe_training._save, []

    def stops_after_two(path, state):
        save(path, state)
        epochs.append(state["epoch"])
        if epochs == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(probe_training, "_save", stops_after_two)
    with pytest.raises(KeyboardInterrupt):
        train(state=tmp_path / "state" / "probe.pt")
    resumed = train(state=tmp_path / "state" / "probe.pt")
    assert epochs == [1, 2, 3, 4]
    again = train(state=tmp_path / "state" / "probe.pt")
    for name, value in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)
        assert torch.equal(again.state_dict()[name], value)
    assert len(epochs) == 4
    (tmp_path / "state" / "probe.pt").write_bytes(b"")
    with pytest.raises(InputError, match="delete that file"):
        train(state=tmp_path / "state" / "probe.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probes")
    tiny_models.save_dual_encoder(folder / "model")
    tiny_models.save_clip(folder / "clip")
    draw_pictures(folder / "train", 16, seed=1)
    draw_pictures(folder / "test", 5, seed=2)
    return folder


@pytest.mark.parametrize("model", ["model", "clip"])
def test_an_attentive_probe_learns_colors_and_keeps_its_tokens(folder, tmp_path, model):
    options = partial(options_of, folder, tmp_path, "attentive-probe", model=str(folder / model))
    options = partial(options, train_data=str(folder / "train"), learning_rates=(3e-3, 1e-2))
    result = run_evaluation(options())
    assert result["figures"]["top1"]["value"] >= 0.9
    assert set(result["held_out_top1_by_variant"]) == {"0.003, 0.01", "0.003, 0.1", "0.01, 0.01", "0.01, 0.1"}
    files = [path for suffix in ("safetensors", "pt") for path in (tmp_path / "features").rglob(f"*.{suffix}")]
    assert len(files) == 4  # tokens of two data sets, the sweep and the probe that it chose
    times = [file.stat().st_mtime_ns for file in files]
    assert run_evaluation(options())["figures"] == result["figures"]
    assert [file.stat().st_mtime_ns for file in files] == times
    assert "20 epochs, rates 0.003 0.01" in result["setting"]
    few = run_evaluation(options(shots=2, epochs=2, token_dtype="bfloat16"))
    assert few["num_training_images"] == 6


@pytest.mark.slow
def test_two_processes_are_one(folder, tmp_path):
    """Under torchrun over gloo, with training images of two shards."""
    draw_pictures(tmp_path / "many", 100, seed=3)
    arguments = ["--model", str(folder / "model"), "--train-data", str(tmp_path / "many"), "--device", "cpu"]
    arguments += ["--data", str(folder / "test"), "--task", "attentive-probe", "--epochs", "3"]
    for name in ("one", "two"):
        command = ["-m", "turingvit_hf.evaluation", *arguments, "--out", tmp_path / name]
        result = launch(command) if name == "two" else run_command([sys.executable, *command])
        assert result.returncode == 0, result.stderr[-3000:]
    one, two = (json.loads(next((tmp_path / name / "results").glob("*.json")).read_text()) for name in ("one", "two"))
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    for key in ("figures", "held_out_top1_by_variant", "num_tokens", "num_images"):
        assert one[key] == two[key]


def test_tokens_that_would_not_fit_are_refused_with_their_size(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"would take 0\.0 GB or so, and 0\.0 GB are free"):
        run_evaluation(options_of(folder, tmp_path, "attentive-probe", train_data=str(folder / "train")))
    assert not list((tmp_path / "features").rglob("*.safetensors"))


def test_tokens_too_large_for_their_dtype_are_refused(folder, tmp_path, monkeypatch):
    encode = TransformersEncoder.patch_tokens
    monkeypatch.setattr(
        TransformersEncoder, "patch_tokens", lambda self, images: [1e6 * image for image in encode(self, images)]
    )
    with pytest.raises(InputError, match="take --token-dtype bfloat16"):
        run_evaluation(options_of(folder, tmp_path, "attentive-probe", train_data=str(folder / "train")))


def test_a_linear_probe_by_sgd_learns_colors(folder, tmp_path):
    result = run_evaluation(
        options_of(folder, tmp_path, "linear-probe", train_data=str(folder / "train"), features="mean", probe="sgd")
    )
    assert result["figures"]["top1"]["value"] >= 0.9
    assert len(result["held_out_top1_by_variant"]) == 12
    written = json.loads(next((tmp_path / "results").glob("*.json")).read_text())
    assert written["setting"] == "mean, sgd, 20 epochs"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": "mean"}, "looks at patch tokens alone"),
        ({"probe": "adam"}, "probe='adam': allowed are lbfgs, sgd"),
        ({"token_dtype": "int8"}, "token_dtype='int8': allowed are float16"),
        ({"learning_rates": (0.0,)}, "they are above 0"),
        ({"epochs": 0}, "epochs=0: it is 1 or more"),
    ],
)
def test_bad_options_are_errors_of_one_line(folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run_evaluation(options_of(folder, tmp_path, "attentive-probe", train_data=str(folder / "train"), **changes))
