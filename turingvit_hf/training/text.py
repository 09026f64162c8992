# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A tokenizer and a text encoder made from scratch for one dataset, where no pretrained ones are at hand."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import DistilBertConfig, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast


PAD, BEGIN, END = "<pad>", "<s>", "</s>"
# the first ids of every tokenizer made here
NUM_SPECIAL_TOKENS, NUM_BYTES = 3, 256


def train_tokenizer(
    captions: Iterable[str], *, vocab_size: int = 1024, max_length: int = 64
) -> PreTrainedTokenizerFast:
    """A lower-casing byte-level BPE tokenizer trained on the captions; no text is unknown to it.

    Args:
        captions: the training captions (never the held-out ones).
        vocab_size: upper limit on its vocabulary; the 256 bytes and three special tokens are always in it.
        max_length: tokens after which a text is cut when the tokenizer is called with `truncation=True`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (BEGIN, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )


def small_text_config(
    tokenizer: PreTrainedTokenizerBase, *, hidden_size: int = 192, num_layers: int = 2
) -> PreTrainedConfig:
    """Configuration of a small bidirectional text encoder without a pooler, for `text_pooling="mean"`.

    Args:
        tokenizer: gives vocabulary, padding token and the longest text.
        hidden_size: width, a multiple of 64.
        num_layers: number of transformer layers.
    """
    return DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        dim=hidden_size,
        hidden_dim=4 * hidden_size,
        n_layers=num_layers,
        n_heads=hidden_size // 64,
        dropout=0.0,
        attention_dropout=0.0,
    )
