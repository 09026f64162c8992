# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/describe_stamps.py on tiny models, and the language model that it converts from GGUF."""

import hashlib
import importlib
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.utils import is_gguf_available

from turingvit_hf.errors import InputError
from turingvit_hf.integrations.chat import load_chat


EXAMPLES = Path(__file__).parents[1] / "examples"
# PEFT asks models by the name that transformers 5 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers")
NUM_HEADS, NUM_KEY_VALUE_HEADS, WIDTH, NUM_WORDS = 2, 1, 32, 20
needs_gguf = pytest.mark.skipif(not is_gguf_available(), reason="GGUF files need the data extra (gguf)")


@pytest.fixture(scope="module")
def script():
    """What the script defines, and the module of its language model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        language_model = importlib.import_module("pretraining_sources.language_model")
        return SimpleNamespace(**runpy.run_path(str(EXAMPLES / "describe_stamps.py")), language_model=language_model)


@pytest.fixture
def data(tmp_path) -> Path:
    """Twelve stamps and three held out, with a drawing beside them that is none."""
    for split, names in {"train": "abcdefghijkl", "test": "xyz"}.items():
        folder = tmp_path / "data/images" / split
        folder.mkdir(parents=True)
        rows = [{"file_name": "art.png", "caption": "art", "source": "clip art"}]
        Image.new("RGB", (40, 40)).save(folder / "art.png")
        for index, name in enumerate(names):
            Image.new("RGB", (40 + 30 * index, 70), (20 * index, 200, 90)).save(folder / f"{name}.png")
            rows.append({"file_name": f"{name}.png", "caption": f"The letter {name}.", "source": "stamps"})
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


@pytest.fixture
def arguments(script, data, tmp_path) -> list[str]:
    script.make_smoke_input(tmp_path)
    models = ["--tower", str(tmp_path / "tower"), "--language-model", str(tmp_path / "language")]
    small = ["--align-steps", "2", "--instruct-steps", "2", "--batch-size", "2", "--lora-rank", "2"]
    return [*models, *small, "--data", str(data), "--num-described", "2"]


def test_smoke(script, capsys):
    script.main(["--smoke"])
    assert "held-out captions, nats a token: right picture" in capsys.readouterr().out


def test_a_run_leaves_what_it_promises(script, arguments, tmp_path):
    output = tmp_path / "output"
    script.main([*arguments, "--output", str(output), "--tower-training", "full", "--bf16"])
    assert {path.name for path in output.iterdir()} == {"vlm", "stamps.png", "report.json"}
    report = json.loads((output / "report.json").read_text())
    assert set(report["losses"]) == set(script.KINDS)
    assert all(np.isfinite(value) for value in report["losses"].values())
    assert {answer["caption"] for answer in report["answers"]} < {f"The letter {name}." for name in "xyz"}
    with Image.open(output / "stamps.png") as grid:
        assert grid.size == (script.COLUMNS * script.TILE, script.TILE + script.CAPTION_HEIGHT)
    model = AutoModelForImageTextToText.from_pretrained(output / "vlm")
    assert model.config.vision_config.token_reduction == "pixel_unshuffle"
    processor = AutoProcessor.from_pretrained(output / "vlm")
    inputs = processor(images=Image.new("RGB", (500, 300)), text="<image>", return_tensors="pt")
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) <= 36
    pieces: list[str] = []
    chat = load_chat(output / "vlm", [tmp_path / "picture.png"], max_new_tokens=3)
    assert chat.ask("What is this?", write=pieces.append).strip() == "".join(pieces).strip()


def test_nothing_is_trained_where_something_is(script, arguments, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output/mine").write_text("mine")
    with pytest.raises(SystemExit, match="not empty"):
        script.main([*arguments, "--output", str(tmp_path / "output")])
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["mine"]


def test_stamps_alone_and_in_their_split(script, data):
    rows = script.stamp_rows(data)
    captions = {split: {row["conversations"][1]["value"] for row in some} for split, some in rows.items()}
    assert captions == {
        split: {f"The letter {name}." for name in names}
        for split, names in {"train": "abcdefghijkl", "test": "xyz"}.items()
    }
    with pytest.raises(InputError, match=r"prepare_pretraining_data\.py"):
        script.stamp_rows(data / "images")


def test_a_random_tower_has_other_weights_and_nothing_else(script, arguments):
    vlms = []
    for more in ([], ["--random-tower"]):
        options = script.first_tower(script.make_parser().parse_args([*arguments, *more]))
        torch.manual_seed(0)
        vlms.append(script.build_vlm(options)[0])
    first, second = (vlm.state_dict() for vlm in vlms)
    assert first.keys() == second.keys()
    changed = {key for key, value in first.items() if not torch.equal(value, second[key])}
    assert any("vision_tower" in key for key in changed)
    assert not any("language_model" in key for key in changed)


def test_a_study_goes_on_where_it_stopped(script, arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(script.main.__globals__, "STUDY_SEEDS", (0,))
    output = tmp_path / "study"
    script.main([*arguments, "--study", "--output", str(output)])
    assert "shuffled - right" in capsys.readouterr().out
    runs = {path.name for path in output.iterdir()}
    assert runs == {"trained-tower-seed0", "random-tower-seed0"}
    report = (output / "trained-tower-seed0/report.json").read_text()
    script.main([*arguments, "--study", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "stage align" not in printed
    assert f"{json.loads(report)['losses']['right']:.2f}" in printed


def test_a_training_that_fails_leaves_nothing(script, arguments, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setitem(script.main.__globals__, "caption_losses", fail)
    with pytest.raises(SystemExit, match="disk full"):
        script.main([*arguments, "--output", str(tmp_path / "output")])
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("words", [["--output", "out"], ["--tower", "a", "b"], ["--tower", "a", "b", "--study"]])
def test_options_that_do_not_go_together(script, words):
    with pytest.raises(SystemExit) as failure:
        script.main(words)
    assert failure.value.code == 2


def write_tiny_gguf(path: Path) -> None:
    """A Llama of one layer with random weights, and a tokenizer that knows bytes."""
    gguf = importlib.import_module("gguf")
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KEY_VALUE_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // NUM_HEADS)
    writer.add_vocab_size(NUM_WORDS)
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefghijklmnop", "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, 3, *[1] * (len(words) - 3)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    narrow = WIDTH // NUM_HEADS * NUM_KEY_VALUE_HEADS
    shapes = {
        "token_embd": (NUM_WORDS, WIDTH),
        "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (narrow, WIDTH),
        "blk.0.attn_v": (narrow, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH),
        "blk.0.ffn_gate": (2 * WIDTH, WIDTH),
        "blk.0.ffn_up": (2 * WIDTH, WIDTH),
        "blk.0.ffn_down": (WIDTH, 2 * WIDTH),
        "blk.0.attn_norm": (WIDTH,),
        "blk.0.ffn_norm": (WIDTH,),
        "output_norm": (WIDTH,),
    }
    for name, shape in shapes.items():
        weights = rng.normal(size=shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q4_1
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", weights)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def published(script, tmp_path, monkeypatch) -> Path:
    """A cache with a tiny GGUF file in the place of the downloaded one, its digest the expected one."""
    parts = script.language_model
    folder = tmp_path / "cache" / f"{parts.PACKAGE}=={parts.VERSION}"
    folder.mkdir(parents=True)
    write_tiny_gguf(folder / parts.GGUF_FILE)
    digest = hashlib.sha256((folder / parts.GGUF_FILE).read_bytes()).hexdigest()
    monkeypatch.setattr(parts, "GGUF_SHA256", digest)
    return folder / parts.GGUF_FILE


@needs_gguf
def test_gguf_becomes_an_ordinary_folder(script, published, monkeypatch):
    cache = published.parent.parent
    folder = script.prepare_language_model(cache)
    assert {path.name for path in cache.iterdir()} == {folder.name, published.parent.name}
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert not hasattr(model.config, "quantization_config")
    known = AutoModelForCausalLM.from_pretrained(published.parent, gguf_file=published.name)
    tokens = torch.arange(NUM_WORDS)[None]
    torch.testing.assert_close(model(tokens).logits, known(tokens).logits, rtol=0, atol=0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("<|im_start|>abcab").tokens() == ["<|im_start|>", "ab", "c", "ab"]
    assert tokenizer.eos_token == "<|im_end|>"
    assert script.language_model.GGUF_FILE in (folder / "README.md").read_text()

    # what is there is taken as it is, without gguf and without the file
    published.unlink()
    monkeypatch.setattr(script.language_model, "is_gguf_available", lambda: False)
    assert script.prepare_language_model(cache) == folder


@needs_gguf
def test_another_file_is_refused_and_nothing_left(script, published):
    with published.open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="SHA-256"):
        script.prepare_language_model(published.parent.parent)
    assert [path.name for path in published.parent.parent.iterdir()] == [published.parent.name]


@needs_gguf
def test_a_conversion_that_fails_leaves_nothing(script, published, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        script.prepare_language_model(published.parent.parent)
    assert [path.name for path in published.parent.parent.iterdir()] == [published.parent.name]


def test_a_missing_gguf_package_is_said_before_anything_is_fetched(script, arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(script.language_model, "is_gguf_available", lambda: False)
    without = [word for word in arguments if word not in ("--language-model", str(tmp_path / "language"))]
    cache = tmp_path / "cache"
    with pytest.raises(SystemExit, match=r"turingvit_hf\[data\].*--language-model"):
        script.main([*without, "--cache", str(cache), "--output", str(tmp_path / "out")])
    assert not cache.exists()
