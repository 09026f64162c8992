# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Conversations become batches in which exactly the answers are trained on."""

import json

import pytest
import torch

from turingvit_hf.errors import BadRowError, InputError
from turingvit_hf.training.vlm.answers import ChatRenderer
from turingvit_hf.training.vlm.chat_data import ConversationCollator, ConversationDataset
from turingvit_hf.training.vlm.chat_template import chat_template
from turingvit_hf.training.vlm.conversations import parse_conversation, read_rows


IMAGE = "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
PARTS = "{% for part in message['content'] %}" + IMAGE + "{% endfor %}"
# the words of answers are marked, the token that ends them is not
MARKED = (
    "{% for message in messages %}{{ message['role'] + ': ' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}" + PARTS + "{% endgeneration %}{{ '</s>\n' }}{% else %}" + PARTS + "{{ '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
# as that of LLaVA-1.5, whose answers end with nothing
ENDLESS = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}" + PARTS + "{{ ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# as those of models that think: earlier answers are written otherwise than the last one
FORGETFUL = (
    "{% for message in messages %}{{ message['role'] + ': ' }}"
    "{% if message['role'] == 'assistant' and loop.last %}<think></think>{% endif %}" + PARTS + "{{ '</s>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
ADDING = "{% for message in messages %}{{ '<|im_start|>' + message['content'] }}{% endfor %}"
TEXT_ONLY = "{% for message in messages %}{{ message['role'] ~ message['content'] ~ '</s>' }}{% endfor %}"


def trained_texts(batch, tokenizer) -> list[list[str]]:
    """What each sample of a batch is trained on: its runs of labels, decoded."""
    texts = []
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        assert torch.equal(ids[labels != -100], labels[labels != -100])
        runs: list[list[int]] = []
        was_trained = False
        for label in labels.tolist():
            if label != -100:
                if not was_trained:
                    runs.append([])
                runs[-1].append(label)
            was_trained = label != -100
        texts.append([tokenizer.decode(run) for run in runs])
    return texts


def batch_of(rows, processor, folder):
    dataset = ConversationDataset(rows, processor, image_folder=folder)
    return ConversationCollator(processor)([dataset[index] for index in range(len(dataset))])


def test_answers_and_their_end_are_trained_on_and_nothing_else(rows, processor, picture_folder):
    batch = batch_of(rows, processor, picture_folder)
    assert trained_texts(batch, processor.tokenizer) == [
        ["A wide one.<|im_end|>"],
        ["One is tall.<|im_end|>"],
        ["A square.<|im_end|>", "Yes, été.<|im_end|>"],
        ["Four.<|im_end|>"],
    ]
    assert not (batch["labels"] == processor.image_token_id).any()


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (MARKED, ["A square.</s>", "Yes, été.</s>"]),
        (ENDLESS, [" A square. ", " Yes, été.<|im_end|>"]),
    ],
    ids=["marked", "endless"],
)
def test_templates_that_mark_answers_or_end_them_with_nothing(rows, processor, picture_folder, template, expected):
    processor.chat_template = template
    assert trained_texts(batch_of(rows[:3], processor, picture_folder), processor.tokenizer)[2] == expected


def test_a_sample_is_what_the_trained_model_is_asked_with(rows, processor, picture_folder):
    """The tokens in front of the last answer are those of `apply_chat_template` with the prompt for an answer."""
    conversation = parse_conversation(rows[2], picture_folder)
    batch = batch_of(rows[2:3], processor, picture_folder)
    messages = [dict(message) for message in conversation.messages[:-1]]
    messages[1]["content"] = [{"type": "image", "path": str(picture_folder / "3.png")}, messages[1]["content"][1]]
    prompt = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    length = prompt["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :length], prompt["input_ids"])
    assert torch.equal(batch["pixel_values"], prompt["pixel_values"])
    assert batch["labels"][0, length - 1] == -100
    assert batch["labels"][0, length] != -100


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (FORGETFUL, "changes what came before"),
        (ADDING, "refuses the conversation"),
        (TEXT_ONLY, "does not write '<image>'|marks|changes"),
        ("{{ raise_exception('never') }}", "never"),
        (None, "no chat template"),
    ],
    ids=["forgetful", "adding", "text only", "refusing", "none"],
)
def test_templates_that_cannot_be_trained_with_are_refused(processor, template, reason):
    processor.chat_template = template
    with pytest.raises(InputError, match=reason):
        ChatRenderer(processor)


def test_samples_keep_their_labels_in_any_batch(rows, processor, picture_folder):
    dataset = ConversationDataset(rows, processor, image_folder=picture_folder)
    collate = ConversationCollator(processor)
    together = collate([dataset[index] for index in range(4)])
    for index in range(4):
        alone = collate([dataset[index]])
        length = dataset.lengths[index]
        assert alone["input_ids"].shape == (1, length)
        for key in ("input_ids", "labels", "attention_mask"):
            assert torch.equal(together[key][index, :length], alone[key][0]), key
        assert not together["attention_mask"][index, length:].any()
        assert (together["labels"][index, length:] == -100).all()


def test_only_texts(rows, processor, picture_folder):
    batch = batch_of(rows[3:], processor, picture_folder)
    assert "pixel_values" not in batch


def question(**changes):
    turns = [{"role": "user", "content": "<image> what?"}, {"role": "assistant", "content": "That."}]
    return {"messages": turns, "image": "0.png"} | changes


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "row is no JSON object"),
        ({"text": "a"}, "row has neither messages nor conversations"),
        (question(image=None), "conversation asks for more images than its row has"),
        (question(image=["0.png", "1.png"]), "row has more images than its conversation asks for"),
        (question(image="missing.png"), "file is missing"),
        (question(image="text.png"), "image cannot be read"),
        (question(messages=[{"role": "user", "content": "<image>"}]), "conversation has no answer"),
        (question(messages=[{"role": "assistant", "content": "a"}], image=None), "conversation begins with an answer"),
        (question(messages=[{"role": "tool", "content": "a"}]), "turn is by an unknown speaker"),
        (question(messages=[{"role": "user", "content": [{"type": "audio"}]}]), "turn has a part that is neither"),
        (question(messages=[{"role": "user"}]), "turn has no text"),
        (question(messages=["hello"]), "turn is no JSON object"),
        (question(image=["0.png"] * 9), "row has more images"),
    ],
)
def test_bad_rows_are_counted_and_left_out(rows, processor, picture_folder, caplog, row, reason):
    dataset = ConversationDataset([row, *rows], processor, image_folder=picture_folder, max_bad_share=0.5)
    assert len(dataset) == 4
    assert [name.startswith(reason) for name in dataset.skipped] == [True]
    assert reason in caplog.text


@pytest.mark.parametrize("answer", ["", "  ", "see <image>"])
def test_answers_must_be_text(answer):
    turns = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": answer}]
    with pytest.raises(BadRowError, match="answer"):
        parse_conversation({"conversations": turns, "image": [b"picture"] if "<image>" in answer else None})


def test_long_conversations_are_left_out(rows, processor, picture_folder):
    lengths = ConversationDataset(rows, processor, image_folder=picture_folder).lengths
    limit = sorted(lengths)[2]
    dataset = ConversationDataset(rows, processor, image_folder=picture_folder, max_length=limit, max_bad_share=0.5)
    assert sorted(dataset.lengths) == sorted(lengths)[:3]


def test_too_many_bad_rows_end_it_with_words(rows, processor, picture_folder):
    with pytest.raises(InputError, match=r"3 of 7 conversations cannot be used .*3 x row is no JSON object"):
        ConversationDataset([None] * 3 + rows, processor, image_folder=picture_folder)
    with pytest.raises(InputError, match="no rows"):
        ConversationDataset([], processor)


def test_a_picture_that_breaks_when_decoded_is_replaced_and_counted(rows, processor, picture_folder):
    dataset = ConversationDataset([question(image="broken.png"), *rows], processor, image_folder=picture_folder)
    assert len(dataset) == 5
    assert dataset[0].text == dataset[1].text
    assert dict(dataset.skipped) == {"image cannot be read": 1}


def test_alignment_leaves_out_texts(rows, processor, picture_folder):
    dataset = ConversationDataset(rows, processor, image_folder=picture_folder, needs_images=True)
    assert len(dataset) == 3
    assert dict(dataset.skipped) == {"conversation has no image": 1}


def test_an_image_token_in_a_text_is_refused(processor, tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|picture|>"]})
    processor.image_token = "<|picture|>"
    processor.chat_template = chat_template("<|picture|>")
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a <|picture|>"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    ]
    with pytest.raises(BadRowError, match="text holds the image token"):
        ChatRenderer(processor).render(messages)


def test_a_processor_that_adds_to_texts_is_refused(rows, processor, picture_folder, monkeypatch):
    dataset = ConversationDataset(rows, processor, image_folder=picture_folder)
    call = type(processor).__call__
    monkeypatch.setattr(
        type(processor), "__call__", lambda self, text, **kwargs: call(self, text=["more" + t for t in text], **kwargs)
    )
    with pytest.raises(InputError, match="puts words of its own into texts"):
        ConversationCollator(processor)([dataset[0]])


def test_files_of_rows(rows, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{broken\n")
    assert read_rows(tmp_path / "rows.json") == rows
    assert read_rows(tmp_path / "rows.jsonl") == [*rows, None]


@pytest.mark.parametrize(("name", "text"), [("a.csv", ""), ("a.json", "{}"), ("a.json", "["), ("b.json", None)])
def test_files_that_hold_no_rows_are_refused(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name):
        read_rows(tmp_path / name)
