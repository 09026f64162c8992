# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""README and documentation keep their word: Python blocks run, links lead somewhere, figures are current."""

import importlib
import inspect
import re
import runpy
import shlex
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
import typer

from turingvit_hf import TuringViTConfig, TuringViTModel
from turingvit_hf.cli import app


ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "turingvit_hf").rglob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    blocks = [match for match in FENCE.finditer(text) if match[1] == "python"]
    return [(text.count("\n", 0, match.start(2)) + 1, match[2]) for match in blocks]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that code hosts and mkdocs give to the headings of a page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


# peft asks for a property that transformers 5.23 deprecates: https://github.com/huggingface/peft/issues
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=name_of)
def test_every_python_block_runs(page, tmp_path, monkeypatch):
    """The blocks of a page run in order, in one namespace and in an empty folder, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    printed: list[tuple[int, str]] = []
    namespace: dict[str, object] = {"__name__": "__main__"}
    namespace["print"] = lambda *values: printed.append((sys._getframe(1).f_lineno, " ".join(map(str, values))))
    for line, source in python_blocks(page):
        # empty lines in front make a traceback name the line of the page
        code = compile("\n" * (line - 1) + source, str(page), "exec")
        exec(code, namespace)
    lines = page.read_text(encoding="utf-8").splitlines()
    for line, output in printed:
        _, _, comment = lines[line - 1].partition("  # ")
        numbers, promised = re.findall(r"\d+", output), re.findall(r"\d+", comment)
        assert not comment or promised[: len(numbers)] == numbers, f"{name_of(page)}, line {line}: printed {output}"


def test_pages_with_examples_are_found():
    names = {name_of(page) for page in PAGES if python_blocks(page)}
    assert {"README.md", "docs/index.md", "docs/packing.md", "docs/usage.md", "docs/training.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_on_a_page_have_the_options_that_it_gives_them(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in [
        *re.findall(r"^ *(?:\w+=\w+ )?(turingvit .*)$", text, re.MULTILINE),
        *re.findall(r"`(turingvit [^`]+)`", text),
    ]:
        words = shlex.split(line, comments=True)[1:]
        command = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        if hasattr(command, "commands") or command.name == "serve":  # which passes on what it does not know
            continue
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - known - {"--help"}
        assert not unknown, f"{line}: {command.name} has no {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{name_of(page)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(file), f"{name_of(page)} links to {target}, which has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_fit_the_page(page):
    too_long = [line for _, source in python_blocks(page) for line in source.splitlines() if len(line) > 119]
    assert not too_long


def test_the_api_has_all_that_the_pages_import():
    api = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = set()
    for target, options in re.findall(r"^::: ([\w.]+)\n((?: +.*\n)*)", api, re.MULTILINE):
        parent, _, name = target.rpartition(".")
        shown.add(name)
        if members := re.search(r"members: \[(.*)\]", options):
            shown |= set(members[1].split(", "))
        elif inspect.ismodule(module := getattr(importlib.import_module(parent), name, None)):
            shown |= {key for key, value in vars(module).items() if getattr(value, "__module__", None) == target}
    for page in PAGES:
        for _, source in python_blocks(page):
            for names in re.findall(r"^from turingvit_hf[\w.]* import ([\w, ]+)", source, re.MULTILINE):
                missing = {name for name in names.split(", ") if not name.isupper()} - shown
                assert not missing, f"{name_of(page)} imports {missing}, and docs/api.md has none of that name"


def test_figures_are_what_the_script_draws():
    figures = runpy.run_path(str(ROOT / "docs" / "make_figures.py"))["FIGURES"]
    assert {path.name for path in (ROOT / "docs" / "assets").glob("*.svg")} == set(figures)
    for name, draw in figures.items():
        text = (ROOT / "docs" / "assets" / name).read_text(encoding="utf-8")
        assert text == draw().svg(), f"run python docs/make_figures.py: {name} is not current"
        ElementTree.fromstring(text)


@pytest.mark.parametrize("num_layers", [18, 24])
@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_parameter_counts_are_stated_right(page, num_layers):
    with torch.device("meta"):
        tower = TuringViTModel(TuringViTConfig(num_hidden_layers=num_layers))
    head = sum(parameter.numel() for parameter in tower.head.parameters())
    without_head = sum(parameter.numel() for parameter in tower.parameters()) - head
    text = (ROOT / page).read_text(encoding="utf-8")
    assert f"{without_head:,}" in text
    assert f"{head:,}" in text


def test_weight_names_are_those_of_the_contract():
    """docs/architecture.md names every weight of a tower and no other."""
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Names of the weights")[1]
    config = TuringViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=6, num_attention_heads=4, tla_output_projection=True
    )
    documented = set()
    for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE):
        first = ""
        for name in re.findall(r"`([^`]+)`", row):
            name = first.rsplit(".", 1)[0] + name if name.startswith(".") else name
            first = first or name
            stem, braces, rest = re.match(r"([^{]*(?:\{i\}[^{]*)?)(?:\{([^}]+)\}(.*))?$", name).groups()
            documented |= {stem + part + (rest or "") for part in (braces or "").split(",")}
    actual = {re.sub(r"layers\.\d+\.", "layers.{i}.", name) for name in TuringViTModel(config).state_dict()}
    assert documented == actual
