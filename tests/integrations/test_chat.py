# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Chats about pictures with a tiny swapped LLaVA: answers, streaming, turns, and what is refused."""

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from tests.integrations import tower_swap_cases as cases
from tests.integrations.tiny import pictures, tiny_processor
from turingvit_hf import cli
from turingvit_hf.integrations.chat import PictureChat, converse, load_chat
from turingvit_hf.integrations.tower_swap import swap_vision_tower


# of 4 by 10 and of 6 by 4 patches
SIZES = [(40, 16), (16, 24)]
CONTEXT = 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved LLaVA with a new tower, its chat template and a context of 100 tokens, beside two pictures."""
    folder = tmp_path_factory.mktemp("chat")
    torch.manual_seed(0)
    vlm, processor = cases.make_llava(max_position_embeddings=CONTEXT)
    processor.chat_template = cases.CHAT_TEMPLATE
    # a random model may say any word, but not that it has finished, nor that an image follows
    vlm.generation_config.suppress_tokens = list(range(8))
    swap_vision_tower(vlm, cases.make_tower(), processor=processor).save(folder / "vlm")
    for index, picture in enumerate(pictures(SIZES)):
        picture.save(folder / f"{index}.png")
    return folder


@pytest.fixture
def parts(folder):
    """The VLM and its processor."""
    return AutoModelForImageTextToText.from_pretrained(folder / "vlm"), AutoProcessor.from_pretrained(folder / "vlm")


def ids_of(chat):
    """The tokens of the whole conversation."""
    return chat.processor.apply_chat_template(chat.messages, tokenize=True, return_dict=True)["input_ids"][0]


def test_an_answer_is_what_the_model_generates(parts):
    model, processor = parts
    chat = PictureChat(model, processor, pictures(SIZES), max_new_tokens=6)
    answer = chat.ask("w10 w11")
    inputs = processor(
        images=pictures(SIZES), text="user <image> <image> w10 w11 w30", return_tensors="pt", padding=True
    )
    generated = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    expected = processor.tokenizer.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer == expected
    assert len(answer.split()) == 6


def test_pieces_are_written_as_they_come_and_make_up_the_answer(parts):
    chat = PictureChat(*parts, pictures(SIZES[:1]), max_new_tokens=6)
    pieces = []
    answer = chat.ask("w10", write=pieces.append)
    assert "".join(pieces) == answer
    assert len(pieces) == 6


def test_an_answer_depends_on_the_picture(parts):
    model, processor = parts
    inputs = [PictureChat(model, processor, [picture])._inputs for picture in pictures([(40, 16)] * 2)]
    question = [{"type": "text", "text": "w10"}]
    logits = []
    for make, picture in zip(inputs, pictures([(40, 16)] * 2), strict=True):
        messages = [{"role": "user", "content": [{"type": "image", "image": picture}, *question]}]
        with torch.no_grad():
            logits.append(model(**make(messages)).logits[0, -1])
    assert not torch.equal(*logits)


def test_the_next_question_follows_all_that_was_said(parts):
    chat = PictureChat(*parts, pictures(SIZES), max_new_tokens=3)
    first = chat.ask("w10")
    second = chat.ask("w12")
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2
    assert [part["type"] for part in chat.messages[0]["content"]] == ["image", "image", "text"]
    assert chat.messages[2]["content"] == [{"type": "text", "text": "w12"}]
    ids = ids_of(chat)
    assert ids.count(cases.IMAGE) == 4 * 10 + 6 * 4
    said = chat.processor.tokenizer.decode([index for index in ids if index != cases.IMAGE]).split()
    roles = [word for word in said if word == "<unk>"]  # "user" and "assistant" are no words of this tokenizer
    assert len(roles) == 4
    assert [word for word in said if word != "<unk>"] == ["w10", *first.split(), "w12", *second.split(), "w30"]


def test_an_answer_ends_with_the_context(parts):
    chat = PictureChat(*parts, pictures(SIZES), max_new_tokens=1000)
    answer = chat.ask("w10")
    # role, 40 and 24 image tokens, question, start of the answer
    assert len(answer.split()) == CONTEXT - (1 + 40 + 24 + 1 + 1)


@pytest.mark.parametrize("length", [CONTEXT - 67 + 1, 500], ids=["no room for an answer", "far too long"])
def test_what_is_longer_than_the_context_is_refused_and_forgotten(parts, length):
    chat = PictureChat(*parts, pictures(SIZES), max_new_tokens=2)
    with pytest.raises(ValueError, match=rf"has {66 + length} tokens.* takes {CONTEXT}"):
        chat.ask(" ".join(["w10"] * length))
    assert chat.messages == []
    assert len(chat.ask("w10").split()) == 2


def test_a_processor_without_chat_template_is_refused(parts):
    model, processor = parts
    processor.chat_template = None
    with pytest.raises(ValueError, match="the processor has no chat template"):
        PictureChat(model, processor, pictures(SIZES))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for message in messages %}{{ message['content'] + '!' }}{% endfor %}", "cannot write these messages"),
        ("{{ raise_exception('roles must alternate') }}", "It says: roles must alternate"),
        ("{% for message in messages %}{{ message['role'] }}{% endfor %}", "image"),
    ],
    ids=["texts only", "refuses", "no place for images"],
)
def test_a_template_that_takes_no_pictures_is_refused(parts, template, message):
    model, processor = parts
    processor.chat_template = template
    with pytest.raises(ValueError, match=message):
        PictureChat(model, processor, pictures(SIZES)).ask("w10")


def test_bad_arguments_are_refused(parts):
    with pytest.raises(ValueError, match="at least one picture"):
        PictureChat(*parts, [])
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        PictureChat(*parts, pictures(SIZES), max_new_tokens=0)


def test_a_conversation_goes_on_after_a_refused_question_and_ends_with_the_input(parts):
    chat = PictureChat(*parts, pictures(SIZES[:1]), max_new_tokens=2)
    questions = iter(["w10", " ".join(["w10"] * 90), " w11 ", "", "w12"])
    written = []
    converse(chat, read=lambda: next(questions), write=written.append)
    assert [message["content"][-1]["text"] for message in chat.messages[::2]] == ["w10", "w11"]
    assert sum(piece.startswith("not asked: ") for piece in written) == 1
    assert written.count("\n") == 3

    def end():
        raise EOFError

    converse(chat, read=end, write=written.append)
    assert len(chat.messages) == 4


def test_a_checkpoint_that_is_no_vlm_is_refused(folder, tmp_path):
    cases.make_tower().save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a 'turingvit', which does not answer with text about images"):
        load_chat(tmp_path, [folder / "0.png"])


def test_a_checkpoint_without_a_processor_is_refused(folder, tmp_path, parts):
    model, processor = parts
    model.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(OSError, match="Can't load image processor"):
        load_chat(tmp_path, [folder / "0.png"])


def run(folder, *options, images=("0.png",)):
    """`turingvit chat` with the VLM of this folder and pictures in it."""
    paths = [option for image in images for option in ("--image", str(folder / image))]
    return CliRunner().invoke(cli.app, ["chat", "--model", str(folder / "vlm"), *paths, *options])


def test_the_command_answers_one_prompt(folder, parts):
    result = run(folder, "--prompt", "w10", "--max-new-tokens", "4", images=("0.png", "1.png"))
    assert result.exit_code == 0, result.output
    expected = PictureChat(*parts, pictures(SIZES), max_new_tokens=4).ask("w10")
    assert result.stdout == f"{expected}\n"


def test_the_command_takes_turns_in_a_terminal(folder, monkeypatch):
    monkeypatch.setattr(cli, "is_terminal", lambda: True)
    questions = iter(["w10", "w11"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(questions, ""))
    result = run(folder, "--max-new-tokens", "3")
    assert result.exit_code == 0, result.output
    assert [len(line.split()) for line in result.stdout.splitlines()] == [3, 3]


@pytest.mark.parametrize(
    ("options", "images", "message"),
    [
        ((), ("0.png",), "no question: give --prompt TEXT, or run the command in a terminal"),
        (("--prompt", "w10"), ("missing.png",), "missing.png"),
        (("--prompt", "w10"), ("broken.png",), "cannot read the image"),
        (("--prompt", "w10 " * 200), ("0.png",), "language model takes"),
        (("--prompt", "w10", "--model", "no/such/folder"), ("0.png",), "no/such/folder"),
    ],
    ids=["no prompt", "missing picture", "broken picture", "too long", "no model"],
)
def test_the_command_ends_in_an_exit_code_where_the_input_is_at_fault(folder, options, images, message):
    Image.new("RGB", (64, 64), "red").save(folder / "broken.png")
    whole = (folder / "broken.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[:60])
    result = run(folder, *options, images=images)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "error: " in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
