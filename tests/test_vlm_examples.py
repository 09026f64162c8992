# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The examples that train: examples/train_vlm.py and examples/lora_tower.py."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftConfig
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, ProcessorMixin

from tests.integrations.tiny import tiny_config, tiny_processor
from tests.integrations.tower_swap_cases import make_llava
from tests.training.vlm.families import make_family
from turingvit_hf import TuringViTForImageClassification, TuringViTModel
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel


EXAMPLES = Path(__file__).parents[1] / "examples"
# PEFT asks models by the name that transformers 5 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers")


@pytest.fixture
def train_script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return runpy.run_path(str(EXAMPLES / "train_vlm.py"))


@pytest.fixture(scope="module")
def lora_script():
    return runpy.run_path(str(EXAMPLES / "lora_tower.py"))


@pytest.fixture
def stamps(tmp_path) -> Path:
    """Thirty pictures in one color each, with the color's name as a caption."""
    folder = tmp_path / "stamps"
    folder.mkdir()
    for index in range(30):
        Image.new("RGB", (32 + 16 * (index % 3), 48), (8 * index, 0, 0)).save(folder / f"{index:02}.png")
        (folder / f"{index:02}.txt").write_text(f"Number {index}.\nnl.utf8=Nummer {index}.\n")
    return folder


@pytest.fixture
def models(train_script, tmp_path) -> list[str]:
    train_script["make_smoke_input"](tmp_path)
    return ["--tower", str(tmp_path / "tower"), "--language-model", str(tmp_path / "language")]


def test_train_vlm_smoke(train_script, capsys):
    train_script["main"](["--smoke"])
    assert "answer:" in capsys.readouterr().out


def test_both_stages_on_stamps(train_script, models, stamps, tmp_path, capsys):
    """What the first stage saves is what the second one starts from; both keep what they do not train."""
    main = train_script["main"]
    common = ["--stamps", str(stamps), "--steps", "2", "--batch-size", "2"]
    main(["--stage", "align", *models, *common, "--output", str(tmp_path / "aligned")])
    printed = capsys.readouterr().out
    assert "held-out caption loss: right image" in printed
    aligned = load_file(tmp_path / "aligned/vlm/model.safetensors")
    language = load_file(tmp_path / "language/model.safetensors")
    key = "layers.0.self_attn.q_proj.weight"
    assert torch.equal(aligned[f"language_model.model.{key}"], language[f"model.{key}"])

    options = ["--vlm", str(tmp_path / "aligned/vlm"), "--lora-rank", "2", "--tower-training", "full"]
    main(["--stage", "instruct", *options, *common, "--output", str(tmp_path / "instructed")])
    config = PeftConfig.from_pretrained(tmp_path / "instructed/adapter")
    assert set(config.modules_to_save) == {"model.multi_modal_projector", "model.vision_tower"}
    instructed = load_file(tmp_path / "instructed/vlm/model.safetensors")
    assert instructed.keys() == aligned.keys()
    assert not torch.equal(instructed[f"language_model.model.{key}"], aligned[f"language_model.model.{key}"])

    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "instructed/vlm").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "instructed/vlm")
    ends = np.atleast_1d(model.generation_config.eos_token_id)
    assert processor.tokenizer.convert_ids_to_tokens(ends.tolist()) == ["<|im_end|>"]
    train_script["ask"](model, processor, Image.open(stamps / "00.png"))


def test_a_tower_is_put_into_a_vlm_and_aligned(train_script, stamps, tmp_path, capsys):
    vlm, processor = make_llava()
    vlm.save_pretrained(tmp_path / "old")
    processor.save_pretrained(tmp_path / "old")
    TuringViTModel(tiny_config()).save_pretrained(tmp_path / "tower")
    tiny_processor().save_pretrained(tmp_path / "tower")
    models = ["--vlm", str(tmp_path / "old"), "--tower", str(tmp_path / "tower"), "--max-image-tokens", "16"]
    arguments = [*models, "--stamps", str(stamps), "--steps", "2", "--output", str(tmp_path / "new")]
    train_script["main"](["--stage", "align", *arguments])
    assert "new parameters: model.multi_modal_projector.linear_1.weight" in capsys.readouterr().out
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("old", "new/vlm"))
    changed = {key for key in before.keys() & after.keys() if not torch.equal(before[key], after[key])}
    # two tokens more, for the chat template
    embeddings = {"language_model.lm_head.weight", "language_model.model.embed_tokens.weight"}
    assert {key for key in changed if "vision_tower" not in key and "projector" not in key} <= embeddings
    for key in embeddings & changed:
        assert torch.equal(after[key][: len(before[key])], before[key])


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("family", ["paligemma", "idefics3"])
def test_other_families_from_a_folder_to_answers(train_script, stamps, tmp_path, capsys, family):
    """A swapped VLM, with its own template or with none, is aligned, instructed and asked."""
    vlm, processor = make_family(family)
    vlm.save_pretrained(tmp_path / "vlm")
    processor.save_pretrained(tmp_path / "vlm")
    common = ["--stamps", str(stamps), "--steps", "2", "--batch-size", "2", "--lora-rank", "2"]
    train_script["main"](
        ["--stage", "align", "--vlm", str(tmp_path / "vlm"), *common, "--output", str(tmp_path / "a")]
    )
    options = ["--vlm", str(tmp_path / "a/vlm"), "--tower-training", "lora", *common, "--output", str(tmp_path / "b")]
    train_script["main"](["--stage", "instruct", *options])
    printed = capsys.readouterr().out
    assert "using ChatML" not in printed
    assert printed.count("held-out caption loss: right image") == 2
    model, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "b/vlm", output_loading_info=True)
    assert not any(report.values())
    assert type(model) is type(vlm)


def test_held_out_captions_are_not_trained_on(train_script, stamps):
    (stamps / "twin.png").write_bytes((stamps / "00.png").read_bytes())
    (stamps / "twin.txt").write_text("NUMBER 0.")
    train, test = train_script["stamp_rows"](stamps)
    captions = [{row["conversations"][1]["value"].lower() for row in rows} for rows in (train, test)]
    assert len(train) + len(test) == 31
    assert captions[0] & captions[1] == set()
    assert captions[1]


def test_losses_tell_a_model_that_looks(train_script, models, stamps, tmp_path):
    """With another picture the loss is another one; without a projector it is the same for all pictures."""
    options = train_script["make_parser"]().parse_args(models)
    vlm, processor = train_script["load_vlm"](options)
    train, _ = train_script["stamp_rows"](stamps)
    data = train_script["ConversationDataset"](train, processor)
    losses = train_script["caption_losses"](vlm, processor, data)
    assert len(set(losses.values())) == 3
    torch.nn.init.zeros_(vlm.model.multi_modal_projector.linear_2.weight)
    losses = train_script["caption_losses"](vlm, processor, data)
    # the numbers of image tokens differ where pictures are shuffled
    assert losses["right"] == losses["blank"]


def test_a_run_can_be_resumed(train_script, models, stamps, tmp_path):
    def run(output: str, *more: str):
        arguments = ["--stage", "align", *models, "--stamps", str(stamps), "--batch-size", "2", "--save-steps", "1"]
        train_script["main"]([*arguments, "--output", str(tmp_path / output), "--steps", "3", *more])
        return load_file(tmp_path / output / "vlm/model.safetensors")

    whole = run("run")
    # as if it had ended after its second step
    checkpoints = sorted((tmp_path / "run/checkpoints").iterdir())
    assert [folder.name for folder in checkpoints] == ["checkpoint-2", "checkpoint-3"]
    checkpoints[-1].rename(tmp_path / "last")
    resumed = run("run", "--resume")
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())


def test_a_vlm_whose_saving_fails_is_not_there(train_script, models, stamps, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(ProcessorMixin, "save_pretrained", fail)
    arguments = ["--stage", "align", *models, "--stamps", str(stamps), "--steps", "1", "--batch-size", "2"]
    with pytest.raises(OSError, match="No space left"):
        train_script["main"]([*arguments, "--save-steps", "9", "--output", str(tmp_path / "run")])
    assert "vlm" not in "".join(path.name for path in (tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        "--stage align --output out --data rows.json",
        "--stage align --output out --vlm vlm",
        "--stage align --output out --vlm vlm --data rows.json --stamps stamps",
        "--stage align --output out --vlm vlm --tower tower --language-model llm --data rows.json",
    ],
)
def test_options_that_do_not_go_together(train_script, arguments):
    with pytest.raises(SystemExit) as failure:
        train_script["main"](arguments.split())
    assert failure.value.code == 2


def test_data_that_cannot_be_used_is_an_error_with_words(train_script, models, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"text": "a"}]))
    arguments = [*models, "--data", str(tmp_path / "rows.json"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="neither messages nor conversations"):
        train_script["main"](["--stage", "align", *arguments])
    assert not (tmp_path / "out/vlm").exists()


@pytest.mark.parametrize("task", ["classification", "retrieval"])
def test_lora_tower_smoke(lora_script, tmp_path, task):
    lora_script["main"]([task, "--smoke", "--output", str(tmp_path)])
    weights = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert any(".turingvit.layers." in key and "lora_A" in key for key in weights)
    assert not any("text_model" in key or "patch_embed" in key for key in weights)
    whole = {key.split(".")[2] for key in weights if "lora_" not in key}
    expected = {"classifier"} if task == "classification" else {"visual_projection", "text_projection"}
    assert whole == expected
    kind = TuringViTForImageClassification if task == "classification" else TuringViTDualEncoderModel
    merged = kind.from_pretrained(tmp_path / "merged")
    assert all(np.isfinite(value.detach().numpy()).all() for value in merged.parameters())
