# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The tokenizer made from captions: nothing is unknown to it, long texts are cut, saving changes nothing."""

import pytest
from transformers import AutoModel, AutoTokenizer

from turingvit_hf.training.text import NUM_BYTES, NUM_SPECIAL_TOKENS, small_text_config, train_tokenizer


CAPTIONS = ["a red star on the left", "two blue rings on the right", "ein grüner Stern — oben"] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CAPTIONS, vocab_size=300, max_length=12)


def test_every_text_comes_back(tokenizer):
    for text in ("a red star", "Ωmega 星 🦔", "words-never-seen"):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text.lower()


def test_vocabulary_and_lengths(tokenizer):
    assert len(tokenizer) <= 300
    assert tokenizer.pad_token_id == 0
    first_words = tokenizer.convert_ids_to_tokens(range(NUM_SPECIAL_TOKENS + NUM_BYTES - 1, 262))
    assert [len(token) > 1 for token in first_words] == [False, True, True, True]
    batch = tokenizer(["a", "two blue rings on the right " * 20], padding=True, truncation=True)
    assert [len(ids) for ids in batch["input_ids"]] == [12, 12]
    assert batch["input_ids"][1][-1] == tokenizer.eos_token_id
    assert set(batch) == {"input_ids", "attention_mask"}


def test_the_same_captions_give_the_same_tokenizer(tokenizer):
    assert train_tokenizer(CAPTIONS, vocab_size=300, max_length=12).get_vocab() == tokenizer.get_vocab()


def test_saving_changes_nothing(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["A red STAR", "Ωmega", ""]
    assert loaded(texts, padding=True)["input_ids"] == tokenizer(texts, padding=True)["input_ids"]
    assert loaded.model_max_length == 12


def test_the_text_encoder_fits_the_tokenizer(tokenizer):
    model = AutoModel.from_config(small_text_config(tokenizer, hidden_size=64, num_layers=1)).eval()
    batch = tokenizer(["two blue rings " * 20, "a"], padding=True, truncation=True, return_tensors="pt")
    assert model(**batch).last_hidden_state.shape == (2, 12, 64)
