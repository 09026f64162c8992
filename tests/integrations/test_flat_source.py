# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The package's source as flat files holds nothing that transformers' loader of code trips over."""

import ast
import sys

import pytest
from transformers.dynamic_module_utils import get_imports, get_relative_import_files, get_relative_imports

from turingvit_hf.integrations import flat_source
from turingvit_hf.integrations.flat_source import flat_name, flatten_sources


ENTRIES = [
    "turingvit_hf.modeling.configuration_turingvit",
    "turingvit_hf.modeling.modeling_turingvit",
    "turingvit_hf.processing.image_processing_turingvit",
]
# what a machine with transformers and torch has; anything more would be a requirement of every exported checkpoint
REQUIREMENTS = {"PIL", "huggingface_hub", "numpy", "torch", "transformers"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flat")
    for name, text in flatten_sources(ENTRIES).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_every_file_is_one_that_the_loader_finds(folder):
    files = {str(file) for file in folder.iterdir()}
    entries = {str(folder / f"{flat_name(module)}.py") for module in ENTRIES}
    found = {file for entry in entries for file in get_relative_import_files(entry)}
    assert found | entries == files


def test_the_loader_reads_imports_where_python_does(folder):
    for file in folder.iterdir():
        imported = {
            node.module
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.level and node.module
        }
        assert set(get_relative_imports(file)) == imported, file.name


def test_nothing_but_torch_and_transformers_is_required(folder):
    for file in folder.iterdir():
        assert set(get_imports(file)) - sys.stdlib_module_names <= REQUIREMENTS, file.name
        # nor by name, through importlib
        assert '"turingvit_hf.' not in file.read_text(encoding="utf-8")


def test_flat_names():
    assert flat_name("turingvit_hf.modeling.attention") == "attention"
    assert flat_name("turingvit_hf.kernels.linear_attention") == "linear_attention"
    assert flat_name("turingvit_hf.kernels.linear_attention.op") == "linear_attention_op"


def test_operators_belong_to_their_copy(folder):
    for file in folder.iterdir():
        strings = [n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant)]
        assert not [s for s in strings if isinstance(s, str) and s.startswith("turingvit::")], file.name
    namespaces = []
    for name in ("a.operator_namespace", "b.operator_namespace"):
        names = {"__name__": name}
        exec(flatten_sources(ENTRIES)["operator_namespace.py"], names)
        namespaces.append(names["NAMESPACE"])
    assert len(set(namespaces)) == 2
    assert all(namespace.isidentifier() for namespace in namespaces)


SOURCE = '''\
"""Module with an “accent”, so that bytes and characters differ."""

import torch

from turingvit_hf.kernels import linear_attention
from turingvit_hf.kernels.linear_attention import op as operators, reference
from turingvit_hf.modeling.packing import (
    pack_images,  # a comment that goes
    split_by_image as split,
)


try:
    from turingvit_hf.kernels.linear_attention import torch_backend
except ImportError:
    torch_backend = None

é = "é"; NAME = "turingvit::é"  # a comment that stays


def late():
    from turingvit_hf.modeling.rope import rotate

    return rotate
'''

FLAT = '''\
"""Module with an “accent”, so that bytes and characters differ."""

from .operator_namespace import NAMESPACE
import torch

from .linear_attention import __name__ as _
from . import linear_attention as linear_attention
from .linear_attention_op import __name__ as _
from . import linear_attention_op as operators
from .linear_attention_reference import __name__ as _
from . import linear_attention_reference as reference
from .packing import pack_images, split_by_image as split


try:
    from .linear_attention_torch_backend import __name__ as _
    from . import linear_attention_torch_backend as torch_backend
except ImportError:
    torch_backend = None

é = "é"; NAME = f"{NAMESPACE}::é"  # a comment that stays


def late():
    from .rope import rotate

    return rotate
'''


def flatten(source: str, monkeypatch, tmp_path) -> str:
    """The flat text of a module with this source, inside a package that is otherwise the real one."""
    (tmp_path / "example.py").write_text(source, encoding="utf-8")
    find = flat_source._source_file

    def source_file(module):
        return tmp_path / "example.py" if module == "turingvit_hf.modeling.example" else find(module)

    monkeypatch.setattr(flat_source, "_source_file", source_file)
    return flatten_sources(["turingvit_hf.modeling.example"])["example.py"]


def test_every_form_of_import(monkeypatch, tmp_path):
    assert flatten(SOURCE, monkeypatch, tmp_path) == FLAT


@pytest.mark.parametrize(
    "line",
    [
        "import turingvit_hf.modeling.rope",
        "import torch, turingvit_hf.modeling.rope as rope",
        "from .rope import rotate",
        "from . import rope",
        "from turingvit_hf import TuringViTModel",
        "from turingvit_hf.modeling import nothing_of_that_name",
        "from turingvit_hf.modeling.rope import *",
    ],
)
def test_imports_without_a_flat_form_are_refused_by_line(monkeypatch, tmp_path, line):
    with pytest.raises(ValueError, match=r"turingvit_hf\.modeling\.example, line 3: "):
        flatten(f"import torch\n\n{line}\n", monkeypatch, tmp_path)


def test_missing_module_is_named():
    with pytest.raises(ValueError, match=r"no module 'turingvit_hf\.modeling\.nothing'"):
        flatten_sources(["turingvit_hf.modeling.nothing"])
