# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Stands in for transformers' configuration tests, which its source distribution does not contain."""

# Fields that every config has, none of them at its default: the common test looks whether a config keeps them.
config_common_kwargs = {
    "architectures": ["SomeModel"],
    "chunk_size_feed_forward": 5,
    "dtype": "float16",
    "id2label": {0: "first", 1: "second", 2: "third"},
    "label2id": {"first": 0, "second": 1, "third": 2},
    "output_hidden_states": True,
    "problem_type": "regression",
    "return_dict": False,
}
