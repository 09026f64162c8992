# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""`turingvit swap`, and a swapped VLM used as people do: from a fresh process, with chat messages, in a pipeline."""

import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline
from typer.testing import CliRunner

from tests.integrations import tower_swap_cases as cases
from tests.integrations.tiny import pictures, tiny_processor
from turingvit_hf.cli import app


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved LLaVA with a chat template, a saved tower, and the VLM that the command made of them."""
    folder = tmp_path_factory.mktemp("swap")
    torch.manual_seed(0)
    vlm, processor = cases.make_llava()
    processor.chat_template = cases.CHAT_TEMPLATE
    vlm.to(torch.bfloat16).save_pretrained(folder / "vlm")
    processor.save_pretrained(folder / "vlm")
    cases.make_tower().save_pretrained(folder / "tower")
    tiny_processor().save_pretrained(folder / "tower")
    return folder, run(folder, "out", "--token-reduction", "mean_pool", "--max-image-tokens", "12")


def run(folder, out, *options):
    """`turingvit swap` in this folder."""
    paths = ["--vlm", str(folder / "vlm"), "--tower", str(folder / "tower"), "--out", str(folder / out)]
    return CliRunner().invoke(app, ["swap", *paths, *options])


def test_says_what_it_did(folders):
    folder, result = folders
    assert result.exit_code == 0, result.output
    for part in (
        f"LlavaForConditionalGeneration in {folder / 'out'}; one image takes up to 12 tokens",
        "newly initialized, to be trained first: model.multi_modal_projector.linear_1.weight",
        "next: `import turingvit_hf`",
    ):
        assert part in result.output, part
    assert {path.name for path in folder.iterdir()} == {"vlm", "tower", "out"}


def test_keeps_the_precision(folders):
    model = AutoModelForImageTextToText.from_pretrained(folders[0] / "out")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_ends_in_one_line_and_an_exit_code_where_the_input_is_at_fault(folders):
    folder, _ = folders
    for out, options, message in (
        ("out", (), "out is not empty: choose another folder"),
        ("new", ("--token-reduction", "max"), "token_reduction='max', allowed are"),
        ("new", ("--tower", "no/such/folder"), "error: --tower 'no/such/folder': there is no such folder"),
    ):
        result = run(folder, out, *options)
        assert result.exit_code == 1
        assert message in result.output
        assert "Traceback" not in result.output
        assert not (folder / "new").exists()


def test_loads_in_a_fresh_process(folders):
    code = (
        "import sys, torch, turingvit_hf; from transformers import AutoModelForImageTextToText, AutoProcessor\n"
        "model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])\n"
        "processor = AutoProcessor.from_pretrained(sys.argv[1])\n"
        "print(type(model).__name__, type(model.model.vision_tower).__name__, type(processor).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code, folders[0] / "out"], capture_output=True, text=True, check=True)
    expected = "LlavaForConditionalGeneration TuringViTReducedModel TuringViTLlavaProcessor"
    assert done.stdout.split("\n")[0] == expected


def test_chat_messages_with_images(folders):
    processor = AutoProcessor.from_pretrained(folders[0] / "out")
    first, second = pictures([(40, 16), (16, 24)])
    messages = [
        {"role": "w9", "content": [{"type": "image", "image": first}, {"type": "text", "text": "w10"}]},
        {"role": "w11", "content": [{"type": "text", "text": "w12"}]},
        {"role": "w9", "content": [{"type": "image", "image": second}, {"type": "text", "text": "w13"}]},
    ]
    inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
    assert int((inputs["input_ids"] == cases.IMAGE).sum()) == 5 * 2 + 2 * 3
    model = AutoModelForImageTextToText.from_pretrained(folders[0] / "out")
    answer = model.generate(**inputs, max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3


def test_in_a_pipeline(folders):
    chat = pipeline("image-text-to-text", model=str(folders[0] / "out"), device="cpu")
    messages = [
        {
            "role": "w9",
            "content": [{"type": "image", "image": pictures([(40, 16)])[0]}, {"type": "text", "text": "w10"}],
        }
    ]
    answers = chat([messages, messages], max_new_tokens=3, batch_size=2, do_sample=False, return_full_text=False)
    assert len(answers) == 2
    assert answers[0] == answers[1]
